"""What thresholds would keep is what datasets then keep."""

import pytest
from click.testing import CliRunner
from pairs import configure_pairs, make_pool, pair, write_scores

from bettersynth.cli.what_if import command
from bettersynth.core.errors import PersonError
from bettersynth.datasets.build import build_dataset
from bettersynth.datasets.columns import columns_of
from bettersynth.inspect.what_if import by_quantile, in_pairs, parse, together
from bettersynth.pool.rows import read_rows

OPERATORS = {"words": {"op": "words_num_filter"}, "shape": {"op": "image_shape_filter"}}
CHOSEN = {"words": {"min": 4, "max": 9}, "shape.image_width": {"min": 6}, "shape.image_height": {"min": 6}}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Twelve records: some of several pictures, one without any, and one whose picture could not be measured."""
    folder = tmp_path_factory.mktemp("what_if")
    records = [pair(f"r{number:02d}", f"caption {number}") for number in range(12)]
    datasets = {"chosen": {"from": "pool", "filter": CHOSEN}}
    configuration = configure_pairs(folder, {"one": records}, operators=OPERATORS, datasets=datasets)
    layout, plan = make_pool(configuration, folder)
    write_scores(layout, plan, "words", {f"r{number:02d}": {"num_words": number} for number in range(12)})
    sizes = {f"r{n:02d}": {"image_width": [n], "image_height": [n]} for n in range(12)}
    sizes["r05"] = {"image_width": [9, 1], "image_height": [1, 9]}
    sizes["r06"] = {"image_width": [9, 1], "image_height": [9, 1]}
    sizes["r07"] = {"image_width": [], "image_height": []}
    sizes["r08"] = {"image_width": None, "image_height": None}
    write_scores(layout, plan, "shape", sizes)
    return configuration, layout, plan


def test_bounds_together_keep_what_a_dataset_keeps(world):
    configuration, layout, plan = world
    card = build_dataset("chosen", configuration, layout, plan)
    columns = columns_of(read_rows("pool", layout), layout, plan).numbers
    bounds = parse("words>=4 words<=9,6 shape.image_width>=6 shape.image_height>=6", columns)
    found = {tuple(map(str, chosen)): rows for chosen, rows in together(columns, bounds)}
    most = ("words ≥ 4", "words ≤ 9", "shape.image_width ≥ 6", "shape.image_height ≥ 6")
    assert found[most] == card["rows"] == 2, "r06 and r09: one and the same picture is asked for both its sides"
    assert found[(*most[:1], "words ≤ 6", *most[2:])] == 1


def test_quantiles_and_pairs_are_counted_by_the_rule_of_filters(world):
    _, layout, plan = world
    columns = columns_of(read_rows("pool", layout), layout, plan).numbers
    lines = {(line["score"], line["quantile"]): line for line in by_quantile(columns)}
    assert lines["words", 0.5] == {"score": "words", "quantile": 0.5, "value": 5.5, "min": 6, "max": 6}
    widths = lines["shape.image_width", 0.01]
    assert widths["min"] == 9, "one row lies below, and two have no width"
    pairs = list(in_pairs(columns, parse("words>=6", columns)[0]))
    line = next(line for line in pairs if line["key"] == "words" and line["other_key"] == "shape.image_width")
    assert (line["side"], line["value"], line["kept"]) == ("min", 6, 6)
    wide = {number for number in (0, 1, 2, 3, 4, 5, 6, 9, 10, 11) if number >= line["other_value"] or number in (5, 6)}
    assert line["both"] == len(wide & set(range(6, 12))) and line["kept_other"] == len(wide)


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        ("words>=six", "is no number"),
        ("wrods>=6", "there is no score of these rows `wrods`; there are: .*did you mean `words`"),
        ("words 6", "is no bound; write such as"),
        (
            "words>=" + ",".join(map(str, range(200))) + " shape.image_width>=" + ",".join(map(str, range(200))),
            "40,000",
        ),
    ],
)
def test_bounds_that_cannot_be_meant_are_refused(world, keep, says):
    _, layout, plan = world
    columns = columns_of(read_rows("pool", layout), layout, plan).numbers
    with pytest.raises(PersonError, match=says):
        list(together(columns, parse(keep, columns)))


def test_a_dataset_that_is_not_made_is_named_with_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("pool: {files: [{path: a.jsonl, name: a}], images: .}\n")
    said = CliRunner().invoke(command, ["--config", "c.yaml"]).exception
    assert "pool has no rows yet" in str(said) and "snakemake --configfile c.yaml" in str(said)

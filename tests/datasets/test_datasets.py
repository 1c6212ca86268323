"""Datasets from their parents' files to their own: rows, reasons, cards."""

from collections import Counter

import pyarrow as pa
import pytest
from pairs import configure_pairs, make_pool, pair, pairs_of, write_jsonl, write_scores

from bettersynth.configuration.threshold import Threshold
from bettersynth.core.publish import read_json, sha256_file, write_json
from bettersynth.core.records import FAILED, Record, text_of, write_records
from bettersynth.core.tables import read_table, write_table
from bettersynth.datasets.analysis import build_analysis
from bettersynth.datasets.build import build_dataset
from bettersynth.datasets.ledger import read_dropped, reason_of
from bettersynth.datasets.values import values_of
from bettersynth.datasets.verbs.filter import kept
from bettersynth.pool.ingest import ingest_file
from bettersynth.pool.rows import asked_rows, load_records, read_rows
from bettersynth.runtime.patches.data_juicer import import_data_juicer

OPERATORS = {
    "similarity": {"op": "image_text_similarity_filter"},
    "shape": {"op": "image_shape_filter"},
    "hash": {"op": "image_hash"},
}


def make(tmp_path, datasets, records=None, **sections):
    """A pool of ten records with scores 0.0, 0.1 … 0.9, and the datasets built in order."""
    records = records or [pair(f"r{number}", f"caption {number}") for number in range(10)]
    configuration = configure_pairs(
        tmp_path,
        {"one": records[:6], "two": records[6:]},
        operators=OPERATORS,
        captioners={name: {"model": "any"} for name in ("a", "b", "blip2")},
        datasets=datasets,
        **sections,
    )
    layout, plan = make_pool(configuration, tmp_path)
    ids = [record["id"] for record in records]
    write_scores(layout, plan, "similarity", {name: {"s": [place / 10]} for place, name in enumerate(ids)})
    return configuration, layout, plan


def built(configuration, layout, plan, name):
    card = build_dataset(name, configuration, layout, plan)
    rows = pairs_of(read_rows(name, layout))
    dropped = Counter(reason_of(row).words for row in read_dropped(layout.dropped(name)).to_pylist())
    assert dict(dropped) == card["ledger"]["dropped"]
    assert card["rows"] == len(rows)
    assert card["sha256"] == sha256_file(layout.rows(name))
    assert read_json(layout.dataset_card(name)) == card
    return card, [name for name, _ in rows]


def test_one_picture_is_asked_for_its_width_and_its_height(tmp_path):
    """As Data-Juicer asks: pictures of 200 by 10 and of 10 by 200 pixels are none of 100 by 100."""
    import_data_juicer()
    from data_juicer.ops.filter.image_shape_filter import ImageShapeFilter

    sizes = [[(200, 10), (10, 200)], [(200, 200), (1, 1)], [(150, 120)], [(99, 100)], [(10, 10), (20, 20)], []]
    records = [pair(f"r{number}", f"caption {number}") for number in range(10)]
    shapes = {
        f"r{number}": {
            "image_width": [width for width, _ in sizes[number % 6]],
            "image_height": [height for _, height in sizes[number % 6]],
        }
        for number in range(10)
    }
    for strategy in ("any", "all"):
        bound = {"min": 100, "any_or_all": strategy}
        verb = {"shape.image_width": bound, "shape.image_height": bound}
        world = make(tmp_path / strategy, {"large": {"from": "pool", "filter": verb}}, records)
        write_scores(*world[1:], "shape", shapes)
        card, ids = built(*world, "large")
        stock = ImageShapeFilter(min_width=100, min_height=100, any_or_all=strategy)
        kept = stock.process_batched({"__dj__stats__": list(shapes.values())})
        assert ids == [name for name, keep in zip(shapes, kept, strict=True) if keep and shapes[name]["image_width"]]
    assert "shape no value within every bound" not in card["ledger"]["dropped"]


def test_a_filter_reads_its_scores_and_writes_its_card(tmp_path):
    world = make(tmp_path, {"good": {"from": "pool", "filter": {"similarity": {"min": 0.3, "max": 0.7}}}})
    card, ids = built(*world, "good")
    assert ids == ["r3", "r4", "r5", "r6", "r7"], "closed interval, pool's order"
    assert card["ledger"]["dropped"] == {"similarity.s above 0.7": 2, "similarity.s below 0.3": 3}
    assert (card["verb"], card["parents"]) == ("filter", ["pool"])
    assert card["parameters"] == {"similarity": {"min": 0.3, "max": 0.7, "any_or_all": "any"}}
    assert card["inputs"] == {"pool": sha256_file(world[1].index)}


def test_rows_of_one_pool_file_stay_whatever_their_source(tmp_path):
    datasets = {
        "second": {"from": "pool", "files": "two"},
        "new": {"from": "pool", "recaption": {"captioner": "blip2"}},
        "new_second": {"from": "new", "files": ["two"]},
    }
    world = make(tmp_path, datasets)
    card, ids = built(*world, "second")
    assert ids == ["r6", "r7", "r8", "r9"]
    assert card["ledger"]["dropped"] == {"of another file": 6}
    generate(world[1], world[2], "new", "pool", {})
    built(*world, "new")
    assert built(*world, "new_second")[1] == ids


def test_a_stat_must_be_named_when_there_are_several(tmp_path):
    datasets = {
        "vague": {"from": "pool", "filter": {"shape": {"min": 1}}},
        "wide": {"from": "pool", "filter": {"shape.width": {"min": 8}, "similarity": {"max": 0.85}}},
    }
    configuration, layout, plan = make(tmp_path, datasets)
    write_scores(layout, plan, "shape", {f"r{n}": {"width": [n], "height": [1]} for n in range(10)})
    with pytest.raises(ValueError, match=r"write one of `shape\.width`, `shape\.height`"):
        build_dataset("vague", configuration, layout, plan)
    card, ids = built(configuration, layout, plan, "wide")
    assert ids == ["r8"]
    assert card["ledger"]["dropped"] == {"shape.width below 8": 8, "similarity.s above 0.85": 1}


def test_scores_of_other_records_are_refused(tmp_path):
    configuration, layout, plan = make(tmp_path, {"good": {"from": "pool", "filter": {"similarity": {"min": 0.3}}}})
    write_jsonl(tmp_path / "one.jsonl", [pair(f"r{number}", "changed") for number in range(6)])
    ingest_file(configuration.pool, configuration.pool.files[0], layout)
    with pytest.raises(ValueError, match=r"\.parquet was made from other records .*rm -rf .*make run CONFIG="):
        build_dataset("good", configuration, layout, plan)
    assert not layout.rows("good").exists()


@pytest.mark.parametrize(
    ("row", "threshold", "close"),
    [
        ([0.2995], {"min": 0.3}, True),
        ([0.3005], {"min": 0.3}, True),
        ([0.3], {"max": 0.3}, True),
        ([0.302], {"min": 0.3}, False),
        ([0.3005, 0.9], {"min": 0.3}, False),
        ([0.3005, 0.9], {"min": 0.3, "any_or_all": "all"}, True),
        ([], {"min": 0.3}, False),
    ],
)
def test_a_close_call_is_one_that_a_small_difference_decides(row, threshold, close):
    values = values_of("similarity.s", pa.array([row], pa.list_(pa.float64())))
    could, must = (kept(values, Threshold(**threshold), margin)[0] for margin in (1e-3, -1e-3))
    assert (could and not must) == close


def test_the_ledger_counts_close_calls_of_neural_scores_only(tmp_path):
    datasets = {
        "similar": {"from": "pool", "filter": {"similarity": {"min": 0.3}}},
        "wide": {"from": "pool", "filter": {"shape.width": {"min": 3}}},
        "wide_and_similar": {"from": "pool", "filter": {"shape.width": {"min": 4}, "similarity": {"min": 0.3}}},
    }
    configuration, layout, plan = make(tmp_path, datasets)
    write_scores(layout, plan, "shape", {f"r{n}": {"width": [n], "height": [1]} for n in range(10)})
    assert built(configuration, layout, plan, "similar")[0]["ledger"]["near"] == 1
    assert "near" not in built(configuration, layout, plan, "wide")[0]["ledger"]
    assert "near" not in built(configuration, layout, plan, "wide_and_similar")[0]["ledger"], "r3 is narrow anyway"


def test_scores_in_bf16_have_more_close_calls(tmp_path):
    datasets = {"similar": {"from": "pool", "filter": {"similarity": {"min": 0.305}}}}
    for precision, near in ("fp16", None), ("bf16", 1):
        configuration, layout, plan = make(tmp_path / precision, datasets, scoring={"precision": precision})
        assert built(configuration, layout, plan, "similar")[0]["ledger"].get("near") == near


def test_a_partial_score_file_is_refused(tmp_path):
    configuration, layout, plan = make(tmp_path, {"good": {"from": "pool", "filter": {"similarity": {"min": 0.3}}}})
    path = layout.scores("pool", "similarity")
    write_table(path, read_table(path).slice(1))
    with pytest.raises(ValueError, match=r"1 rows of source `pool` have no scores of `similarity`, such as r"):
        build_dataset("good", configuration, layout, plan)


def test_the_winning_recipe_from_filter_to_repeat(tmp_path):
    datasets = {
        "matched": {"from": "pool", "filter": {"similarity": {"min": 0.2}}},
        "weak": {"from": "matched", "filter": {"similarity": {"max": 0.5}}},
        "rewritten": {"from": "weak", "recaption": {"captioner": "blip2", "shards": 2}},
        "better": {"from": "rewritten", "filter": {"similarity": {"min": 0.6}}},
        "spliced": {"from": "matched", "splice": "better"},
        "strict": {"from": "matched", "splice": {"dataset": "better", "unmatched": "drop"}},
        "best": {"from": "spliced", "repeat": 2},
    }
    configuration, layout, plan = make(tmp_path, datasets)
    world = (configuration, layout, plan)
    assert built(*world, "matched")[1] == [f"r{n}" for n in range(2, 10)]
    assert built(*world, "weak")[1] == ["r2", "r3", "r4", "r5"]

    generate(layout, plan, "rewritten", "weak", {"r3": "refusal"})
    card, ids = built(*world, "rewritten")
    assert ids == ["r2", "r4", "r5"]
    assert card["ledger"] == {"in": 4, "added": 0, "out": 3, "changed": 3, "dropped": {"refusal": 1}}
    assert set(read_rows("rewritten", layout)["source"].to_pylist()) == {"rewritten"}

    write_scores(layout, plan, "similarity", {"r2": {"s": [0.9]}, "r4": {"s": [0.6]}, "r5": {"s": [0.5]}}, "rewritten")
    assert built(*world, "better")[1] == ["r2", "r4"]
    card, ids = built(*world, "spliced")
    assert ids == [f"r{n}" for n in range(2, 10)]
    assert card["ledger"]["changed"] == 2
    assert pairs_of(read_rows("spliced", layout))[:4] == [
        ("r2", "rewritten"),
        ("r3", "pool"),
        ("r4", "rewritten"),
        ("r5", "pool"),
    ]
    card, ids = built(*world, "strict")
    assert ids == ["r2", "r4", "r6", "r7", "r8", "r9"]
    assert card["ledger"]["dropped"] == {"rewritten, not in better": 2}
    card, ids = built(*world, "best")
    assert ids == [f"r{n}" for n in range(2, 10)] * 2
    assert card["ledger"] == {"in": 8, "added": 8, "out": 16, "changed": 0, "dropped": {}}

    records = load_records(read_rows("best", layout), layout, plan).to_pylist()
    assert [record["id"] for record in records] == ids
    assert records[0]["text"] == records[8]["text"] == text_of("new caption r2")
    assert records[1]["text"] == text_of("caption 3")
    assert {record["image_root"] for record in records} == {"pool"}


def generate(layout, plan, name, parent, failures, caption="new caption {}"):
    """Do a generator's work: for each shard the rows asked for, made or failed."""
    shards = plan.shards(name)
    asked_of_all = []
    for shard in shards:
        asked = asked_rows(read_rows(parent, layout), shard, len(shards))
        asked_of_all += pairs_of(asked)
        records = load_records(asked, layout, plan).to_pylist()
        made = [
            Record(r["id"], text_of(caption.format(r["id"])), r["images"], r["image_root"])
            for r in records
            if r["id"] not in failures
        ]
        failed = [(*row, failures[row[0]]) for row in pairs_of(asked) if row[0] in failures]
        write_records(layout.records(name, shard), made)
        columns = list(zip(*failed, strict=True)) if failed else [()] * 3
        write_table(layout.failed(name, shard), pa.table([pa.array(c, pa.string()) for c in columns], FAILED))
        write_json(
            layout.records_card(name, shard),
            {"asked": asked.num_rows, "sha256": sha256_file(layout.records(name, shard))},
        )
    assert Counter(asked_of_all) == Counter(set(pairs_of(read_rows(parent, layout)))), "each distinct row asked once"


def test_a_generator_is_asked_once_for_a_row_that_is_repeated(tmp_path):
    datasets = {
        "twice": {"from": "pool", "repeat": 2},
        "new": {"from": "twice", "recaption": {"captioner": "blip2", "shards": 3}},
    }
    world = make(tmp_path, datasets)
    built(*world, "twice")
    generate(world[1], world[2], "new", "twice", {})
    assert built(*world, "new")[1] == [f"r{n}" for n in range(10)] * 2


def test_cleaning_changes_the_source_of_changed_captions_only(tmp_path):
    records = [pair("a", "a dog stock photo"), pair("b", "a cat"), pair("c", "I cannot")]
    world = make(tmp_path, {"clean": {"from": "pool", "clean": True}}, records)
    layout = world[1]
    write_records(
        layout.records("clean", "clean-0000"),
        [Record("a", text_of("a dog"), ["images/one.png"]), Record("b", text_of("a cat"), ["images/one.png"])],
    )
    failed = pa.table([["c"], ["pool"], ["refusal"]], FAILED)
    write_table(layout.failed("clean", "clean-0000"), failed)
    card, _ = built(*world, "clean")
    assert pairs_of(read_rows("clean", layout)) == [("a", "clean"), ("b", "pool")]
    assert card["ledger"] == {"in": 3, "added": 0, "out": 2, "changed": 1, "dropped": {"refusal": 1}}


def test_a_generator_that_is_silent_about_a_row_is_refused(tmp_path):
    world = make(tmp_path, {"new": {"from": "pool", "recaption": {"captioner": "blip2"}}})
    layout = world[1]
    write_records(layout.records("new", "new-0000"), [Record(f"r{n}", text_of("x"), ["a"]) for n in range(8)])
    write_table(layout.failed("new", "new-0000"), FAILED.empty_table())
    with pytest.raises(ValueError, match=r"2 of its rows, such as r8, r9"):
        build_dataset("new", *world)


def test_an_earlier_rewriting_of_everything_is_no_candidate_of_a_splice(tmp_path):
    datasets = {
        "all_new": {"from": "pool", "recaption": {"captioner": "a"}},
        "weak": {"from": "all_new", "sample": {"rows": 3}},
        "again": {"from": "weak", "recaption": {"captioner": "b"}},
        "mixed": {"from": "all_new", "splice": {"dataset": "again", "unmatched": "drop"}},
    }
    world = make(tmp_path, datasets)
    generate(*world[1:], "all_new", "pool", {})
    built(*world, "all_new")
    _, weak = built(*world, "weak")
    generate(*world[1:], "again", "weak", {weak[0]: "empty caption"})
    built(*world, "again")
    card, _ = built(*world, "mixed")
    assert card["ledger"] == {
        "in": 10,
        "added": 0,
        "out": 9,
        "changed": 2,
        "dropped": {"rewritten, not in again": 1},
        "unmatched": 1,
    }


def test_ranking_by_a_weighted_sum_of_scaled_scores(tmp_path):
    rank = {"by": {"similarity": 1.0, "shape.width": 2.0}, "top": 3, "skip": 1, "normalise": "min_max"}
    configuration, layout, plan = make(tmp_path, {"best": {"from": "pool", "rank": rank}})
    write_scores(layout, plan, "shape", {f"r{n}": {"width": [100 * (9 - n)], "height": [1]} for n in range(10)})
    card, ids = built(configuration, layout, plan, "best")
    assert ids == ["r1", "r2", "r3"], "the width weighs more, so the order is r0, r1, …"
    assert card["ledger"]["dropped"] == {"rank: below the cut": 6, "rank: skipped best": 1}


def test_dedup_by_caption_and_by_image(tmp_path):
    records = [pair("a", "a dog"), pair("b", "a cat"), pair("c", "a dog"), pair("d", "a cow")]
    datasets = {
        "texts": {"from": "pool", "dedup": {"by": "text"}},
        "images": {"from": "pool", "dedup": {"by": "image", "near": True, "distance": 2}},
    }
    world = make(tmp_path, datasets, records)
    hashes = {"a": ("1", "00ff"), "b": ("1", "00ff"), "c": ("2", "00fc"), "d": ("3", "ff00")}
    write_scores(
        *world[1:],
        "hash",
        {key: {"image_sha256": [sha], "image_phash": [hash_.zfill(16)]} for key, (sha, hash_) in hashes.items()},
    )
    assert built(*world, "texts")[1] == ["a", "b", "d"]
    card, ids = built(*world, "images")
    assert ids == ["a", "d"]
    assert card["ledger"]["dropped"] == {"duplicate image": 1, "near-duplicate image": 1}


def test_nothing_left_is_a_dataset_too(tmp_path, caplog):
    datasets = {
        "none": {"from": "pool", "filter": {"similarity": {"min": 5}}},
        "still": {"from": "none", "filter": {"similarity": {"min": 0}}},
        "texts": {"from": "none", "dedup": True},
        "spliced": {"from": "pool", "splice": "none"},
        "twice": {"from": "none", "repeat": 2},
    }
    world = make(tmp_path, datasets)
    sizes = {name: built(*world, name)[0]["rows"] for name in datasets}
    assert sizes == {"none": 0, "still": 0, "texts": 0, "spliced": 10, "twice": 0}
    assert load_records(read_rows("none", world[1]), *world[1:]).num_rows == 0
    assert [record.message for record in caplog.records] == [
        "Dataset `none` has no rows: all 10 were dropped (10 similarity.s below 5).",
        "  similarity.s is from 0 to 0.9; asked for: min 5",
        *(f"Dataset `{name}` has no rows: `none` has none." for name in ("still", "texts", "twice")),
    ]


def test_a_record_of_two_files_has_the_text_and_score_of_the_file_that_won(tmp_path):
    configuration = configure_pairs(
        tmp_path,
        {"one": [pair("x", "first")], "two": [pair("x", "second"), pair("y")]},
        operators=OPERATORS,
        datasets={"good": {"from": "pool", "filter": {"similarity": {"min": 0.5}}}},
    )
    layout, plan = make_pool(configuration, tmp_path)
    write_scores(layout, plan, "similarity", {"x": {"s": [0.1]}, "y": {"s": [0.9]}})
    path = layout.scores("pool", "similarity")
    ids = read_table(path)["id"].to_pylist()
    assert ids.count("x") == 2
    scores = [[0.9] if name == "y" else [0.1] if place == ids.index("x") else [0.8] for place, name in enumerate(ids)]
    write_table(path, pa.table({"id": ids, "s": scores}))
    _, ids = built(configuration, layout, plan, "good")
    assert ids == ["y"], "the first file's record of x scores 0.1"
    assert load_records(read_rows("pool", layout), layout, plan)["text"].to_pylist()[0] == text_of("first")


def test_rows_are_the_same_bytes_every_time(tmp_path):
    world = make(tmp_path, {"half": {"from": "pool", "sample": {"fraction": 0.5}}})
    built(*world, "half")
    before = world[1].rows("half").read_bytes(), world[1].dropped("half").read_bytes()
    built(*world, "half")
    assert (world[1].rows("half").read_bytes(), world[1].dropped("half").read_bytes()) == before


def test_an_analysis_is_of_the_values_of_its_rows(tmp_path):
    world = make(
        tmp_path,
        {"high": {"from": "pool", "filter": {"similarity": {"min": 0.5}}}},
        analyses={"quartiles": {"dataset": "high", "operators": ["similarity", "shape.width"]}},
    )
    configuration, layout, plan = world
    sizes = {f"r{n}": {"width": [n, 10 * n], "height": [1, 1]} for n in range(10)}
    write_scores(layout, plan, "shape", sizes | {"r9": {"width": None, "height": None}})
    built(*world, "high")
    stats = build_analysis("quartiles", configuration, layout, plan)["stats"]
    assert stats["similarity"] == {
        "stat": "similarity.s",
        "values": 5,
        "not_numbers": 0,
        "mean": pytest.approx(0.7),
        "sd": pytest.approx(0.158114, abs=1e-6),
        "quartiles": pytest.approx([0.6, 0.7, 0.8]),
    }
    assert stats["shape.width"]["values"] == 8, "each image counts, as in dj-analyze; one that has no score does not"
    assert read_json(layout.analysis("quartiles"))["rows"] == 5
    assert plan.analysed("quartiles") == [("pool", "similarity"), ("pool", "shape")]

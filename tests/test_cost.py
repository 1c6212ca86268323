"""What jobs will cost: amounts, rates from the best source there is, and a table that says which are guesses."""

from __future__ import annotations

import pytest
from fake_results import fake_configuration, write_fake_results

from bench import MEASUREMENTS
from bettersynth.configuration.catalogue import CATALOGUE
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, write_json
from bettersynth.inspect import cost
from bettersynth.inspect.cost import Costs, Job, Origin
from bettersynth.inspect.cost_table import cost_table, hours, size
from bettersynth.workflow.expected import Basis, Rows


def make(configuration, layout, folder):
    return Costs(configuration, layout, folder / "benchmarks", folder / "measurements")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    configuration, layout, _ = write_fake_results(folder)
    return make(configuration, layout, folder)


@pytest.fixture
def planned(tmp_path):
    """The contest's sizes, nothing made and no input there."""
    content = fake_configuration(tmp_path).model_dump(by_alias=True, exclude_none=True)
    content["pool"]["files"][0]["shards"] = 9
    content["recipes"]["whole"] = {"dataset": "pool", "published": {"rows": 400_000}}
    layout = Layout(tmp_path / "results" / "fake")
    write_json(
        layout.scoring_pass("gpu-0123456789ab"), {"operators": {"image_text_matching": "", "image_aesthetics": ""}}
    )
    return make(Configuration.model_validate(content), layout, tmp_path)


SCORING = Job("score_neural", {"source": "pool", "scoring": "gpu-0123456789ab", "chunk": "first-0000-0004"}, gpus=1)


def test_a_pass_costs_the_time_of_each_of_its_operators(planned):
    lines = planned.lines([SCORING])
    assert {line.what for line in lines} == {"image_text_matching of pool", "image_aesthetics of pool"}
    assert {(line.amount, line.basis) for line in lines} == {(200_000, Basis.PUBLISHED)}
    assert all(line.rate.origin == Origin.GUESS and line.gpu_hours > 0 == line.cpu_hours for line in lines)
    assert next(row for row in cost_table(lines, 0).splitlines() if row.startswith("score")).split()[1] == "1", (
        "one job"
    )


def test_training_counts_samples_after_the_cap_and_only_the_seeds_that_go_on(planned):
    (probe,) = planned.tasks(Job("probe", {"recipe": "best", "seed": "1"}))
    (pretrain,) = planned.tasks(Job("pretrain", {"recipe": "best", "seed": "1"}))
    (finetune,) = planned.tasks(Job("finetune", {"recipe": "best", "seed": "1"}))
    assert probe.amount.number == 10 * 256
    assert pretrain.amount == Rows(round(200_000 * 2 / 3), Basis.PUBLISHED)
    assert finetune.amount == Rows(160_000, Basis.PUBLISHED), "two of three seeds, 240,000 instructions each"
    (line,) = planned.lines([Job("pretrain", {"recipe": "whole", "seed": "1"}, gpus=1)])
    assert line.rate.origin == Origin.STATED
    assert line.gpu_hours == pytest.approx(200_000 * 2 / 11.3 / 3600, rel=0.5)


def test_every_rule_of_the_snakefile_has_a_rate(planned):
    jobs = [
        Job("ingest_first", {}),
        Job("pool_index", {}),
        Job("scores_of", {"source": "pool", "operator": "image_aesthetics"}),
        Job("recaption", {"source": "rewritten", "shard": "rewritten-0000"}),
        *(Job("dataset", {"dataset": name}) for name in planned.configuration.datasets),
        Job("export", {"dataset": "best", "form": "webdataset"}),
        Job("trainset", {"recipe": "best"}),
        Job("answer", {"recipe": "best", "seed": "1", "benchmark": "mmbench"}),
        Job("leaderboard", {}),
    ]
    lines = planned.lines(jobs)
    assert all(line.gpu_hours + line.cpu_hours > 0 for line in lines)
    assert [line.phase for line in lines] == sorted((line.phase for line in lines), key=cost.PHASES.index)


@pytest.mark.parametrize("op", sorted(CATALOGUE))
def test_every_operator_has_a_rate(planned, op):
    rate = planned.rate(f"score {op}")
    assert rate.per_second > 0 and rate.on_gpu == (CATALOGUE[op].device == "gpu")


def test_past_jobs_are_believed_first(made):
    benchmark = made.benchmarks / "dataset" / "grounded.tsv"
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\th:m:s\n7.5\t0:00:07\n")
    rate = made.rate("dataset filter")
    assert rate.origin == Origin.PAST and not rate.on_gpu
    assert rate.start > 6, "what the benchmark file has beyond the card's seconds"
    assert "jobs on cpu" in rate.detail


def test_a_guess_for_one_core_is_not_told_for_each_of_a_jobs_cores(planned):
    alone, many = (planned.lines([Job("trainset", {"recipe": "best"}, cores=cores)]) for cores in (1, 8))
    assert [line.cpu_hours for line in alone] == [line.cpu_hours for line in many]


def test_scoring_that_waited_for_images_is_foretold_as_slow_as_it_was(planned):
    card = planned.layout.score_shard("pool", "image_aesthetics", "first-0000", "key").with_suffix(".json")
    parts = {"loading": 5, "preparing": 1, "decoding": 90, "computing": 2}
    write_json(card, {"records": 1000, "seconds": 10, "seconds_by_part": parts, "device": "one GPU", "rows": 1000})
    rate = planned.rate("score image_aesthetics_filter")
    assert (rate.per_second, rate.start, rate.origin) == (100, 5, Origin.PAST)


def test_measurements_come_before_guesses(planned):
    kind = "score image_aesthetics_filter"
    assert planned.rate(kind).origin == Origin.GUESS
    planned.rate.cache_clear()
    name, figure = cost.MEASURED[kind]
    write_json(planned.measurements / f"{name}.json", {"machine": "NVIDIA H100", "figures": {figure: 5000}})
    rate = planned.rate(kind)
    assert (rate.per_second, rate.on_gpu, rate.origin) == (5000, True, Origin.MEASURED)
    assert rate.detail == "scoring.json, NVIDIA H100"


def test_what_is_measured_is_found_by_the_names_of_its_figures():
    kept = {path.stem: read_json(path)["figures"] for path in MEASUREMENTS.glob("*.json")}
    for name in {name for name, _ in cost.MEASURED.values()} & kept.keys():
        assert any(figure in kept[name] for file, figure in cost.MEASURED.values() if file == name), name


def test_the_table_says_what_is_guessed_and_what_is_published(planned):
    jobs = [SCORING, Job("finetune", {"recipe": "best", "seed": "1"}, gpus=1), Job("dataset", {"dataset": "better"})]
    text = cost_table(planned.lines(jobs), planned.model_bytes)
    assert "~200,000 pairs" in text and "≤123,037 rows" in text
    assert "1,100/s, guess: one H100" in text and "3.4/s, stated: the write-up's best run" in text
    assert "Guesses make up" in text and "~: as many as were published" in text
    assert "up to 19 GB more" in text, "what stage 2 keeps to resume from"
    assert max(map(len, text.splitlines())) <= 130


@pytest.mark.parametrize(
    ("number", "words"), [(0, "-"), (0.004, "<0.01"), (0.0351, "0.035"), (1.25, "1.2"), (1234.5, "1,234")]
)
def test_hours_are_short(number, words):
    assert hours(number) == words


@pytest.mark.parametrize(
    ("number", "words"), [(0, "-"), (512, "512 bytes"), (1536, "1.5 kB"), (999_600, "1.0 MB"), (6.4e9, "6.4 GB")]
)
def test_sizes_are_short(number, words):
    assert size(number) == words

"""What jobs will cost: amounts, rates from the best source there is, and a table that says which are guesses."""

from __future__ import annotations

import pytest
from fake_results import fake_configuration, write_fake_results

from bench import MEASUREMENTS
from bettersynth.configuration.family import captioner_families, redrawer_families
from bettersynth.configuration.operators import catalogue, operator_spec
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, write_json
from bettersynth.core.steady import Steady
from bettersynth.inspect import cost
from bettersynth.inspect.cost import Costs, Due, Origin
from bettersynth.inspect.cost_table import cost_table, hours, size
from bettersynth.workflow.expected import Basis, Rows
from bettersynth.workflow.jobs import Jobs


def make(configuration, layout, folder):
    return Costs(Jobs(configuration, layout), folder / "measurements")


def due(costs, rule, gpus=0, **wildcards):
    return Due(costs.jobs.job(rule, wildcards), gpus)


def scoring(costs):
    return due(costs, "score_neural", 1, source="pool", scoring="gpu-0123456789ab", chunk="first-0000-0004")


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


def test_a_pass_costs_the_time_of_each_of_its_operators(planned):
    lines = planned.lines([scoring(planned)])
    assert {line.what for line in lines} == {"image_text_matching of pool", "image_aesthetics of pool"}
    assert {(line.amount, line.basis) for line in lines} == {(200_000, Basis.PUBLISHED)}
    assert all(line.rate.origin == Origin.GUESS and line.gpu_hours > 0 == line.cpu_hours for line in lines)
    assert next(row for row in cost_table(lines, 0).splitlines() if row.startswith("score")).split()[1] == "1", (
        "one job"
    )


def test_training_counts_samples_after_the_cap_and_only_the_seeds_that_go_on(planned):
    (probe,) = due(planned, "probe", recipe="best", seed="1", rung="probe").job.work
    (pretrain,) = due(planned, "pretrain", recipe="best", seed="1").job.work
    (finetune,) = due(planned, "finetune", recipe="best", seed="1").job.work
    assert probe.amount.number == 10 * 256
    assert pretrain.amount == Rows(round((200_000 - 10 * 256) * 2 / 3), Basis.PUBLISHED), "without what the probe did"
    assert finetune.amount == Rows(160_000, Basis.PUBLISHED), "two of three seeds, 240,000 instructions each"
    (line,) = planned.lines([due(planned, "pretrain", 1, recipe="whole", seed="1")])
    assert line.rate.origin == Origin.STATED
    assert line.gpu_hours == pytest.approx((120 + (200_000 - 10 * 256) / 11.3) / 3600)


def test_every_rule_of_the_snakefile_has_a_rate(planned):
    jobs = [
        due(planned, "ingest_first"),
        due(planned, "pool_index"),
        due(planned, "scores_of", source="pool", operator="image_aesthetics"),
        due(planned, "recaption", source="rewritten", shard="rewritten-0000"),
        *(due(planned, "dataset", dataset=name) for name in planned.configuration.datasets),
        due(planned, "export", dataset="best", form="webdataset"),
        due(planned, "trainset", recipe="best"),
        due(planned, "answer", recipe="best", seed="1"),
        due(planned, "leaderboard"),
    ]
    lines = planned.lines(jobs)
    assert all(line.gpu_hours + line.cpu_hours > 0 for line in lines)
    assert [line.phase for line in lines] == sorted((line.phase for line in lines), key=cost.PHASES.index)


@pytest.mark.parametrize("op", sorted(catalogue()))
def test_every_operator_has_a_rate(planned, op):
    rate = planned.rate(f"score {op}")
    assert rate.per_second > 0 and rate.on_gpu == (catalogue()[op].device == "gpu")


def test_past_jobs_are_believed_first(made, monkeypatch):
    monkeypatch.chdir(made.measurements.parent)
    benchmark = made.jobs.dataset.job("grounded").benchmark
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\th:m:s\n7.5\t0:00:07\n")
    rate = made.rate("dataset filter")
    assert rate.origin == Origin.PAST and not rate.on_gpu
    assert rate.start > 6, "what the benchmark file has beyond the card's seconds"
    assert "jobs on cpu" in rate.detail


def test_scoring_that_waited_for_images_is_foretold_as_slow_as_it_was(planned):
    card = planned.jobs.dataset.layout.score_shard("pool", "image_aesthetics", "first-0000", "key").with_suffix(".json")
    parts = {"loading": 5, "preparing": 1, "decoding": 90, "computing": 2}
    write_json(card, {"records": 1000, "seconds": 10, "seconds_by_part": parts, "device": "one GPU", "rows": 1000})
    rate = planned.rate("score image_aesthetics_filter")
    assert (rate.per_second, rate.start, rate.origin) == (100, 5, Origin.PAST)


def test_measurements_come_before_guesses(planned, tmp_path):
    kind = "score image_aesthetics_filter"
    assert planned.rate(kind).origin == Origin.GUESS
    planned = make(planned.configuration, planned.jobs.dataset.layout, tmp_path)
    name, figure = operator_spec("image_aesthetics_filter").cost.measured
    write_json(planned.measurements / f"{name}.json", {"machine": "NVIDIA H100", "figures": {figure: 5000}})
    rate = planned.rate(kind)
    assert (rate.per_second, rate.on_gpu, rate.origin) == (5000, True, Origin.MEASURED)
    assert rate.detail == "scoring.json, NVIDIA H100"


def test_what_is_measured_is_found_by_the_names_of_its_figures():
    kept = {path.stem: read_json(path)["figures"] for path in MEASUREMENTS.glob("*.json")}
    stated = [
        entry.cost.measured for entry in (*catalogue().values(), *captioner_families(), *redrawer_families().values())
    ]
    named = {*cost.MEASURED.values(), *filter(None, stated)}
    for name in {name for name, _ in named} & kept.keys():
        assert any(figure in kept[name] for file, figure in named if file == name), name


def test_the_table_says_what_is_guessed_and_what_is_published(planned):
    jobs = [scoring(planned), due(planned, "finetune", 1, recipe="best", seed="1")]
    jobs.append(due(planned, "dataset", dataset="better"))
    text = cost_table(planned.lines(jobs), planned.resume_bytes)
    assert "~200,000 pairs" in text and "≤123,037 rows" in text
    assert "1,100/s, guess: one H100" in text and "3.4/s, stated: the write-up's best run" in text
    assert "Guesses make up" in text and "~: as many as were published" in text
    assert "up to 60 GB more" in text, "fp32 weights of the language model and two moments of each, twice"
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


def test_the_operators_of_a_pass_share_one_start(planned):
    alone, together = (sum(line.gpu_hours for line in planned.lines(jobs)) for jobs in ([], [scoring(planned)]))
    rates = [planned.rate(f"score {op}_filter") for op in ("image_text_matching", "image_aesthetics")]
    seconds = sum(200_000 / rate.per_second for rate in rates) + max(rate.start for rate in rates)
    assert (alone, together) == (0, pytest.approx(seconds / 3600))


def test_past_passes_tell_their_start_apart_from_scoring(planned):
    layout = planned.jobs.dataset.layout
    shards = {}
    for operator in ("image_text_matching", "image_aesthetics"):
        card = layout.score_shard("pool", operator, "first-0000", "key").with_suffix(".json")
        parts = {"loading": 30, "preparing": 1, "computing": 2}
        write_json(card, {"records": 1000, "seconds": 10, "seconds_by_part": parts, "device": "one GPU", "rows": 1000})
        shards[operator] = "key"
    done = {"seconds": 85, "shards": {"first-0000": {"scores": shards}}}
    write_json(layout.pass_card("pool", "gpu-0123456789ab", "first-0000-0000"), done)
    hours = sum(line.gpu_hours for line in planned.lines([scoring(planned)]))
    assert hours * 3600 == pytest.approx(65 + 2 * 2_000), (
        "85 s for two operators of 10 s each, then 10 ms a pair of each"
    )


def test_a_machine_without_a_gpu_is_told_hours_of_its_cores(planned):
    costs = Costs(planned.jobs, planned.measurements, has_gpus=False)
    (line, _), (on_gpu, _) = costs.lines([scoring(costs)]), planned.lines([scoring(planned)])
    assert line.gpu_hours == 0 < on_gpu.gpu_hours < line.cpu_hours
    assert line.rate.origin == Origin.GUESS and "slower than a GPU" in line.rate.detail


def test_a_past_job_counts_the_cores_that_it_used(made, monkeypatch):
    monkeypatch.chdir(made.measurements.parent)
    costs = Costs(made.jobs, made.measurements)
    trainset = costs.jobs.trainset.job("baseline")
    for recipe in costs.configuration.recipes:
        benchmark = costs.jobs.trainset.job(recipe).benchmark
        benchmark.parent.mkdir(parents=True, exist_ok=True)
        benchmark.write_text("s\tcpu_time\n40\t20\n")
    (one,) = costs.lines([Due(trainset)])
    for recipe in costs.configuration.recipes:
        costs.jobs.trainset.job(recipe).benchmark.write_text("s\tcpu_time\n40\t120\n")
    (three,) = Costs(made.jobs, made.measurements).lines([Due(trainset)])
    assert three.cpu_hours == pytest.approx(3 * one.cpu_hours), "120 s of processors in 40 s; never less than one"


def test_starting_loading_and_compiling_are_no_part_of_a_rate(made, monkeypatch):
    """A small trial: 40 s to load and compile, 5 s for the other 9 of 10 steps."""
    monkeypatch.chdir(made.measurements.parent)
    for seed in (1, 2, 3):
        path = made.jobs.finetune.outputs("grounded", str(seed))["card"]
        card = {"status": "done", "device": "cpu", "seconds": 45, "rows": 80, "steps": 10, "samples_per_second": 2}
        card |= {"parameters": {"global_batch": 8}, "steady": {"amount": 72, "seconds": 5.0}}
        write_json(path, card)
    monkeypatch.setattr(type(made.jobs.finetune), "every", lambda self: [("grounded", "1"), ("grounded", "2")])
    rate = Costs(made.jobs, made.measurements).rate("finetune")
    assert rate.per_second == pytest.approx(72 / 5) and rate.start == pytest.approx(45 - 80 * 5 / 72)


def test_the_first_batch_of_answers_is_no_part_of_their_rate(made, monkeypatch):
    card = {"status": "done", "device": "cpu", "seconds": 40, "rows": 100, "seconds_by_part": {"loading": 20}}
    card |= {"steady": {"amount": 84, "seconds": 21.0}}
    write_json(made.jobs.answer.layout.answers_card("grounded", 1, "textvqa"), card)
    monkeypatch.setattr(type(made.jobs.answer), "every", lambda self: [("grounded", "1")])
    rate = Costs(made.jobs, made.measurements).rate("answer textvqa")
    assert rate.per_second == pytest.approx(4) and rate.start == pytest.approx(40 - 25 + 20)


def test_what_comes_before_the_second_batch_is_not_steady(monkeypatch):
    clock = iter((40.0, 41.0, 43.0))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    steady = Steady()
    steady.add(8)
    assert steady.facts() == {}
    steady.add(8)
    steady.add(4)
    assert steady.facts() == {"steady": {"amount": 12, "seconds": 3.0}}

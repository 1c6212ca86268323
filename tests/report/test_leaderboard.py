"""The leaderboard: the contest's score, and verdicts that own up to noise."""

import csv
import json

import numpy as np
import pytest
from fake_results import fake_configuration, write_fake_results

from bench.miniature_demo import figures_of
from bettersynth.configuration.types import Published, Recipe
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, write_json
from bettersynth.core.remedy import DamagedError
from bettersynth.report.comparison import holm
from bettersynth.report.leaderboard import _as_published, baseline_of, build_leaderboard
from bettersynth.report.runs import read_log

BENCHMARKS = ("textvqa", "mmbench")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_fake_results(tmp_path_factory.mktemp("leaderboard"))


@pytest.fixture(scope="module")
def leaderboard(results):
    configuration, layout, _ = results
    return build_leaderboard(configuration, layout)


@pytest.fixture(scope="module")
def by_recipe(leaderboard):
    return {entry["recipe"]: entry for entry in leaderboard["recipes"]}


def test_score_is_the_mean_of_the_ratios_of_mean_accuracies(results, by_recipe):
    _, layout, _ = results

    def mean(recipe, benchmark):
        return np.mean([read_json(layout.result(recipe, seed, benchmark))["accuracy"] for seed in (1, 2, 3)])

    ratios = {benchmark: mean("best", benchmark) / mean("baseline", benchmark) for benchmark in BENCHMARKS}
    assert by_recipe["best"]["ratio"] == pytest.approx(ratios)
    assert by_recipe["best"]["score"] == pytest.approx(sum(ratios.values()) / 2)
    assert by_recipe["baseline"]["score"] == pytest.approx(1.0)


def test_entries_state_rows_losses_and_published_figures(by_recipe):
    best = by_recipe["best"]
    assert best["rows"] > best["rows_after_cap"] == 500
    assert best["published"]["mmbench"] == 2.9804
    assert best["rows_as_published"] is False and by_recipe["baseline"]["rows_as_published"] is None
    assert 1.0 < best["pretrain_loss"]["mean"] < 2.0
    assert best["textvqa"]["sd"] > 0
    low, high = best["textvqa"]["interval"]
    assert low < best["textvqa"]["mean"] < high


def test_two_recipes_are_compared_as_each_is_with_the_baseline(results, by_recipe):
    configuration, layout, _ = results
    figures = figures_of(configuration, layout, ["best>baseline"])
    for benchmark in BENCHMARKS:
        assert figures[f"best_{benchmark}"] == pytest.approx(by_recipe["best"][benchmark]["mean"], abs=1e-4)
        for key, value in by_recipe["best"]["differences"][benchmark].items():
            assert figures[f"best_less_baseline_{benchmark}_{key}"] == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(("rows", "agree"), [(119341, False), (119346, True), (126728, True), (126733, False)])
def test_rows_agree_within_the_tolerance(rows, agree):
    recipe = Recipe(dataset="matched", published=Published(rows=123037, tolerance=0.03))
    assert _as_published(rows, recipe) is agree


def test_verdicts(by_recipe):
    assert by_recipe["baseline"]["verdict"] == "baseline"
    assert by_recipe["best"]["verdict"] == "better"
    assert by_recipe["grounded"]["estimates"] == "recipe, corrected for picking the best 2 of 3"
    assert "corrected for going on with the best 2 of 3 seeds by their early loss" in by_recipe["grounded"]["basis"]
    assert by_recipe["one_seed"]["verdict"] == "not distinguishable"
    assert "with 1 seed against 3, a single one's scatter taken from" in by_recipe["one_seed"]["basis"]
    assert "could have been found" in by_recipe["one_seed"]["basis"]
    assert by_recipe["abandoned"]["basis"] == "every seed was stopped after the probe"
    assert by_recipe["not_run_yet"]["basis"] == "not run yet"


def test_statuses_of_runs_and_recipes(by_recipe):
    assert [seed["status"] for seed in by_recipe["grounded"]["seeds"]] == ["done", "done", "stopped"]
    assert by_recipe["grounded"]["status"] == "done"
    assert by_recipe["abandoned"]["status"] == "stopped"
    assert by_recipe["not_run_yet"]["status"] == "missing"
    assert by_recipe["grounded"]["textvqa"]["n"] == 2


def test_recipes_are_ordered_by_score_and_those_without_come_last(leaderboard):
    scores = [entry["score"] for entry in leaderboard["recipes"]]
    known = [score for score in scores if score is not None]
    assert known == sorted(known, reverse=True)
    assert scores[len(known) :] == [None] * (len(scores) - len(known))


def test_the_file_is_the_same_bytes_again_and_plain_json(results, leaderboard):
    configuration, layout, _ = results
    first = layout.leaderboard.read_bytes()
    build_leaderboard(configuration, layout)
    assert layout.leaderboard.read_bytes() == first
    assert json.loads(first)["baseline"] == "baseline"


def test_without_any_result_everything_is_missing(tmp_path):
    leaderboard = build_leaderboard(fake_configuration(tmp_path), Layout(tmp_path / "nothing"))
    assert {entry["verdict"] for entry in leaderboard["recipes"]} == {"baseline", "no result"}
    assert {entry["status"] for entry in leaderboard["recipes"]} == {"missing"}


def test_without_recipes_the_leaderboard_is_empty(tmp_path):
    configuration = fake_configuration(tmp_path, training=False)
    assert build_leaderboard(configuration, Layout(tmp_path))["recipes"] == []


def test_results_of_different_questions_are_not_compared(tmp_path):
    configuration, layout, _ = write_fake_results(tmp_path, rows=60)
    path = layout.result("best", 2, "textvqa")
    result = read_json(path)
    result["per_question"] = result["per_question"][:-1]
    write_json(path, result)
    with pytest.raises(ValueError, match="different questions"):
        build_leaderboard(configuration, layout)


def test_holm_adjusts_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_a_benchmark_without_a_point_for_the_baseline_is_left_out_and_said_so(tmp_path):
    configuration, layout, _ = write_fake_results(tmp_path)
    baseline = baseline_of(configuration)
    for recipe, seeds in ((name, recipe.seeds) for name, recipe in configuration.recipes.items()):
        for seed in seeds:
            path = layout.result(recipe, seed, "mmbench")
            if not path.exists() or (result := read_json(path))["status"] != "done":
                continue
            if recipe == baseline:
                result |= {"accuracy": 0.0, "per_question": [row | {"score": 0.0} for row in result["per_question"]]}
                write_json(path, result)
    entries = {entry["recipe"]: entry for entry in build_leaderboard(configuration, layout)["recipes"]}
    assert entries[baseline]["ratio"].keys() == {"textvqa"}
    scored = [entry for name, entry in entries.items() if name != baseline and entry["score"] is not None]
    assert scored and all(entry["score"] == entry["ratio"]["textvqa"] for entry in scored)
    assert all("without mmbench" in entry["basis"] for entry in scored if entry["comparison"])


def test_a_torn_training_log_is_read_to_its_end_and_a_damaged_one_is_named(tmp_path):
    log = tmp_path / "results" / "mine" / "log.jsonl"
    log.parent.mkdir(parents=True)
    whole = b'{"step": 1, "loss": 2.5}\n'
    log.write_bytes(whole + b'{"step": 2, "lo')
    assert read_log(log) == [(1, 2.5)]
    log.write_bytes(b"\0" * 20 + b"\n" + whole)
    with pytest.raises(DamagedError, match=rf"{log}: damaged: line 1 is no JSON .* make run CONFIG=config/mine.yaml"):
        read_log(log)


def change(section, **keys):
    """Keys of a section that another configuration gives."""
    vars(section).update(keys)


def test_a_removed_seed_is_listed_with_what_the_verdict_would_be_with_it(tmp_path):
    configuration, layout, _ = write_fake_results(tmp_path, rows=60)
    whole = {entry["recipe"]: entry for entry in build_leaderboard(configuration, layout)["recipes"]}
    assert whole["best"]["removed"] == [] and whole["best"]["with_removed"] is None
    configuration.recipes["best"].seeds.remove(3)
    lessened = {entry["recipe"]: entry for entry in build_leaderboard(configuration, layout)["recipes"]}
    assert [(run["seed"], run["status"], run["other_pairs"]) for run in lessened["best"]["removed"]] == [
        (3, "done", False)
    ]
    assert lessened["best"]["textvqa"]["n"] == 2
    again = lessened["best"]["with_removed"]
    assert again["seeds"] == 3 and again["ratio"] == pytest.approx(whole["best"]["comparison"]["ratio"])
    assert again["verdict"] == whole["best"]["verdict"]
    write_json(layout.pretrain("best", 3) / "card.json", {"status": "done", "inputs": {"data_sha256": "another"}})
    stale = {entry["recipe"]: entry for entry in build_leaderboard(configuration, layout)["recipes"]}
    assert stale["best"]["removed"][0]["other_pairs"] is True and stale["best"]["with_removed"] is None


def test_recipes_that_the_configuration_has_no_more_are_named(tmp_path):
    configuration, layout, _ = write_fake_results(tmp_path, rows=60)
    del configuration.recipes["matched"]
    assert build_leaderboard(configuration, layout)["removed_recipes"] == [{"recipe": "matched", "seeds": [1, 2, 3]}]


def test_a_failed_seed_is_on_record_and_its_recipe_goes_on(tmp_path):
    configuration, layout, _ = write_fake_results(tmp_path, rows=60)
    write_json(
        layout.pretrain("best", 3) / "card.json",
        {"status": "stopped", "fate": "failed", "why": "the loss was no number", "steps": 7},
    )
    choice = read_json(layout.seeds("best"))
    choice["seeds"][2] |= {"verdict": "stopped", "fate": "failed", "loss": None}
    write_json(layout.seeds("best"), choice)
    entry = next(one for one in build_leaderboard(configuration, layout)["recipes"] if one["recipe"] == "best")
    assert (entry["seeds"][2]["fate"], entry["seeds"][2]["why"]) == ("failed", "the loss was no number")
    assert entry["estimates"] == "recipe" and entry["textvqa"]["n"] == 2, "a failure is no choice"


def test_seeds_picked_at_two_rungs_are_a_policy_and_compared_with_none(tmp_path):
    configuration, layout, _ = write_fake_results(tmp_path, rows=60)
    rungs = [{"steps": 10, "keep": 3}, {"steps": 20, "keep": 2}]
    change(configuration.recipes["grounded"], training={"probe": {"steps": None, "keep": None, "rungs": rungs}})
    choice = read_json(layout.seeds("grounded"))
    write_json(layout.seeds("grounded", "seeds-2"), choice)
    entries = {entry["recipe"]: entry for entry in build_leaderboard(configuration, layout)["recipes"]}
    assert entries["grounded"]["verdict"] == "picked" and entries["grounded"]["estimates"] == "policy: best 2 of 3"
    assert entries["grounded"]["comparison"] is None


def test_a_recipe_is_compared_with_its_control(tmp_path):
    configuration, layout, _ = write_fake_results(tmp_path, rows=60)
    change(configuration.recipes["matched"], control_of=["best"])
    best = next(one for one in build_leaderboard(configuration, layout)["recipes"] if one["recipe"] == "best")
    assert best["against_control"]["control"] == "matched" and best["against_control"]["ratio"] > 1
    assert best["against_control"]["ratio"] != pytest.approx(best["comparison"]["ratio"])


def test_groups_hold_what_cannot_be_told_from_the_best_and_pairs_say_so_both_ways(leaderboard):
    first, *_ = leaderboard["groups"]
    assert first[0] == "best" and "baseline" not in first
    assert sorted(name for group in leaderboard["groups"] for name in group) == sorted(leaderboard["pairs"])
    pair, back = leaderboard["pairs"]["best"]["baseline"], leaderboard["pairs"]["baseline"]["best"]
    assert pair["ratio"] == pytest.approx(1 / back["ratio"]) and pair["ratio"] > 1
    assert pair["verdict"] == back["verdict"] == "leaning"
    best = next(entry for entry in leaderboard["recipes"] if entry["recipe"] == "best")
    assert 1 < leaderboard["highest_without_luck"] < best["comparison"]["ratio"]


def test_the_board_is_a_table_too(results, leaderboard):
    _, layout, _ = results
    rows = {row["recipe"]: row for row in csv.DictReader(layout.leaderboard_csv.open(encoding="utf-8"))}
    assert list(rows) == [entry["recipe"] for entry in leaderboard["recipes"]]
    best = next(entry for entry in leaderboard["recipes"] if entry["recipe"] == "best")
    assert float(rows["best"]["ratio"]) == best["comparison"]["ratio"] and rows["best"]["verdict"] == "better"
    assert (rows["grounded"]["seeds_done"], rows["grounded"]["seeds_stopped"]) == ("2", "1")
    assert rows["best"]["trainset_sha256"] == read_json(layout.trainset_card("best"))["sha256"]
    lines = layout.leaderboard_markdown.read_text(encoding="utf-8").splitlines()
    assert len({line.count("|") for line in lines[: 2 + len(rows)]}) == 1 and lines[2].startswith("| `best` |")


def test_hours_of_gpus_and_their_price_are_added_up(tmp_path):
    configuration, layout, _ = write_fake_results(tmp_path, rows=60)
    change(configuration.report, price_per_gpu_hour=2.5)
    for seed in (1, 2):
        path = layout.finetune("best", seed) / "card.json"
        write_json(path, read_json(path) | {"device": "NVIDIA H100", "seconds": 1800, "processes": 4})
    best = next(one for one in build_leaderboard(configuration, layout)["recipes"] if one["recipe"] == "best")
    assert best["gpu_hours"] == pytest.approx(4) and best["price"] == pytest.approx(10)

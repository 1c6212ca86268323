"""The leaderboard: the contest's score, and verdicts that own up to noise."""

import json

import numpy as np
import pytest
from fake_results import fake_configuration, write_fake_results

from bench.miniature_demo import figures_of
from bettersynth.configuration.types import Published, Recipe
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, write_json
from bettersynth.report.leaderboard import _as_published, baseline_of, build_leaderboard
from bettersynth.report.statistics import holm, interval, paired_difference

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
    _, layout, _ = results
    figures = figures_of(layout, ["best>baseline"], BENCHMARKS)
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
    assert by_recipe["grounded"]["verdict"] == "not distinguishable"
    assert by_recipe["grounded"]["basis"] == "with 2 paired seeds"
    assert by_recipe["one_seed"]["verdict"] == "not distinguishable"
    assert "spread between seeds is unknown" in by_recipe["one_seed"]["basis"]
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


def _matrix(generator, seeds, questions, mean, seed_sd, question_sd, noise_sd):
    return (
        mean
        + generator.normal(0, seed_sd, (seeds, 1))
        + generator.normal(0, question_sd, (1, questions))
        + generator.normal(0, noise_sd, (seeds, questions))
    )


@pytest.mark.parametrize(("seed_sd", "question_sd"), [(0.0, 0.3), (0.03, 0.0), (0.03, 0.3)])
def test_the_interval_covers_the_true_difference_about_95_times_in_100(seed_sd, question_sd):
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        parts = [(_matrix(generator, 3, 150, 0.05, seed_sd, question_sd, 0.3), 1.0)]
        difference = paired_difference(parts)
        covered += difference.low <= 0.05 <= difference.high
    assert 0.92 <= covered / 400 <= 1.0


def test_the_interval_agrees_with_resampling_seeds_and_questions():
    generator = np.random.default_rng(1)
    first = _matrix(generator, 20, 300, 0.05, 0.03, 0.3, 0.1)
    second = _matrix(generator, 20, 200, 0.02, 0.03, 0.2, 0.1)
    difference = paired_difference([(first, 0.5), (second, 0.5)])
    means = []
    for _ in range(2000):
        seeds = generator.integers(0, 20, 20)
        parts = [matrix[np.ix_(seeds, generator.integers(0, n, n))] for matrix, n in ((first, 300), (second, 200))]
        means.append(0.5 * parts[0].mean() + 0.5 * parts[1].mean())
    low, high = np.percentile(means, [2.5, 97.5])
    assert difference.high - difference.low == pytest.approx(high - low, rel=0.12)
    assert difference.mean == pytest.approx(0.5 * first.mean() + 0.5 * second.mean())


def test_one_seed_gives_no_interval():
    assert paired_difference([(np.ones((1, 50)), 1.0)]) is None
    assert interval([0.5]) is None


def test_equal_runs_do_not_differ():
    assert paired_difference([(np.zeros((3, 50)), 1.0)]) == (0.0, 0.0, 0.0, 1.0)


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
    assert any("without mmbench" in entry["basis"] for entry in scored)

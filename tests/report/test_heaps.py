"""Two heaps of runs: found where there are some, and not where scatter is normal or recipes simply differ."""

import numpy as np
import pytest
from test_board import board_of, results

from bettersynth.report.heaps import find_cut, heaps


def drawn(generator, is_bimodal, seeds=3, recipes=8):
    recipe = np.repeat(np.arange(recipes), seeds)
    aligned = generator.random(len(recipe)) < 0.5
    level = np.where(aligned, 0.0, -1.1) if is_bimodal else 0.4 * generator.standard_normal(recipes)[recipe]
    return level + 0.12 * generator.standard_normal(len(recipe)), recipe


def test_heaps_are_found_where_there_are_some_and_hardly_elsewhere():
    generator = np.random.default_rng(1)
    assert sum(find_cut(*drawn(generator, True)) is not None for _ in range(20)) >= 18
    assert sum(find_cut(*drawn(generator, False)) is not None for _ in range(40)) <= 4


def test_recipes_that_always_or_never_align_are_no_heaps_by_luck():
    recipe = np.repeat([0, 1, 2, 3], 4)
    level = np.repeat([0.0, -1.1, 0.0, -1.1], 4) + 0.1 * np.random.default_rng(2).standard_normal(16)
    assert find_cut(level, recipe) is None


def test_aligned_runs_are_counted_with_their_mean_and_a_warning_where_seeds_are_few():
    skills = {"a": {1: 0.5, 2: -3, 3: 0.5}, "b": {1: -3, 2: -3, 3: 0.5}, "c": {1: 0.5, 2: 0.5, 3: 0.5}}
    found = heaps(board_of(results(skills)))
    of = {row["recipe"]: row for row in found["recipes"]}
    assert {name: row["aligned"] for name, row in of.items()} == {"a": 2, "b": 1, "c": 3}
    assert of["a"]["share_low"] < 2 / 3 < of["a"]["share_high"]
    assert of["b"]["warning"].startswith("1 of 3 aligned") and of["c"]["warning"] is None
    assert of["a"]["means_of_aligned"]["textvqa"] == pytest.approx(of["c"]["means_of_aligned"]["textvqa"], abs=0.1)


def test_too_few_runs_say_nothing_of_heaps():
    assert find_cut(np.array([0.0, -1.0, 0.0]), np.array([0, 0, 1])) is None

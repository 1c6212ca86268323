"""What an early loss tells of the score: within recipes, with its interval, in one sentence and a picture."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from fake_results import fake_configuration

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, write_json
from bettersynth.report.early_loss import best_of, build_early_loss, correlate, picture

SEEDS = [1, 2, 3, 4, 5]
LEVELS = {"baseline": 0.2, "grounded": 0.3, "matched": 0.4}
"""Accuracies around which the runs of a recipe lie: the better the recipe, the higher its losses."""


@pytest.fixture
def board(tmp_path):
    """Writes runs whose score falls with the held-out loss at the end and has nothing to do with that at step 50."""

    def make(telling: float = -1.0, seeds=SEEDS):
        content = fake_configuration(tmp_path).model_dump(by_alias=True, exclude_none=True)
        content["recipes"] = {name: {"dataset": "matched", "seeds": seeds} for name in LEVELS}
        content["training"]["probe"] = {"steps": 50}
        configuration, layout = Configuration.model_validate(content), Layout(tmp_path / "results")
        chance = np.random.default_rng(3)
        for number, (recipe, accuracy) in enumerate(LEVELS.items()):
            skill = chance.normal(size=len(seeds))
            for seed, of_run in zip(seeds, skill, strict=True):
                early, late = chance.normal(), telling * of_run + 0.2 * chance.normal()
                held_out = [{"step": 50, "loss": 4 + number + early}, {"step": 100, "loss": 3 + number + late}]
                card = {"status": "done", "recipe": recipe, "seconds": 100.0, "steps": 100, "held_out": held_out}
                folder = layout.pretrain(recipe, seed)
                write_json(folder / "card.json", card)
                losses = [{"step": step, "loss": 5 - step / 50 + chance.normal()} for step in range(1, 101)]
                lines = [*losses, {"step": 100, "held_out_loss": 3.0}]
                (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
                write_json(layout.finetune(recipe, seed) / "card.json", {"status": "done", "seconds": 300.0})
                for benchmark in configuration.benchmarks:
                    facts = {"status": "done", "questions": 200, "accuracy": accuracy * math.exp(0.3 * of_run)}
                    write_json(layout.result(recipe, seed, benchmark), facts)
        return configuration, layout

    return make


def told(made: dict) -> dict[tuple[str, str], dict]:
    return {(rung["rung"], rung["by"]): rung for rung in made["rungs"]}


def test_each_rung_s_losses_are_related_to_the_score_within_recipes(board):
    configuration, layout = board()
    made = build_early_loss(configuration, layout)
    assert made == read_json(layout.early_loss)
    rungs = told(made)
    assert list(rungs) == [("50", "held_out"), ("50", "training"), ("end", "held_out"), ("end", "training")]
    end = rungs["end", "held_out"]
    assert (end["runs"], end["recipes"]) == (15, 3)
    assert end["correlation"] < -0.9 and end["high"] < -0.7, (
        "though across recipes a higher loss goes with a better score"
    )
    for key in rungs.keys() - {("end", "held_out")}:
        assert rungs[key]["low"] < 0 < rungs[key]["high"]
        assert rungs[key]["sentence"].startswith("It is not shown that the ")
    assert "tells which seeds do well (rank correlation −0.9" in end["sentence"]
    assert "going on with the best of 5 seeds by it costs 2.00 runs instead of one" in end["sentence"]
    assert rungs["50", "held_out"]["cost"] == pytest.approx(0.125 * 5 + 0.875)
    assert end["gain"] == pytest.approx(math.exp(-end["correlation"] * 1.163 * 0.3) - 1, rel=0.35)
    assert made["sentence"] == rungs["50", "held_out"]["sentence"]
    drawn = picture(end)
    assert drawn.count("<circle") == 15 and "matched, seed 5" in drawn
    first = layout.early_loss.read_bytes()
    build_early_loss(configuration, layout)
    assert layout.early_loss.read_bytes() == first


def test_a_loss_that_misleads_is_said_to(board):
    made = build_early_loss(*board(telling=1.0))
    assert (
        "Seeds do better the higher the loss on the held-out pairs at the end"
        in told(made)["end", "held_out"]["sentence"]
    )


def test_only_runs_that_say_something_count(board):
    configuration, layout = board()
    before = told(build_early_loss(configuration, layout))["50", "held_out"]
    stopped = {
        "status": "stopped",
        "fate": "stopped",
        "seconds": 2.0,
        "steps": 50,
        "held_out": [{"step": 50, "loss": 9.0}],
    }
    write_json(layout.pretrain("baseline", 1) / "card.json", stopped)
    for benchmark in configuration.benchmarks:
        write_json(layout.result("baseline", 1, benchmark), {"status": "stopped", "benchmark": benchmark})
    copied = read_json(layout.pretrain("grounded", 2) / "card.json") | {"taken_over_from": "matched"}
    write_json(layout.pretrain("grounded", 2) / "card.json", copied)
    layout.result("matched", 3, "textvqa").unlink()
    made = build_early_loss(configuration, layout)
    after = told(made)["50", "held_out"]
    assert (before["runs"], after["runs"], made["stopped"]) == (15, 12, 1)
    assert made["stopped_hours"] == pytest.approx(2 / 3600, abs=1e-4)
    left = {(point["recipe"], point["seed"]) for point in after["points"]}
    assert not left & {("baseline", 1), ("grounded", 2), ("matched", 3)}


def test_one_seed_a_recipe_tells_nothing(board):
    made = build_early_loss(*board(seeds=[1]))
    assert made["rungs"] == [] and made["sentence"] is None


@pytest.mark.parametrize(("number", "expected"), [(1, 0.0), (2, 0.564), (3, 0.846), (4, 1.029), (5, 1.163), (8, 1.424)])
def test_the_best_of_several(number, expected):
    assert best_of(number) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("slope", [0.0, -0.8])
def test_the_interval_holds(slope):
    chance, recipes, seeds, boards = np.random.default_rng(1), 4, 4, 400
    true, held = 6 / math.pi * math.asin(slope / 2), 0
    for _ in range(boards):
        loss = chance.normal(size=(recipes, seeds))
        level = slope * loss + math.sqrt(1 - slope**2) * chance.normal(size=loss.shape)
        parts = [(part - part.mean(1, keepdims=True)).ravel() for part in (loss, level)]
        found = correlate(*parts, recipes)
        held += found.low <= true <= found.high
    assert 0.92 <= held / boards <= 0.995

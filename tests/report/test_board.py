"""Comparing recipes: on boards where nothing differs hardly any verdict, on others the right ones, in true words."""

from __future__ import annotations

import numpy as np
import pytest

from bettersynth.report.board import Board
from bettersynth.report.verdicts import compared, judge

QUESTIONS = {"textvqa": 200, "mmbench": 120}


def results(skills, questions=None, generator=None):
    """Results of runs by recipe and seed, each question right as often as the run's skill and its ease say."""
    generator = generator or np.random.default_rng(0)
    ease = {name: generator.normal(0, 1, count) for name, count in (questions or QUESTIONS).items()}

    def run(skill):
        found = {}
        for name, easy in ease.items():
            right = generator.random(len(easy)) < 1 / (1 + np.exp(-skill - easy))
            rows = [{"id": str(at), "group": str(at // 2), "score": float(score)} for at, score in enumerate(right)]
            found[name] = {"accuracy": float(right.mean()), "per_question": rows}
        return found

    return {(recipe, seed): run(skill) for recipe, by_seed in skills.items() for seed, skill in by_seed.items()}


def board_of(made, benchmarks=QUESTIONS):
    return Board.read(list(made), list(benchmarks), lambda run, benchmark: made[run][benchmark])


def judged_beside(board, baseline, *recipes):
    """All recipes, or those named, beside the baseline."""
    others = recipes or [name for name in board.recipes if name != baseline]
    return judge(board, dict.fromkeys(others, baseline))


def worlds():
    """Ways in which runs of one recipe scatter: draws a skill."""
    return {
        "tame": lambda generator: generator.normal(-1, 0.1),
        "wild": lambda generator: generator.normal(-1, 0.5),
        "two heaps": lambda generator: -0.5 if generator.random() < 0.5 else -2,
    }


@pytest.mark.parametrize("world", worlds())
@pytest.mark.parametrize("seeds", [2, 3])
def test_where_nothing_differs_hardly_a_board_has_a_verdict(world, seeds):
    generator = np.random.default_rng(seeds)
    draw, wrong, boards = worlds()[world], 0, 150
    for _ in range(boards):
        skills = {f"r{at}": {seed: draw(generator) for seed in range(seeds)} for at in range(6)}
        board = board_of(results(skills, {"textvqa": 60, "mmbench": 40}, generator))
        judged = judged_beside(board, "r0").values()
        wrong += any(one.verdict in ("better", "worse") for one in judged)
    assert wrong <= 0.1 * boards, "5 % at most, and twice that for so few boards"


def test_real_differences_are_found_and_one_seed_borrows_the_scatter():
    skills = {name: dict.fromkeys(range(3), skill) for name, skill in {"base": -1.5, "good": 0.0, "bad": -3}.items()}
    board = board_of(results(skills | {"same": {1: -1.5}}))
    judged = judged_beside(board, "base")
    assert [judged[name].verdict for name in ("good", "bad")] == ["better", "worse"]
    assert judged["good"].low > 1 > judged["bad"].high and judged["good"].basis == "with 3 seeds"
    assert judged["same"].verdict not in ("better", "worse") and "with 1 seed against 3" in judged["same"].basis
    assert judged["same"].high / judged["same"].low > judged["good"].high / judged["good"].low
    assert judged["good"].p <= judged["good"].p_adjusted <= 3 * judged["good"].p


def test_one_seed_everywhere_is_said_to_test_nothing():
    board = board_of(results({"one": {1: -1}, "other": {1: 1}}))
    assert judged_beside(board, "one") == {"other": None} and board.difference("other", "one") is None
    assert list(compared(board, "other", "one"))[-1].startswith("not tested: no recipe has two finished seeds")


def test_a_recipe_that_scatters_more_than_the_others_is_not_given_their_scatter():
    steady = {f"r{at}": dict.fromkeys(range(3), -1.0) for at in range(5)}
    board = board_of(results(steady | {"gambles": {0: 1.0, 1: -3.0, 2: 1.0}}))
    assert judged_beside(board, "r0", "gambles")["gambles"].verdict == "not distinguishable"


def test_equal_within_five_percent_is_said():
    skills = {name: dict.fromkeys(range(8), 1.0) for name in ("one", "other")}
    board = board_of(results(skills, {"textvqa": 3000}), ["textvqa"])
    assert judged_beside(board, "one")["other"].verdict == "equal"


def test_interval_of_a_ratio_holds_it_as_often_as_it_says():
    generator, held, boards = np.random.default_rng(3), 0, 150
    truth = np.log(3)  # of skills on a scale where accuracy is small: a ratio of accuracies of nearly three
    many = {"textvqa": 400}
    drawn = generator.normal(0, 1, 20_000)
    true_ratio = np.log(np.mean(1 / (1 + np.exp(3.5 - truth - drawn))) / np.mean(1 / (1 + np.exp(3.5 - drawn))))
    for _ in range(boards):
        skills = {
            name: {seed: generator.normal(mean, 0.2) for seed in range(3)}
            for name, mean in {"base": -3.5, "good": truth - 3.5, "third": -3.0}.items()
        }
        found = board_of(results(skills, many, generator), ["textvqa"]).difference("good", "base")
        held += found.low <= true_ratio <= found.high
    assert 0.9 <= held / boards <= 1


def test_runs_of_other_questions_are_refused():
    made = results({"one": {1: -1, 2: -1}, "other": {1: 1}})
    made["other", 1]["textvqa"]["per_question"].pop()
    with pytest.raises(ValueError, match="textvqa results of one, other answer different questions"):
        board_of(made)


def test_two_recipes_are_compared_by_name_from_the_command_line(tmp_path):
    from click.testing import CliRunner
    from fake_results import write_fake_results

    from bettersynth.cli.compare import command
    from bettersynth.workflow.run import Run

    configuration, _, _ = write_fake_results(tmp_path, rows=60)
    with pytest.MonkeyPatch.context() as patch:
        (tmp_path / "fake.yaml").touch()
        patch.chdir(tmp_path)
        patch.setattr(Run, "open", lambda path: Run.of(configuration, path))
        told = CliRunner().invoke(command, ["--config", str(tmp_path / "fake.yaml"), "best", "baseline"])
        assert told.exit_code == 0, told.output
        assert "best over baseline: ×" in told.output and "better with 3 seeds" in told.output
        picked = CliRunner().invoke(command, ["--config", str(tmp_path / "fake.yaml"), "grounded", "baseline"])
        assert "grounded over baseline: ×" in picked.output
        stopped = CliRunner().invoke(command, ["--config", str(tmp_path / "fake.yaml"), "abandoned", "baseline"])
        assert "abandoned has no finished run" in str(stopped.exception)
        wrong = CliRunner().invoke(command, ["--config", str(tmp_path / "fake.yaml"), "bset", "baseline"])
        assert "did you mean" in str(wrong.exception) and "best" in str(wrong.exception)

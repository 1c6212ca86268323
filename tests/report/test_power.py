"""Power before money: seeds that a difference takes, the sentence of a dry run, and where the scatter comes from."""

import math

import pytest
from click.testing import CliRunner
from fake_results import fake_configuration, write_fake_results

from bettersynth.cli.power import command
from bettersynth.core.layout import Layout
from bettersynth.report.power import PUBLISHED_SCATTER, Plan, plan_of, scatter_of, sentence
from bettersynth.report.runs import board_of
from bettersynth.workflow.run import Run


@pytest.mark.parametrize(("points", "seeds"), [(1, 279), (2, 71), (5, 12), (10, 4)])
def test_seeds_are_those_of_the_simulated_boards(points, seeds):
    """Eight recipes at a level of .36 whose runs scatter by 9 %: seeds for a power of 80 % were found by simulation."""
    plan = Plan(recipes=8, seeds=3, of_baseline=3, scatter=0.09)
    assert plan.seeds_for((36 + points) / 36) == pytest.approx(seeds, rel=0.05, abs=1)


def test_a_lower_score_takes_as_many_seeds_as_a_higher_one_and_more_seeds_find_less():
    plan = Plan(recipes=8, seeds=3, of_baseline=3, scatter=0.09)
    assert plan.seeds_for(1.1) == plan.seeds_for(1 / 1.1)
    assert plan.detectable() > plan._replace(of_baseline=6).detectable() > plan._replace(seeds=6).detectable() / 1.1
    assert plan.seeds_for(1.00001) is None


def test_one_seed_of_each_shows_nothing():
    plan = Plan(recipes=8, seeds=1, of_baseline=1, scatter=0.09)
    assert math.isinf(plan.detectable()) and "nothing is known of luck" in sentence(plan)


def test_scatter_is_that_of_the_runs_once_there_are_some(tmp_path):
    configuration, layout, _ = write_fake_results(tmp_path, rows=60)
    found = scatter_of(configuration, layout)
    assert found.deviation == pytest.approx(math.sqrt(board_of(configuration, layout).board.levels.scatter))
    assert "finished runs here" in found.source
    assert scatter_of(configuration, layout, 0.2) == (0.2, "as stated")
    assert scatter_of(configuration, Layout(tmp_path / "nothing")).deviation == PUBLISHED_SCATTER
    assert plan_of(configuration, 0.1)[:3] == (6, 1, 3)


def test_the_command_says_what_a_difference_takes(tmp_path, monkeypatch):
    configuration = fake_configuration(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fake.yaml").touch()
    monkeypatch.setattr(Run, "open", lambda path: Run.of(configuration, path))
    of = ["--config", "fake.yaml", "--seeds", "3", "--recipes", "8", "--scatter", "0.09"]
    told = CliRunner().invoke(command, [*of, "--difference", "1.2778"]).output
    assert "With 3 seeds each, 8 recipes beside the baseline: ×1.3" in told and "GPU-hours" in told
    assert "takes 4 seeds of each" in told and "give it 5 seeds" in told
    assert "no difference" in str(CliRunner().invoke(command, [*of, "--difference", "1"]).exception)

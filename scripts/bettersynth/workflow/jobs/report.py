"""The leaderboard and the page: they look at everything that was ever made, so they run at home."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bettersynth.configuration.evaluation import BENCHMARKS
from bettersynth.configuration.recipes import recipe_training
from bettersynth.core import versions
from bettersynth.core.records import POOL
from bettersynth.workflow.jobs.specification import Files, Fingerprinted, Rule


class OfResults(Rule):
    """A rule that reads the results of all runs."""

    def results(self) -> list[Path]:
        """Each run's of each benchmark."""
        return [
            self.layout.result(name, seed, benchmark)
            for name, recipe in self.configuration.recipes.items()
            for seed in recipe.seeds
            for benchmark in self.configuration.benchmarks
        ]


class Leaderboard(OfResults):
    """Compare the recipes."""

    name = log_name = "leaderboard"
    sees_everything = True
    says = "Compare the recipes"

    def inputs(self) -> dict[str, Files]:
        trainsets = [self.layout.trainset_card(recipe) for recipe in self.configuration.recipes]
        return {"results": self.results(), "trainsets": trainsets}

    def outputs(self) -> dict[str, Files]:
        layout = self.layout
        return {
            "leaderboard": layout.leaderboard,
            "csv": layout.leaderboard_csv,
            "markdown": layout.leaderboard_markdown,
            "tensorboard": layout.tensorboard,
            "tracker": layout.mlflow if self.configuration.report.tracker == "mlflow" else [],
        }

    def parameters(self) -> dict[str, Any]:
        """What the page tells of the recipes; of published ratios, those of the benchmarks that are asked."""
        left_out = set(BENCHMARKS) - set(self.configuration.benchmarks)
        recipes = [
            recipe.model_dump_json(exclude={"published": left_out} if recipe.published else None)
            for recipe in self.configuration.recipes.values()
        ]
        report = self.configuration.report
        return {"baseline": report.baseline, "recipes": recipes, "price": report.price_per_gpu_hour}


class EarlyLoss(OfResults):
    """Relate the losses at each rung to the scores."""

    name = log_name = "early_loss"
    sees_everything = True
    says = "Relate early losses to the scores"

    def inputs(self) -> dict[str, Files]:
        cards = [
            self.layout.pretrain(name, seed) / "card.json"
            for name, recipe in self.configuration.recipes.items()
            for seed in recipe.seeds
        ]
        return {"results": self.results(), "stage_1": cards}

    def outputs(self) -> dict[str, Files]:
        return {"early_loss": self.layout.early_loss}

    def parameters(self) -> dict[str, Any]:
        """Steps at which losses are looked at; what else there is stands in the cards."""
        recipes = self.configuration.recipes
        return {"rungs": {name: recipe_training(self.configuration, name).probe.measured for name in recipes}}


class Report(Rule):
    """Write the report."""

    name = log_name = "report"
    sees_everything = True
    says = "Write the report"

    def inputs(self) -> dict[str, Files]:
        configuration, layout = self.configuration, self.layout
        return {
            "leaderboard": layout.leaderboard if configuration.recipes else [],
            "early_loss": layout.early_loss if configuration.recipes else [],
            "datasets": [layout.dataset_card(dataset) for dataset in configuration.datasets],
            "scores": [layout.scores(POOL, operator) for operator in configuration.operators],
            "analyses": [layout.analysis(name) for name in configuration.analyses],
            "truth": Fingerprinted(configuration.report.truth) if configuration.report.truth else [],
        }

    def outputs(self) -> dict[str, Files]:
        return {"page": self.layout.report}

    def parameters(self) -> dict[str, Any]:
        """What decides the report, apart from results."""
        configuration, report = self.configuration, self.configuration.report
        return {
            "settings": report.model_dump_json(exclude={"truth", "tracker"}),
            "notes": {name: [dataset.note, dataset.published_rows] for name, dataset in configuration.datasets.items()},
            "analyses": {name: analysis.model_dump_json() for name, analysis in configuration.analyses.items()},
            "truth": self.fingerprints.contents(report.truth) if report.truth else None,
            "version": versions.REPORT,
        }

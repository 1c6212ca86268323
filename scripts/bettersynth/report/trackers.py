"""The runs for experiment trackers: TensorBoard's event files always, MLflow's store where `report.tracker` says so.

Written anew with every leaderboard, from the logs and results that are there: training itself knows no tracker, so it
needs no package, no server and no network. `tensorboard --logdir results/NAME/report/tensorboard` opens the first,
`mlflow ui --backend-store-uri sqlite:///results/NAME/report/mlflow.db` the second.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bettersynth.core.layout import Layout
from bettersynth.core.publish import json_lines, publish, publish_folder
from bettersynth.report.charts import thin

MOST_POINTS = 500
"""Of a curve: longer ones are means of neighbours, as on the page."""
MOST_AT_ONCE = 1000
"""Metrics that MLflow takes in one call."""

Curves = dict[str, list[tuple[float, float]]]


class TrackedRun(NamedTuple):
    """What a tracker shows of a run."""

    recipe: str
    seed: int
    status: str
    parameters: dict[str, Any]
    curves: Curves
    """`stage/measure`: `(step, value)`."""
    scores: dict[str, float]
    """Accuracies of the benchmarks, 0…1."""

    @property
    def name(self) -> str:
        return f"{self.recipe}/seed_{self.seed}"


def track(leaderboard: dict[str, Any], layout: Layout, benchmarks: Sequence[str], tracker: str | None) -> None:
    """Write `report/tensorboard`, and what `tracker` (`mlflow`) opens."""
    runs = list(tracked_runs(leaderboard, layout, benchmarks))
    with publish_folder(layout.tensorboard) as temporary:
        _write_tensorboard(temporary, runs)
    if tracker == "mlflow":
        with publish(layout.mlflow) as temporary:
            _write_mlflow(temporary, runs, layout.root.name)


def tracked_runs(leaderboard: dict[str, Any], layout: Layout, benchmarks: Sequence[str]) -> Iterator[TrackedRun]:
    """Every run of a leaderboard of which there is anything yet, in the configuration or removed from it."""
    for entry in leaderboard["recipes"]:
        of_recipe = {key: entry[key] for key in ("recipe", "dataset", "rows", "rows_after_cap", "trainset_sha256")}
        for run in (*entry["seeds"], *entry["removed"]):
            stages = {"pretrain": layout.pretrain, "finetune": layout.finetune}
            curves: Curves = {}
            for stage, folder in stages.items():
                curves |= _curves(stage, folder(entry["recipe"], run["seed"]) / "log.jsonl")
            scores = {name: run[name] for name in benchmarks if run[name] is not None}
            if curves or scores:
                of_run = {key: run[key] for key in ("seed", "fate", "steps", "gpu_hours", "checkpoint_sha256")}
                yield TrackedRun(entry["recipe"], run["seed"], run["status"], {**of_recipe, **of_run}, curves, scores)


def _curves(stage: str, log: Path) -> Curves:
    curves: Curves = {}
    for entry in json_lines(log):
        for measure in entry.keys() - {"step"}:
            curves.setdefault(f"{stage}/{measure}", []).append((entry["step"], entry[measure]))
    return {name: thin(points, MOST_POINTS) for name, points in sorted(curves.items())}


def _write_tensorboard(folder: Path, runs: Sequence[TrackedRun]) -> None:
    from tensorboardX import SummaryWriter

    for run in runs:
        with SummaryWriter(str(folder / run.name)) as writer:
            for name, points in run.curves.items():
                for step, value in points:
                    writer.add_scalar(name, value, round(step))
            for benchmark, accuracy in run.scores.items():
                writer.add_scalar(f"accuracy/{benchmark}", accuracy, run.parameters["steps"] or 0)
            table = "".join(f"\n| {key} | {value} |" for key, value in run.parameters.items())
            writer.add_text("run", f"| | |\n| --- | --- |{table}")


def _write_mlflow(database: Path, runs: Sequence[TrackedRun], experiment: str) -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # jobs have no network
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    client = MlflowClient(tracking_uri=f"sqlite:///{database.absolute()}")
    folder = client.create_experiment(experiment, artifact_location=database.with_name("mlflow").absolute().as_uri())
    for run in runs:
        made = client.create_run(folder, run_name=run.name).info.run_id
        metrics = [Metric(name, value, 0, round(step)) for name, points in run.curves.items() for step, value in points]
        metrics += [Metric(f"accuracy/{name}", accuracy, 0, 0) for name, accuracy in run.scores.items()]
        for start in range(0, len(metrics), MOST_AT_ONCE):
            client.log_batch(made, metrics[start : start + MOST_AT_ONCE])
        known = [Param(key, str(value)) for key, value in run.parameters.items() if value is not None]
        client.log_batch(made, params=known, tags=[RunTag("status", run.status)])
        client.set_terminated(made, "FINISHED" if run.status == "done" else "KILLED")

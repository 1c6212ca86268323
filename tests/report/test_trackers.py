"""The runs for experiment trackers, read back from their own files."""

import os
import struct

import pytest
from fake_results import write_fake_results
from tensorboardX.proto.event_pb2 import Event

from bettersynth.core.publish import json_lines, read_json
from bettersynth.report.leaderboard import build_leaderboard
from bettersynth.report.trackers import track

BENCHMARKS = ["textvqa", "mmbench"]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """The configuration and layout of a small results folder, with the runs in both forms."""
    configuration, layout, _ = write_fake_results(tmp_path_factory.mktemp("trackers"))
    leaderboard = build_leaderboard(configuration, layout)
    track(leaderboard, layout, BENCHMARKS, None)
    assert layout.tensorboard.is_dir() and not layout.mlflow.exists()
    track(leaderboard, layout, BENCHMARKS, "mlflow")
    return configuration, layout


def scalars(folder):
    """`{tag: [(step, value), …]}` of a run's event file, a TFRecord: length, its checksum, an event, its checksum."""
    (path,) = folder.iterdir()
    data, found = path.read_bytes(), {}
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_a_run_in_tensorboard_has_its_losses_and_scores(tracked):
    _, layout = tracked
    found = scalars(layout.tensorboard / "best" / "seed_1")
    losses = [(entry["step"], entry["loss"]) for entry in json_lines(layout.pretrain("best", 1) / "log.jsonl")]
    assert found["pretrain/loss"] == [(step, pytest.approx(loss)) for step, loss in losses]
    for benchmark in BENCHMARKS:
        accuracy = read_json(layout.result("best", 1, benchmark))["accuracy"]
        assert [value for _, value in found[f"accuracy/{benchmark}"]] == [pytest.approx(accuracy)]


def test_every_run_with_a_result_is_there_and_no_other(tracked):
    configuration, layout = tracked
    there = {f"{run.parent.name}/{run.name}" for run in layout.tensorboard.glob("*/*")}
    done = {
        f"{name}/seed_{seed}"
        for name, recipe in configuration.recipes.items()
        for seed in recipe.seeds
        if layout.result(name, seed, "textvqa").exists()
        and "accuracy" in read_json(layout.result(name, seed, "textvqa"))
    }
    assert done <= there and not any(run.startswith("not_run_yet/") for run in there)


def test_mlflow_opens_its_store(tracked):
    _, layout = tracked
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{layout.mlflow}")
    (experiment,) = client.search_experiments(filter_string=f"name = '{layout.root.name}'")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    best = runs["best/seed_1"]
    assert best.data.params["recipe"] == "best" and best.data.tags["status"] == "done"
    accuracy = read_json(layout.result("best", 1, "textvqa"))["accuracy"]
    assert best.data.metrics["accuracy/textvqa"] == pytest.approx(accuracy)
    history = client.get_metric_history(best.info.run_id, "pretrain/loss")
    assert len(history) == len(list(json_lines(layout.pretrain("best", 1) / "log.jsonl")))
    assert len(runs) == len(list(layout.tensorboard.glob("*/*")))

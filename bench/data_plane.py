"""Time and memory of every verb and training file over 410,000 records, their scores drawn as published."""

from __future__ import annotations

import argparse
import contextlib
import logging
import re
import tempfile
from pathlib import Path

import yaml

from bench import ROOT
from bench._drawn import write_pool
from bench._plane import DataPlane
from bench.dry_run import call_snakemake, place_inputs
from bettersynth.configuration import read_yaml
from bettersynth.core.publish import read_json
from bettersynth.core.records import POOL
from bettersynth.workflow.expected import Expected


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "contest.yaml", help="(default: %(default)s)")
    parser.add_argument("--records", type=int, default=410_000, help="records of the pool (default: %(default)s)")
    parser.add_argument("--recipes", nargs="+", metavar="RECIPE", help="only these, `similar` and `best` among them")
    parser.add_argument("--folder", type=Path, help="folder for everything that is made; kept if given")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Make every dataset and training file of the contest, step by step in fresh processes; then change a threshold."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config, out = options.config.resolve(), options.out
    options.out = out.resolve()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(contextlib.chdir(folder))
        plane = DataPlane(config)
        place_inputs(plane.configuration, Path())
        write_pool(plane.configuration, options.records)
        return _measure(plane, options.records, options.recipes or list(plane.configuration.recipes))


def _measure(plane: DataPlane, records: int, recipes: list[str]) -> dict[str, float]:
    plane.step("digests", "digests", plane.configuration.pool.files[0].name)
    rescored = _ingest_and_score(plane)
    plane.datasets(plane.configuration.recipes[recipe].dataset for recipe in recipes)
    plane.trainsets(recipes)
    shape = _shape(plane)
    _check(shape, rescored, records)
    return {
        "records": records,
        "recipes": len(recipes),
        **plane.figures(),
        **_changed_threshold(plane),
        "rescored_when_a_file_is_added": rescored,
        **shape,
    }


def _ingest_and_score(plane: DataPlane) -> int:
    """Take in all files but the last and score them, then the last; the number of shards that would be scored again."""
    last = plane.configuration.pool.files[-1]
    content = {key: value for key, value in read_yaml(plane.config).items() if key in ("pool", "models", "operators")}
    content["pool"]["files"] = [entry for entry in content["pool"]["files"] if entry["name"] != last.name]
    before = DataPlane(_written(content, "before.yaml", plane))
    before.ingest()
    before.scores(POOL, before.configuration.operators)
    plane.steps += before.steps
    plane.ingest()
    call = call_snakemake(plane.config, Path(), "--dry-run", "--quiet", "progress", "--", "scores")
    rescored = [
        chunk for chunk in re.findall(r"Score (\S+) of pool", call.output) if not chunk.startswith(f"{last.name}-")
    ]
    plane.scores(POOL, plane.configuration.operators)
    return len(rescored)


def _changed_threshold(plane: DataPlane) -> dict[str, float]:
    """Seconds that Snakemake needs from a changed threshold to the new training file, the graph included."""
    content = read_yaml(plane.config)
    content["datasets"]["similar"]["filter"]["image_text_similarity"]["min"] += 0.01
    changed = _written(content, "changed.yaml", plane)
    target = str(plane.layout.trainset("similar"))
    # Snakemake made none of these files, so it has no record of the threshold that they were made by.
    call_snakemake(plane.config, Path(), "--quiet", "rules", "--touch", "--forcerun", "dataset", "--", target)
    call = call_snakemake(changed, Path(), "--quiet", "rules", "--", target)
    ran = dict(re.findall(r"^(\w+) +(\d+)$", call.output, re.MULTILINE))
    if {key: ran[key] for key in ran if key != "total"} != {"dataset": "1", "trainset": "1"}:
        raise RuntimeError(f"a changed threshold made Snakemake run {ran}:\n{call.output}")
    return {
        "changed_threshold_seconds": round(call.seconds, 2),
        "changed_threshold_cpu_seconds": round(call.cpu_seconds, 2),
    }


def _written(content: dict, name: str, plane: DataPlane) -> Path:
    """A changed configuration of the same name, as a file in the present folder."""
    path = Path(name)
    path.write_text(yaml.safe_dump({**content, "name": plane.configuration.name}, sort_keys=False), encoding="utf-8")
    return path


def _shape(plane: DataPlane) -> dict[str, float]:
    """The story of the best recipe in numbers, and how many of the published numbers of rows came out."""
    cards = {name: plane.layout.dataset_card(name) for name in plane.configuration.datasets}
    ledgers = {name: read_json(path)["ledger"] for name, path in cards.items() if path.exists()}
    expected = Expected(plane.configuration, plane.layout, plane.plan)
    stated = {name: rows for name in ledgers if (rows := expected.published(name))}
    near = [name for name, rows in stated.items() if abs(ledgers[name]["out"] / rows - 1) <= 0.05]
    return {
        "grounded_share": round(ledgers["grounded"]["out"] / ledgers["grounded"]["in"], 3),
        "matched_rows": ledgers["matched"]["out"],
        "weak_rows": ledgers["weak"]["out"],
        "better_rows": ledgers["better"]["out"],
        "spliced_changed_rows": ledgers["spliced"]["changed"],
        "best_rows": ledgers["best"]["out"],
        "published_rows_stated": len(stated),
        "published_rows_within_5_percent": len(near),
    }


def _check(shape: dict[str, float], rescored: int, records: int) -> None:
    """Raise RuntimeError when the best recipe's story is not the published one, in proportion, or shards rescore."""
    told = {
        "half of the pool by grounding": 0.45 < shape["grounded_share"] < 0.65,
        "123,037 of 410,000 by matching": abs(shape["matched_rows"] / records / (123_037 / 410_000) - 1) < 0.1,
        "a few percent of those weak": 0.02 < shape["weak_rows"] / shape["matched_rows"] < 0.1,
        "most of the weak better": 0.5 < shape["better_rows"] / shape["weak_rows"] < 0.9,
        "all of the better spliced in": shape["spliced_changed_rows"] == shape["better_rows"],
        "all of it twice": shape["best_rows"] == 2 * shape["matched_rows"],
        "nothing scored again when a file is added": rescored == 0,
    }
    if untrue := [what for what, holds in told.items() if not holds]:
        raise RuntimeError(f"not so: {', '.join(untrue)}; found {shape}, {rescored} chunks scored again")

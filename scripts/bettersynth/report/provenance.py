"""What made the results: versions, models, digests, devices and seconds, as the cards say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bettersynth.configuration.load import recipe_training
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json
from bettersynth.core.records import POOL
from bettersynth.workflow.plan import Plan


def provenance(configuration: Configuration, layout: Layout, plan: Plan) -> dict[str, Any]:
    """Seconds and devices by phase, versions, models with their sha256, and digests of datasets and training sets."""
    phases: dict[str, dict[str, Any]] = {}
    versions: dict[str, set[str]] = {}
    for phase, path in _cards(configuration, layout, plan):
        if not path.exists():
            continue
        card = read_json(path)
        entry = phases.setdefault(phase, {"jobs": 0, "seconds": 0.0, "devices": set()})
        entry["jobs"] += 1
        entry["seconds"] += card.get("seconds", 0)
        entry["devices"].add(card.get("device", "unknown"))
        for package, version in card.get("versions", {}).items():
            versions.setdefault(package, set()).add(version)
    return {
        "phases": {name: entry | {"devices": sorted(entry["devices"])} for name, entry in phases.items()},
        "versions": {package: sorted(found) for package, found in sorted(versions.items())},
        "models": list(_models(configuration, layout, plan)),
        "digests": list(_digests(configuration, layout)),
    }


def _cards(configuration: Configuration, layout: Layout, plan: Plan) -> Iterator[tuple[str, Path]]:
    for file in configuration.pool.files:
        yield "ingest", layout.file_ledger(file.name)
    for operator in configuration.operators:
        for source in (POOL, *plan.generators):
            gathered = layout.scores_card(source, operator)
            if gathered.exists():
                for shard, entry in read_json(gathered)["shards"].items():
                    scores = layout.score_shard(source, operator, shard, entry["key"])
                    yield f"score {operator}", scores.with_suffix(".json")
    for name, node in plan.generators.items():
        for shard in plan.shards(name):
            yield f"{node.verb} {name}", layout.records_card(name, shard)
    for dataset in configuration.datasets:
        yield "datasets", layout.dataset_card(dataset)
    for name, recipe in configuration.recipes.items():
        yield "training sets", layout.trainset_card(name)
        for seed in recipe.seeds:
            for phase, folder in (
                ("probe", layout.probe),
                ("pretrain", layout.pretrain),
                ("finetune", layout.finetune),
            ):
                yield phase, folder(name, seed) / "card.json"


def _models(configuration: Configuration, layout: Layout, plan: Plan) -> Iterator[dict[str, Any]]:
    """Every model with the sha256 that a job which loaded it wrote down."""
    digests: dict[str, str] = {}
    users = [(operator.model, layout.scores_card(POOL, name)) for name, operator in configuration.operators.items()]
    for name, node in plan.generators.items():
        user = None
        if node.recaption:
            user = configuration.captioners[node.recaption.captioner].model
        elif node.redraw:
            user = configuration.redrawers[node.redraw.redrawer].model
        users.append((user, layout.records_card(name, plan.shards(name)[0])))
    for user, path in users:
        if user and path.exists():
            card = read_json(path)
            digest = card.get("model_sha256") or card.get("inputs", {}).get("model")
            if digest:
                digests[user] = digest
    for name, recipe in configuration.recipes.items():
        path = layout.pretrain(name, recipe.seeds[0]) / "card.json"
        if configuration.training and path.exists():
            architecture = recipe_training(configuration, name).architecture
            for part, digest in read_json(path).get("inputs", {}).get("models_sha256", {}).items():
                digests[getattr(architecture, part)] = digest
    for name, model in configuration.models.items():
        yield {"name": name, **model.model_dump(), "sha256": digests.get(name)}


def _digests(configuration: Configuration, layout: Layout) -> Iterator[dict[str, Any]]:
    """sha256 of the pool's index, of every dataset's rows and of every training file."""
    named = [("pool", layout.index_card)]
    named += [(f"dataset {name}", layout.dataset_card(name)) for name in configuration.datasets]
    named += [(f"training file {name}", layout.trainset_card(name)) for name in configuration.recipes]
    for name, path in named:
        if path.exists():
            card = read_json(path)
            yield {"name": name, "rows": card.get("rows"), "sha256": card.get("sha256")}

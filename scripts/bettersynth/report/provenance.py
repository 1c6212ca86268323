"""What made the results: versions, models, digests, devices and seconds, as the cards say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bettersynth.configuration.recipes import recipe_training
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json
from bettersynth.core.records import POOL
from bettersynth.workflow.jobs import Jobs
from bettersynth.workflow.plan import Plan

NO_GPU = ("cpu", "unknown")
BEGAN = re.compile(r"^on \S+ since (\S+)")
"""The first line of a job's log."""


def provenance(configuration: Configuration, layout: Layout, plan: Plan) -> dict[str, Any]:
    """Seconds (of GPUs, too) and devices by rule, versions, models with sha256, digests of datasets and trainsets."""
    phases: dict[str, _Phase] = {}
    versions: dict[str, set[str]] = {}
    for job in (job for rule in Jobs(configuration, layout, plan) for job in rule.jobs()):
        for evidence in job.evidence:
            if evidence.card.exists():
                card = read_json(evidence.card)
                phases.setdefault(evidence.heading, _Phase()).add(card)
                for package, version in card.get("versions", {}).items():
                    versions.setdefault(package, set()).add(version)
        for log in job.tries:
            phases.setdefault(job.rule.heading.format(rule=job.rule.name, **job.wildcards), _Phase()).add_try(log)
    return {
        "phases": {name: asdict(phase) | {"devices": sorted(phase.devices)} for name, phase in phases.items()},
        "gpu_seconds": sum(phase.gpu_seconds for phase in phases.values()),
        "versions": {package: sorted(found) for package, found in sorted(versions.items())},
        "models": list(_models(configuration, layout, plan)),
        "digests": list(_digests(configuration, layout)),
    }


@dataclass
class _Phase:
    """What the jobs of a phase took; `seconds` count tries that were cut off, too."""

    jobs: int = 0
    cut_off: int = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    """Of those of jobs that were done, the ones that a GPU was held for."""
    devices: set[str] = field(default_factory=set)

    def add(self, card: dict[str, Any]) -> None:
        """Count a job that was done."""
        self.jobs += 1
        self.seconds += card.get("seconds", 0)
        device = card.get("device", "unknown")
        self.devices.add(device)
        if device not in NO_GPU:
            self.gpu_seconds += card.get("seconds", 0)

    def add_try(self, log: Path) -> None:
        """Count a try that was cut off: from when its log says that it began to when it last wrote to it."""
        self.cut_off += 1
        with log.open(encoding="utf-8", errors="replace") as file:
            began = BEGAN.search(file.readline())
        if began:
            self.seconds += max(0.0, log.stat().st_mtime - datetime.fromisoformat(began[1]).timestamp())


def _models(configuration: Configuration, layout: Layout, plan: Plan) -> Iterator[dict[str, Any]]:
    """Every model with the sha256 that a job which loaded it wrote down."""
    digests: dict[str, str] = {}
    users = [(operator.model, layout.scores_card(POOL, name)) for name, operator in configuration.operators.items()]
    for name, verb in plan.generators.items():
        entry = verb.entry(configuration)
        users.append((entry.model if entry else None, layout.records_card(name, plan.shards(name)[0])))
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

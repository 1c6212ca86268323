"""What lies in results folders that no configuration has a use for any more, by kind and size.

Nothing that a run of today's configurations would read, make again or show is among it; cards, logs and results of
removed seeds stay, for boards show them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bettersynth.configuration.instructions import instruction_sets
from bettersynth.configuration.recipes import recipe_start
from bettersynth.core.layout import CARD, CHECKPOINT
from bettersynth.core.own import half_written
from bettersynth.core.publish import read_json
from bettersynth.core.records import POOL
from bettersynth.core.tables import read_table
from bettersynth.training.mgm.made import RESUME
from bettersynth.workflow.jobs import Jobs
from bettersynth.workflow.run import Run

WEIGHTS = (f"pretrain/{RESUME}", "pretrain/connector.safetensors", f"finetune/{RESUME}", f"finetune/{CHECKPOINT}")
"""What is large in the folder of a run, beside what its probes left."""


class Unneeded(NamedTuple):
    """A file or folder, what it is, and the bytes that it takes up."""

    kind: str
    path: Path
    size: int


def unneeded(runs: Iterable[Run]) -> list[Unneeded]:
    """All of it below the results folders of these runs, the largest first; runs of one folder share it."""
    by_root: dict[Path, list[Run]] = defaultdict(list)
    for run in runs:
        by_root[run.layout.root].append(run)
    found = [Unneeded(kind, path, size_of(path)) for each in by_root.values() for kind, path in _of_folder(each)]
    return sorted(found, key=lambda entry: (-entry.size, str(entry.path)))


def size_of(path: Path) -> int:
    """Bytes that removing a file or folder frees: a file with a second name elsewhere frees none."""
    files = [Path(parent, name) for parent, _, names in os.walk(path) for name in names] if path.is_dir() else [path]
    return sum(found.st_size for found in (file.lstat() for file in files) if found.st_nlink == 1)


def _of_folder(runs: list[Run]) -> Iterator[tuple[str, Path]]:
    yield from _scores(runs)
    yield from _sources(runs)
    yield from _named(runs)
    yield from _weights(runs)
    root = runs[0].layout.root
    yield from (("half written by a job that was killed", path) for path in root.rglob(".*.tmp*") if half_written(path))


# scores: of operators as they are now, of sources and shards that there are
def _scores(runs: list[Run]) -> Iterator[tuple[str, Path]]:
    root = runs[0].layout.root / "scores"
    sources = {POOL} | {name for run in runs for name in run.plan.generators}
    operators = {name for run in runs for name in run.configuration.operators}
    needed = {path for run in runs for path in _scores_in_use(run)}
    for folder in sorted(path for path in root.glob("*") if path.is_dir() and path.name != "passes"):
        if folder.name not in sources:
            yield "scores of a source that is made no more", folder
            continue
        for path in sorted(folder.glob("*")):
            if path.name.startswith(".") or path.name == "passes":
                continue
            if path.name.partition(".")[0] not in operators:
                yield "scores by an operator that is no more", path
            elif path.is_dir():
                shards = (shard for shard in sorted(path.glob("*-*.*")) if not shard.name.startswith("."))
                yield from (("old score shard", shard) for shard in shards if shard.with_suffix("") not in needed)


def _scores_in_use(run: Run) -> Iterator[Path]:
    """Score shards, without their endings, by operators as they are now, whatever the records were."""
    layout, plan, jobs = run.layout, run.plan, Jobs(run.configuration, run.layout, run.plan)
    shards = {source: set(plan.shards(source)) for source in (POOL, *plan.generators)}
    present = {name: jobs.fingerprints.operator(name) for name in run.configuration.operators}
    for source, those in shards.items():
        for operator in present:
            if (card := layout.scores_card(source, operator)).exists():
                for shard, entry in read_json(card)["shards"].items():
                    yield layout.score_shard(source, operator, shard, entry["key"]).with_suffix("")
        for card in layout.scores_card(source, "any").parent.glob("passes/*/*.json"):
            by = read_json(card).get("operators", {})
            for shard, entry in read_json(card)["shards"].items():
                for operator, key in entry["scores"].items():
                    if shard in those and by.get(operator) == present.get(operator, ""):
                        yield layout.score_shard(source, operator, shard, key).with_suffix("")


# sources: those that some dataset makes, and the pictures that their records name
def _sources(runs: list[Run]) -> Iterator[tuple[str, Path]]:
    made = {name: run for run in runs for name in run.plan.generators}
    for folder in sorted((runs[0].layout.root / "sources").glob("[!.]*")):
        run = made.get(folder.name)
        if run is None:
            yield "a source that no dataset makes", folder
        else:
            yield from (("a picture that no record names", path) for path in _unnamed_pictures(run, folder.name))


def _unnamed_pictures(run: Run, source: str) -> Iterator[Path]:
    """None while some of the source's records are still to be made."""
    records = [run.layout.records(source, shard) for shard in run.plan.shards(source)]
    folder = run.layout.source_images(source)
    if not folder.exists() or not all(path.exists() for path in records):
        return
    named: set[str] = set()
    for path in records:
        named.update(read_table(path, ["images"])["images"].combine_chunks().flatten().to_pylist())
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    yield from (path for path in files if path.relative_to(folder).as_posix() not in named)


# what has a name in the configuration: datasets, analyses, exports, training files, instruction sets
def _named(runs: list[Run]) -> Iterator[tuple[str, Path]]:
    layout = runs[0].layout
    configurations = [run.configuration for run in runs]
    places: dict[str, tuple[Path, set[str]]] = {
        "a dataset": (layout.rows("any").parents[1], {name for each in configurations for name in each.datasets}),
        "an analysis": (layout.analysis("any").parent, {name for each in configurations for name in each.analyses}),
        "exports of a dataset": (
            layout.export("any", "").parent,
            {name for each in configurations for name in each.exports},
        ),
        "a training file": (layout.trainset("any").parent, {name for each in configurations for name in each.recipes}),
        "an instruction set": (
            layout.instructions("any").parent,
            {name for each in configurations for name in instruction_sets(each)},
        ),
    }
    for what, (folder, names) in places.items():
        for path in sorted(folder.glob("[!.]*")):
            if path.name.partition(".")[0] not in names:
                yield f"{what} that the configuration has no more", path


# weights: of seeds that were removed, or stopped, unless another run starts from them
def _weights(runs: list[Run]) -> Iterator[tuple[str, Path]]:
    layout, seeds, starts = runs[0].layout, set[tuple[str, int]](), set[tuple[str, int]]()
    for run in runs:
        for recipe, settings in run.configuration.recipes.items():
            seeds |= {(recipe, seed) for seed in settings.seeds}
            starts |= {start for seed in settings.seeds if (start := recipe_start(run.configuration, recipe, seed))}
    for folder in sorted((layout.root / "runs").glob("*/seed-*")):
        name = folder.parent.name, int(folder.name.removeprefix("seed-"))
        if name in starts:
            continue
        states = [path for path in sorted(folder.glob(f"*/{RESUME}")) if path.parent.name.startswith("probe")]
        if name not in seeds:
            kept = [folder / part for part in WEIGHTS if (folder / part).exists()]
            yield from (("weights of a seed that was removed", path) for path in [*states, *kept])
        elif _card(layout.pretrain(*name) / CARD).get("status") == "stopped":
            yield from (("checkpoint of a seed that was stopped", path) for path in states)


def _card(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    return found

"""The training file of a recipe: late join, restored questions, the kit's cap, and a preflight."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.configuration.pool import Pool
from bettersynth.configuration.recipes import recipe_trainset
from bettersynth.configuration.training import Trainset
from bettersynth.configuration.types import Configuration
from bettersynth.core.commands import make
from bettersynth.core.image_paths import ImageProblem
from bettersynth.core.layout import Layout
from bettersynth.core.parallel import batches, map_threads
from bettersynth.core.progress import progress
from bettersynth.core.publish import Card, publish, sha256_file
from bettersynth.core.raw import caption_problem, question_problem
from bettersynth.core.records import caption_of, origins
from bettersynth.core.remedy import config_of
from bettersynth.core.tables import write_table
from bettersynth.datasets.order import random_order
from bettersynth.pool.images import ImageRoots, check_image
from bettersynth.pool.llava import Questions, iterate, kit_cap, llava_entries, write_list
from bettersynth.pool.rows import load_records, read_rows
from bettersynth.training.preflight import Finding, PreflightError, Unusable, settle
from bettersynth.workflow.plan import Plan
from bettersynth.workflow.roots import roots_of

LOOKED_AT_ONCE = 1000
"""Images whose sizes one task compares."""

Image = tuple[str, str]
"""Root and path of an image."""


def build_trainset(name: str, configuration: Configuration, layout: Layout, plan: Plan) -> dict[str, Any]:
    """Check every row and image of the recipe `name`, publish its training file and, last, its card.

    The file is the kit's LLaVA form; `image` is relative to the pool's image folder. Held-out pairs are left out. All
    findings are on record beside it. Raises PreflightError when rows cannot be trained on and are not to be dropped,
    and ValueError for a record without question or with several images.
    """
    recipe = configuration.recipes[name]
    settings = recipe_trainset(configuration, name)
    card = Card(
        recipe=name,
        dataset=recipe.dataset,
        parameters={**settings.model_dump(), "images": roots_of(configuration.pool).key},
        inputs=_inputs([recipe.dataset, *filter(None, [configuration.held_out])], configuration, layout),
    )
    rows, kept, held_out = chosen_rows(name, configuration, layout, plan)
    if not rows.num_rows:
        none = f"only held-out pairs (of `{configuration.held_out}`)" if held_out else "no rows"
        raise PreflightError(
            f"recipe `{name}`: its dataset `{recipe.dataset}` has {none}, so there is nothing to train on; change the "
            f"dataset or leave the recipe out. Where the rows went: {make('explain', DATASET=recipe.dataset)}"
        )
    chosen = rows if kept is None else rows.take(pa.array(kept))
    facts = _write(f"recipe `{name}`", chosen, settings, layout.trainset(name), configuration, layout, plan)
    left_out = sorted(set(range(rows.num_rows)) - set(range(rows.num_rows) if kept is None else kept))
    write_table(layout.trainset_dropped(name), rows.take(pa.array(left_out, pa.int64())).combine_chunks())
    more = {"held_out": held_out, "filled_up": max(0, chosen.num_rows - rows.num_rows)}
    return card.write(
        layout.trainset_card(name),
        beside=[layout.trainset_dropped(name), layout.findings(layout.trainset(name))],
        dropped_by_cap=max(0, rows.num_rows - chosen.num_rows),
        **{key: number for key, number in more.items() if number},
        **facts,
    )


def chosen_rows(
    name: str, configuration: Configuration, layout: Layout, plan: Plan
) -> tuple[pa.Table, Sequence[int] | None, int]:
    """A recipe's rows that are not held out, the places of those that the cap keeps (None for all), how many were."""
    whole = read_rows(configuration.recipes[name].dataset, layout)
    rows = whole if configuration.held_out is None else _without(whole, read_rows(configuration.held_out, layout), plan)
    kept = _places(rows, recipe_trainset(configuration, name)) if rows.num_rows else None
    return rows, kept, whole.num_rows - rows.num_rows


def build_held_out(configuration: Configuration, layout: Layout, plan: Plan) -> dict[str, Any]:
    """Publish the pairs that no recipe trains on, in the form of a training file, and its card. Raises as above."""
    name, settings = configuration.held_out, configuration.trainset
    if name is None:
        raise ValueError("the configuration has no `held_out`")
    card = Card(
        dataset=name,
        parameters={**settings.model_dump(), "images": roots_of(configuration.pool).key},
        inputs=_inputs([name], configuration, layout),
    )
    rows = read_rows(name, layout)
    if not rows.num_rows:
        raise PreflightError(f"held_out: `{name}` has no rows. Where they went: {make('explain', DATASET=name)}")
    facts = _write(f"held_out `{name}`", rows, settings, layout.held_out, configuration, layout, plan)
    return card.write(layout.held_out_card, beside=[layout.findings(layout.held_out)], **facts)


def _inputs(datasets: list[str], configuration: Configuration, layout: Layout) -> dict[str, str]:
    files = {file: sha256_file(file) for file in configuration.pool.restore}
    return {dataset: sha256_file(layout.rows(dataset)) for dataset in datasets} | files


def _without(rows: pa.Table, held_out: pa.Table, plan: Plan) -> pa.Table:
    """Rows that are neither held out nor made of the same record as one that is."""

    def origins_of(table: pa.Table) -> Iterator[set[str]]:
        for name, source in zip(table["id"].to_pylist(), table["source"].to_pylist(), strict=True):
            yield set(origins(name)) if source in variants else {name}

    variants = {source for source in plan.generators if plan.makes_variants(source)}
    held = set().union(*origins_of(held_out))
    return rows.filter(pa.array([held.isdisjoint(names) for names in origins_of(rows)], pa.bool_()))


def _write(
    what: str,
    rows: pa.Table,
    settings: Trainset,
    path: Path,
    configuration: Configuration,
    layout: Layout,
    plan: Plan,
) -> dict[str, Any]:
    """Publish the training file `path` of these rows, after its preflight; facts for the card."""
    records = load_records(rows, layout, plan)
    roots = ImageRoots(configuration.pool, layout)
    questions = Questions(configuration, settings.question, records["id"].to_pylist(), layout)
    images = _distinct_images(records)
    decoded, bad = _bad_images(images, configuration.pool, layout)
    findings = _findings(records, questions, bad, path)
    unusable = {finding.id for finding in findings}
    keep = [record_id not in unusable for record_id in records["id"].to_pylist()]
    wanted = Unusable(settings.unusable, settings.unusable_share, "trainset")
    counts = settle(what, findings, len(keep), keep.count(False), wanted, layout.findings(path), _remedy(layout))
    with publish(path) as temporary, temporary.open("wb") as output:
        written = write_list(output, llava_entries(records.filter(pa.array(keep, pa.bool_())), questions, roots))
    return {
        "rows": written,
        "sha256": sha256_file(path),
        "preflight": {
            "rows": records.num_rows,
            "images": images.num_rows,
            "decoded": decoded,
            "failures": len(findings),
            **({"dropped": keep.count(False), "findings": counts} if findings else {}),
        },
    }


def _places(rows: pa.Table, settings: Trainset) -> Sequence[int] | None:
    """Places of the rows that the training file has, in its order, after cap and `fill`; None for all, once."""
    number = rows.num_rows
    if settings.cap is None or not settings.fill or number >= settings.cap:
        return kit_cap(number, settings.cap, settings.cap_seed)
    times, rest = divmod(settings.cap, number)
    part = sorted(random_order(rows, settings.cap_seed)[:rest].tolist())
    return [*list(range(number)) * times, *part]


def _remedy(layout: Layout) -> str:
    return (
        "Put good images in the place of bad ones, and run again, which looks at them anew and puts the records of "
        f"those that are still bad into quarantine: make run CONFIG={config_of(layout.root / 'pool')}"
    )


def _findings(records: pa.Table, questions: Questions, bad: dict[Image, ImageProblem], path: Path) -> list[Finding]:
    """What is wrong with each record, the first time that it comes: its picture, its caption, its question."""
    seen: set[str] = set()
    findings: list[Finding] = []
    for row, record in enumerate(iterate(records), 1):
        record_id = record["id"]
        if record_id in seen:
            continue
        seen.add(record_id)
        for image in record["images"]:
            if problem := bad.get((record["image_root"], image)):
                findings.append(Finding(row, record_id, "image", image, str(problem.reason), problem.detail))
        if fault := caption_problem(caption_of(record["text"])):
            findings.append(Finding(row, record_id, "text", str(path), str(fault[0]), fault[1]))
        if why := question_problem(questions[record_id]):
            findings.append(Finding(row, record_id, "question", str(path), "question", why))
    return findings


def _distinct_images(records: pa.Table) -> pa.Table:
    """`image_root, image` of every image."""
    images = records["images"].combine_chunks()
    root = records["image_root"].take(pc.list_parent_indices(images))
    shown = pa.table({"image_root": root, "image": images.flatten()})
    return pa.Table.from_pandas(shown.to_pandas().drop_duplicates(), shown.schema, preserve_index=False)


def _bad_images(images: pa.Table, pool: Pool, layout: Layout) -> tuple[int, dict[Image, ImageProblem]]:
    """How many images were decoded, and those that could not be.

    An image of the pool that ingest has decoded, and that is still the same, is not decoded again.
    """
    roots = ImageRoots(pool, layout).load()
    named = list(zip(images["image_root"].to_pylist(), images["image"].to_pylist(), strict=True))

    def others(part: Sequence[Image]) -> list[Image]:
        return [image for image in part if not (pool.decode and roots.is_as_read(*image))]

    def problem_of(item: Image) -> ImageProblem | None:
        root, image = item
        try:
            check_image(roots.resolved(root, image), pool.reading, decode=True)
            roots.path(root, image)  # whole, but it may be another picture than was read in
        except ImageProblem as problem:
            return problem
        return None

    # Threads suffice: the file system and the decoders leave Python's lock to others.
    parts = map_threads(others, list(batches(named, LOOKED_AT_ONCE)), 4 * (os.cpu_count() or 1))
    due = [item for part in parts for item in part]
    found = progress(map_threads(problem_of, due, os.cpu_count() or 1), len(due), "images decoded")
    return len(due), {item: problem for item, problem in zip(due, found, strict=True) if problem is not None}

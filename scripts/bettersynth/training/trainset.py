"""The training file of a recipe: late join, restored questions, the kit's cap, and a preflight."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.configuration.load import recipe_trainset
from bettersynth.configuration.pool import Pool
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.parallel import batches, map_threads
from bettersynth.core.progress import progress
from bettersynth.core.publish import Card, publish, sha256_file
from bettersynth.core.raw import PLAIN_IMAGE_TOKEN, caption_problem
from bettersynth.core.records import POOL, read_table
from bettersynth.pool.images import ImageProblem, ImageRoots, check_image
from bettersynth.pool.llava import Questions, kit_cap, llava_entries, write_list
from bettersynth.pool.rows import load_records, read_rows
from bettersynth.workflow.plan import Plan

SHOWN = 20
"""Findings that an error lists."""

LOOKED_AT_ONCE = 1000
"""Images whose sizes one task compares."""


class PreflightError(ValueError):
    """Records that cannot be trained on; the message names them and the next command."""


class Finding(NamedTuple):
    """A record that cannot be trained on."""

    record_id: str
    reason: str
    detail: str


def build_trainset(name: str, configuration: Configuration, layout: Layout, plan: Plan) -> dict[str, Any]:
    """Check every row and image of the recipe `name`, publish its training file and, last, its card.

    The file is the kit's LLaVA form; `image` is relative to the pool's image folder. Raises PreflightError when any
    row cannot be trained on, and ValueError for a record without question or with several images.
    """
    recipe = configuration.recipes[name]
    settings = recipe_trainset(configuration, name)
    rows_path, path = layout.rows(recipe.dataset), layout.trainset(name)
    card = Card(
        recipe=name,
        dataset=recipe.dataset,
        parameters={**settings.model_dump(), "images": configuration.pool.images},
        inputs={recipe.dataset: sha256_file(rows_path)}
        | {file: sha256_file(file) for file in configuration.pool.restore},
    )
    rows = read_rows(recipe.dataset, layout)
    if not rows.num_rows:
        raise PreflightError(
            f"recipe `{name}`: its dataset `{recipe.dataset}` has no rows, so there is nothing to train on; change the "
            f"dataset or leave the recipe out. Where the rows went: make explain DATASET={recipe.dataset}"
        )
    kept = kit_cap(rows.num_rows, settings.cap, settings.cap_seed)
    dropped = 0 if kept is None else rows.num_rows - len(kept)
    records = load_records(rows if kept is None else rows.take(pa.array(kept)), layout, plan)

    roots = ImageRoots(configuration.pool, layout)
    questions = Questions(configuration, settings.question, records["id"].to_pylist())
    images = _distinct_images(records)
    decoded, findings = _image_findings(images, configuration.pool, layout)
    with publish(path) as temporary, temporary.open("wb") as output:
        written = write_list(output, _checked(llava_entries(records, questions, roots), findings))
        if findings:
            raise PreflightError(_explain(name, findings, records.num_rows, configuration.pool))
    return card.write(
        layout.trainset_card(name),
        rows=written,
        dropped_by_cap=dropped,
        sha256=sha256_file(path),
        preflight={"rows": records.num_rows, "images": images.num_rows, "decoded": decoded, "failures": 0},
    )


def _explain(name: str, findings: list[Finding], rows: int, pool: Pool) -> str:
    counts = Counter(finding.reason for finding in findings)
    lines = [
        f"recipe `{name}`: {len(findings)} findings in {rows} rows",
        *(f"  {count} × {reason}" for reason, count in sorted(counts.items())),
        *(f"  {finding.record_id}: {finding.reason}: {finding.detail}" for finding in findings[:SHOWN]),
        *([f"  … and {len(findings) - SHOWN} more"] if len(findings) > SHOWN else []),
        "Put good images in the place of bad ones; or remove the bad ones and take the pool in again, which puts "
        f"their records in quarantine: `snakemake --forcerun {' '.join(f'ingest_{file.name}' for file in pool.files)}`",
    ]
    return "\n".join(lines)


def _checked(entries: Iterable[dict[str, Any]], findings: list[Finding]) -> Iterator[dict[str, Any]]:
    """The entries as they are; what is wrong with the texts of an id, seen for the first time, joins the findings."""
    seen: set[str] = set()
    for entry in entries:
        yield entry
        if entry["id"] in seen:
            continue
        seen.add(entry["id"])
        question, caption = (turn["value"] for turn in entry["conversations"])
        if problem := caption_problem(caption):
            findings.append(Finding(entry["id"], str(problem[0]), problem[1]))
        if question.count(PLAIN_IMAGE_TOKEN) != 1:
            findings.append(Finding(entry["id"], "question", f"not exactly one `{PLAIN_IMAGE_TOKEN}` in its question"))


def _distinct_images(records: pa.Table) -> pa.Table:
    """`image_root, image` of every image, with the `id` of the first record that shows it."""
    images = records["images"].combine_chunks()
    row = pc.list_parent_indices(images)
    shown = {"image_root": records["image_root"].take(row), "image": images.flatten(), "id": records["id"].take(row)}
    distinct = pa.table(shown).to_pandas().drop_duplicates(["image_root", "image"])
    return pa.Table.from_pandas(distinct, pa.table(shown).schema, preserve_index=False)


def _image_findings(images: pa.Table, pool: Pool, layout: Layout) -> tuple[int, list[Finding]]:
    """How many images were decoded, and those that could not be, in order.

    An image of the pool that ingest has decoded and that still has the same size is not decoded again.
    """
    roots = ImageRoots(pool, layout)
    tables = [read_table(layout.images(file.name)) for file in pool.files]
    known = pa.concat_tables(tables)
    sizes = known["bytes"].take(pc.index_in(images["image"], value_set=known["image"]))
    named = list(
        zip(*(images[name].to_pylist() for name in ("image_root", "image", "id")), sizes.to_pylist(), strict=True)
    )

    def changed(part: Sequence[tuple[str, str, str, int | None]]) -> list[tuple[str, str, str]]:
        folder = Path(pool.images)
        return [
            (root, image, record_id)
            for root, image, record_id, size in part
            if root != POOL or size is None or _size(f"{folder}/{image}") != size
        ]

    def finding_of(item: tuple[str, str, str]) -> Finding | None:
        root, image, record_id = item
        try:
            check_image(roots.path(root, image), pool.reading, decode=True)
        except ImageProblem as problem:
            return Finding(record_id, str(problem.reason), problem.detail)
        return None

    # Threads suffice: the file system and the decoders leave Python's lock to others.
    parts = map_threads(changed, list(batches(named, LOOKED_AT_ONCE)), 4 * (os.cpu_count() or 1))
    due = [item for part in parts for item in part]
    found = map_threads(finding_of, due, os.cpu_count() or 1)
    return len(due), [finding for finding in progress(found, len(due), "images decoded") if finding is not None]


def _size(path: str) -> int | None:
    """Bytes of a file; None when it is not there."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - in a loop over hundreds of thousands
    except OSError:
        return None

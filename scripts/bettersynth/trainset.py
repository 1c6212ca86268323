"""The training file of a recipe: late join, restored questions, the kit's cap, and a preflight."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from bettersynth.configuration.load import recipe_trainset
from bettersynth.configuration.types import Configuration, Pool
from bettersynth.images import ImageProblem, ImageRoots
from bettersynth.layout import Layout
from bettersynth.llava import Questions, iterate, kit_cap, llava_entries, write_list
from bettersynth.parallel import map_threads
from bettersynth.plan import Plan
from bettersynth.progress import progress
from bettersynth.publish import Card, publish, sha256_file
from bettersynth.raw import PLAIN_IMAGE_TOKEN, caption_problem
from bettersynth.records import caption_of
from bettersynth.sources import load_records, read_rows

SHOWN = 20
"""Findings that an error lists."""


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
    kept = kit_cap(rows.num_rows, settings.cap, settings.cap_seed)
    dropped = 0 if kept is None else rows.num_rows - len(kept)
    records = load_records(rows if kept is None else rows.take(pa.array(kept)), layout, plan)

    roots = ImageRoots(configuration.pool, layout)
    questions = Questions(configuration, settings.question, records["id"].to_pylist())
    images = _distinct_images(records)
    if findings := [*_text_findings(records, questions), *_image_findings(images, roots)]:
        raise PreflightError(_explain(name, findings, records.num_rows, configuration.pool))
    with publish(path) as temporary, temporary.open("wb") as output:
        written = write_list(output, llava_entries(records, questions, roots))
    return card.write(
        layout.trainset_card(name),
        rows=written,
        dropped_by_cap=dropped,
        sha256=sha256_file(path),
        preflight={"rows": records.num_rows, "images": len(images), "failures": 0},
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


def _distinct_images(records: pa.Table) -> dict[tuple[str, str], str]:
    """`(image_root, path)` of every image, with the id of the first record that shows it."""
    found: dict[tuple[str, str], str] = {}
    for record in iterate(records.select(["id", "images", "image_root"])):
        for path in record["images"]:
            found.setdefault((record["image_root"], path), record["id"])
    return found


def _text_findings(records: pa.Table, questions: Questions) -> Iterator[Finding]:
    seen: set[str] = set()
    for record in iterate(records.select(["id", "text"])):
        if record["id"] in seen:
            continue
        seen.add(record["id"])
        if problem := caption_problem(caption_of(record["text"])):
            yield Finding(record["id"], str(problem[0]), problem[1])
        if questions[record["id"]].count(PLAIN_IMAGE_TOKEN) != 1:
            yield Finding(record["id"], "question", f"not exactly one `{PLAIN_IMAGE_TOKEN}` in its question")


def _image_findings(images: dict[tuple[str, str], str], roots: ImageRoots) -> Iterator[Finding]:
    """Images that cannot be decoded, in order. Threads suffice: decoding leaves Python's lock to others."""

    def finding_of(item: tuple[tuple[str, str], str]) -> Finding | None:
        (image_root, path), record_id = item
        try:
            roots.open(image_root, path)
        except ImageProblem as problem:
            return Finding(record_id, str(problem.reason), problem.detail)
        return None

    found = map_threads(finding_of, list(images.items()), os.cpu_count() or 1)
    yield from (finding for finding in progress(found, len(images), "images decoded") if finding is not None)

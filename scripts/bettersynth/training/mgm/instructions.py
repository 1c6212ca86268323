"""Stage 2's instruction set, looked at before stage 1 is paid for: each row's form and each picture.

What can be used is written down as stage 2 will train on it, one JSON list in LLaVA's form: later changes of the file
or of a picture's path cannot change data that are being trained on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bettersynth.configuration.instructions import instruction_set, instruction_sets
from bettersynth.configuration.pool import Reading
from bettersynth.configuration.recipes import recipe_training
from bettersynth.configuration.training import PREFLIGHT, Finetune
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.parallel import map_threads
from bettersynth.core.progress import progress
from bettersynth.core.publish import Card, publish, read_json, sha256_file
from bettersynth.core.raw import Reason, RecordProblem, parse_json, raw_lines
from bettersynth.pool.images import ImageProblem, check_image, resolve
from bettersynth.pool.llava import write_list
from bettersynth.training.mgm.conversations import PUBLISHED_REASONS, Problem, problems
from bettersynth.training.preflight import Finding, PreflightError, Unusable, settle

KEY = "training.finetune"
"""Where the configuration speaks of the instruction set."""
OTHER_ENDINGS = (".png", ".gif", ".jpeg", ".jpg", ".webp")


class Row(NamedTuple):
    """A row as far as it is understood: what of it would be trained on, and what is wrong with it."""

    number: int
    id: str
    entry: dict[str, Any]
    problems: list[Problem]
    changed: bool
    """Whether its picture's path is written otherwise than it says."""


class Used(NamedTuple):
    """What stage 2 trains on: a JSON list, which is the set's own file when all of it is used as it stands there."""

    path: Path
    sha256: str


def used_instructions(stage: Finetune, configuration: Configuration, layout: Layout) -> Used:
    """The rows of a stage's instruction set that are used; looked at first where that was not done of this file."""
    name = instruction_set(stage, configuration)
    card_path, raw = layout.instructions_card(name), Path(stage.instructions)
    card = read_json(card_path) if card_path.exists() and layout.instructions(name).exists() else None
    if card is None or (raw.exists() and card["inputs"][stage.instructions] != sha256_file(raw)):
        card = check_instructions(name, configuration, layout)
    is_used_as_it_is = card["data_sha256"] != card["sha256"] and raw.suffix == ".json" and raw.exists()
    return Used(raw if is_used_as_it_is and _is_plain_list(raw) else layout.instructions(name), card["data_sha256"])


def look_again(recipe: str, configuration: Configuration, layout: Layout) -> None:
    """Before stage 1 is paid for: look at the recipe's instruction set where it changed since its preflight.

    On a machine that has it; elsewhere only what stage 1 reads came along. Raises PreflightError.
    """
    stage = recipe_training(configuration, recipe).finetune
    if Path(stage.instructions).exists():
        used_instructions(stage, configuration, layout)


def _is_plain_list(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4096).lstrip().startswith(b"[")


def check_instructions(name: str, configuration: Configuration, layout: Layout) -> dict[str, Any]:
    """Look at every row and picture of an instruction set; publish what is used of it and, last, its card.

    All findings are on record beside it. Raises PreflightError when rows cannot be used and are not to be dropped, or
    too few are left for a step.
    """
    stage, path = instruction_sets(configuration)[name], layout.instructions(name)
    raw_sha256 = sha256_file(stage.instructions)
    asked = stage.model_dump(include=set(PREFLIGHT)) | {"images": stage.images, **configuration.pool.reading._asdict()}
    card = Card(instructions=name, inputs={stage.instructions: raw_sha256}, parameters=asked)
    rows, pictures = 0, dict[str, None]()
    for row in _rows(stage):
        rows += 1
        if "image" in row.entry:
            pictures.setdefault(row.entry["image"])
    bad = _bad_pictures(list(pictures), stage, configuration.pool.reading)
    findings: list[Finding] = []
    accepted = changed = 0
    for row in _rows(stage):
        found = list(_findings(row, stage, bad))
        findings += found
        accepted += bool(row.problems) and not found
        changed += row.changed
    unusable = {finding.row for finding in findings}
    wanted = Unusable(stage.unusable, stage.unusable_share, KEY)
    counts = settle(stage.instructions, findings, rows, len(unusable), wanted, layout.findings(path), _remedy(findings))
    _refuse_too_few(stage.instructions, rows - len(unusable), configuration, name)
    with publish(path) as temporary, temporary.open("wb") as output:
        written = write_list(output, (row.entry for row in _rows(stage) if row.number not in unusable))
    sha256 = sha256_file(path)
    return card.write(
        layout.instructions_card(name),
        beside=[layout.findings(path)],
        rows=written,
        dropped=len(unusable),
        findings=counts,
        accepted=accepted,
        pictures=len(pictures),
        other_paths=changed,
        sha256=sha256,
        # Where all of the file is used as it is, its own: training that was done before there was a preflight stays.
        data_sha256=sha256 if unusable or changed else raw_sha256,
    )


def pictures_of(stage: Finetune) -> Iterator[Path]:
    """The files of the pictures that the rows of a set name, whether they are there or not."""
    return (Path(stage.images, row.entry["image"]) for row in _rows(stage) if row.entry.get("image"))


def _rows(stage: Finetune) -> Iterator[Row]:
    """The rows of the file, blank lines left out; what is in none is counted all the same."""
    present = ((line.number, line.raw) for line in raw_lines(stage.instructions) if line.raw.strip())
    for place, (number, raw) in enumerate(present):
        try:
            value = parse_json(raw)
            if not isinstance(value, dict):
                raise RecordProblem(Reason.NOT_OBJECT, f"found {type(value).__name__}")
        except RecordProblem as problem:
            yield Row(number, str(place), {}, [Problem("row", str(problem.reason), problem.detail)], False)
            continue
        yield _row(number, str(value.get("id", place)), value, stage)


def _row(number: int, row_id: str, value: dict[str, Any], stage: Finetune) -> Row:
    image, found = value.get("image"), []
    if isinstance(image, list) and len(image) == 1:
        image = image[0]
    if image is not None and not isinstance(image, str):
        found.append(Problem("image", "image path", f"{json.dumps(value['image'])} is no path of one picture"[:300]))
    found += problems(value.get("conversations"), has_image=image is not None)
    entry: dict[str, Any] = {"id": row_id, "conversations": value.get("conversations")}
    if isinstance(image, str):
        entry["image"] = published_path(image, Path(stage.images)) if stage.image_paths == "published" else image
    return Row(number, row_id, entry, found, entry.get("image") != value.get("image"))


def published_path(image: str, folder: Path) -> str:
    """The path as the published program changes it: Visual Genome's folders are one, OCR's endings as found."""
    if "ocr" in image:
        if not (folder / image).exists():
            others = (str(Path(image).with_suffix(ending)) for ending in OTHER_ENDINGS)
            return next((other for other in others if (folder / other).exists()), image)
    elif "VG_100K" in image:
        return image.replace("VG_100K_2", "images").replace("VG_100K", "images")
    return image


def _bad_pictures(pictures: list[str], stage: Finetune, reading: Reading) -> dict[str, ImageProblem]:
    """Pictures that cannot be opened, and why; every one is decoded, once."""

    def problem_of(picture: str) -> ImageProblem | None:
        try:
            check_image(resolve(stage.images, picture), reading, decode=True)
        except ImageProblem as problem:
            return problem
        return None

    found = map_threads(problem_of, pictures, os.cpu_count() or 1)
    looked_at = zip(pictures, progress(found, len(pictures), "pictures of instructions"), strict=True)
    return {picture: problem for picture, problem in looked_at if problem is not None}


def _findings(row: Row, stage: Finetune, bad: dict[str, ImageProblem]) -> Iterator[Finding]:
    for problem in row.problems:
        if not (problem.published and stage.published_forms == "accept"):
            yield Finding(row.number, row.id, problem.key, stage.instructions, problem.reason, problem.detail)
    picture = row.entry.get("image")
    if picture in bad:
        why = bad[picture]
        yield Finding(row.number, row.id, "image", str(Path(stage.images, picture)), str(why.reason), why.detail)


def _remedy(findings: list[Finding]) -> str:
    published = any(finding.reason in PUBLISHED_REASONS for finding in findings)
    accept = f", or accept what the published program trains on ({KEY}.published_forms: accept)" if published else ""
    return f"Mend these rows and pictures{accept}, and run again"


def _refuse_too_few(file: str, rows: int, configuration: Configuration, name: str) -> None:
    """PreflightError when a recipe's stage 2 has fewer rows than one step takes."""
    for recipe in configuration.recipes:
        stage = recipe_training(configuration, recipe).finetune
        if instruction_set(stage, configuration) == name and rows < stage.global_batch:
            raise PreflightError(
                f"{file}: {rows} usable rows are fewer than one global batch of {stage.global_batch}, which recipe "
                f"`{recipe}` trains on at a time; lower {KEY}.global_batch"
            )

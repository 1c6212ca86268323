"""Write a world in the contest's file layout.

The same parameters give the same bytes on any number of workers. `world.json` is written last and says what
is there: a render that was killed is done again, one that was finished is not.
"""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from bettersynth.core.publish import read_json, sha256_file, write_json
from bettersynth.core.records import text_of
from miniature import questions
from miniature.defects import DEFECTS, IMAGE_RATES, TEXT_RATES, draw, sample_pair, truth
from miniature.faults import Fault, image_path, write_faults
from miniature.world import POOL_START, generator

VERSION = 2
"""To be raised whenever the same parameters give another world."""

MANIFEST = "world.json"
CHUNK = 1000  # records that a worker draws at a time
_STARTED = ".rendering"  # in the folder from the first byte to the last

TRUTH_SCHEMA = pa.schema(
    [("id", pa.string()), ("file", pa.string())]
    + [(defect, pa.bool_()) for defect in DEFECTS]
    + [("caption_right", pa.bool_())]
    + [(name, pa.string()) for name in ("match", "wrong", "ugly_kind", "twin_of", "caption", "right_caption")]
    + [(name, pa.list_(pa.string())) for name in ("colours", "shapes", "sizes", "places", "actions")]
    + [(name, pa.string()) for name in ("sign", "sign_place", "style")]
)
"""Columns of `truth.parquet`; see docs/miniature.md."""


class Chunk(NamedTuple):
    """What a worker hands back of its records, in order: lines of the files, rows of the truth."""

    lines: list[str]
    originals: list[str]
    truth: pa.Table
    images_sha256: str


def render_world(
    out: str | Path,
    records: int,
    seed: int = 0,
    *,
    second_records: int = 0,
    textvqa: int = 500,
    mmbench: int = 320,
    instructions: int = 2000,
    faults: bool = False,
    workers: int = 1,
) -> dict[str, Any]:
    """Write pool, truth, instruction set and questions under the folder `out`; return its manifest.

    `records` and `second_records` are the pairs of `mgm_pretrain_stage_1.jsonl` and `…_stage_2.jsonl`;
    `textvqa`, `mmbench` and `instructions` count questions and instruction records; `faults` mixes broken
    lines into the first file. A world that is there already with the same parameters stays as it is.

    Raises FileExistsError when `out` holds something that this function did not write.
    """
    out = Path(out)
    parameters = {
        "records": records,
        "second_records": second_records,
        "seed": seed,
        "textvqa": textvqa,
        "mmbench": mmbench,
        "instructions": instructions,
        "faults": faults,
        "rates": TEXT_RATES | IMAGE_RATES,
    }
    if (out / MANIFEST).is_file():
        manifest = read_json(out / MANIFEST)
        if manifest["version"] == VERSION and manifest["parameters"] == parameters:
            return manifest
    _empty(out)
    counts, images_sha256 = _write_pool(out, records, second_records, seed, faults, workers)
    counts["instructions"] = _write_instructions(out / "finetune", seed, instructions)
    counts["textvqa_questions"] = _write_textvqa(out / "textvqa", seed, textvqa)
    counts["mmbench_rows"] = _write_mmbench(out / "mmbench", seed, mmbench)
    files = sorted(path for path in out.rglob("*") if path.suffix in (".json", ".jsonl", ".parquet", ".tsv"))
    manifest = {
        "version": VERSION,
        "parameters": parameters,
        "counts": counts,
        "pool_images_sha256": images_sha256,
        "files": {path.relative_to(out).as_posix(): sha256_file(path) for path in files},
    }
    write_json(out / MANIFEST, manifest)
    (out / _STARTED).unlink()
    return manifest


def _empty(out: Path) -> None:
    """Make `out` an empty folder, provided that an earlier render made it."""
    ours = (out / MANIFEST).is_file() or (out / _STARTED).is_file()
    if out.exists() and any(out.iterdir()) and not ours:
        raise FileExistsError(f"{out} holds files of other origin; choose an empty folder with --out")
    if out.exists():
        (out / _STARTED).touch()
        (out / MANIFEST).unlink(missing_ok=True)
        for path in out.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _STARTED:
                path.unlink()
    out.mkdir(parents=True, exist_ok=True)
    (out / _STARTED).touch()


# --- the pool ------------------------------------------------------------------------------------


def _write_pool(
    out: Path, records: int, second_records: int, seed: int, faults: bool, workers: int
) -> tuple[dict[str, int], str]:
    """Write raw files, restore files, truth and images; return the counts and the images' digest."""
    counts: Counter[str] = Counter()
    digest = hashlib.sha256()
    ranges = {"stage_1": (0, records), "stage_2": (records, records + second_records)}
    broken = write_faults(out, seed, existing=_identity(0)) if faults else []
    with (
        pq.ParquetWriter(out / "truth.parquet", TRUTH_SCHEMA, compression="zstd") as truth_writer,
        tqdm(total=records + second_records, unit=" records", mininterval=1) as bar,
    ):
        for name, (start, stop) in ranges.items():
            if start == stop:
                continue
            with (
                (out / f"mgm_pretrain_{name}.jsonl").open("wb") as pool,
                (out / f"{name}.json").open("w", encoding="utf-8") as restore,
            ):
                restore.write("[")
                for number, chunk in enumerate(_chunks(out, name, seed, start, stop, workers)):
                    pool.write("".join(chunk.lines).encode())
                    restore.write(",\n" * (number > 0) + ",\n".join(chunk.originals))
                    truth_writer.write_table(chunk.truth)
                    digest.update(chunk.images_sha256.encode())
                    counts.update(_count(chunk.truth))
                    bar.update(len(chunk.lines))
                if name == "stage_1":
                    restore.writelines(f",\n{original}" for original in _originals(broken, seed))
                restore.write("]\n")
    if broken:
        _insert(out / "mgm_pretrain_stage_1.jsonl", broken, seed)
        counts["faults"] = len(broken)
    return dict(counts), digest.hexdigest()


def _chunks(out: Path, name: str, seed: int, start: int, stop: int, workers: int) -> Iterator[Chunk]:
    """The chunks of a raw file in order, drawn by `workers` processes."""
    bounds = [(first, min(first + CHUNK, stop)) for first in range(start, stop, CHUNK)]
    task = partial(_render_chunk, out, name, seed)
    if workers == 1:
        yield from map(task, bounds)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as executor:
        yield from executor.map(task, bounds)


def _render_chunk(out: Path, name: str, seed: int, bounds: tuple[int, int]) -> Chunk:
    """Draw the images of the pairs `bounds[0]` up to `bounds[1]`, and make their lines."""
    lines, originals, rows, digest = [], [], [], hashlib.sha256()
    for index in range(*bounds):
        pair, identity = sample_pair(seed, POOL_START + index), _identity(index)
        path = image_path(identity)
        content = questions.jpeg(draw(pair, seed))
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(content)
        digest.update(content)
        record = {"id": identity, "text": text_of(pair.caption), "images": [path]}
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
        originals.append(json.dumps(_original(identity, path, pair.caption, seed), ensure_ascii=False))
        twin = None if pair.twin_of is None else _identity(pair.twin_of)
        rows.append({"id": identity, "file": name, "twin_of": twin, **truth(pair)})
    return Chunk(lines, originals, pa.Table.from_pylist(rows, TRUTH_SCHEMA), digest.hexdigest())


def _identity(index: int) -> str:
    return f"{index:09d}"


def _original(identity: str, path: str, caption: str, seed: int) -> dict[str, Any]:
    """The record in LLaVA's form, with one of the questions that captions were asked for with."""
    dice = generator(seed, int(identity), "question")
    question = dice.choice(questions.CAPTION_REQUESTS)
    asked = dice.choice((f"{question}\n<image>", f"<image>\n{question}"))
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": caption}]
    return {"id": identity, "image": path, "conversations": turns}


def _originals(faults: list[Fault], seed: int) -> list[str]:
    """Restore records of the faults that have an id of their own: the kit's file knows every record."""
    own = {f"{int(fault.id):09d}" for fault in faults if fault.id is not None and fault.kind != "duplicate_id"}
    return [json.dumps(_original(identity, image_path(identity), "a red circle", seed)) for identity in sorted(own)]


def _count(table: pa.Table) -> dict[str, int]:
    """How many records a piece of the truth has, and how many of each defect."""
    flags = {flag: table[flag].to_pylist() for flag in (*DEFECTS, "caption_right")}
    spoilt = map(any, zip(*(flags[defect] for defect in DEFECTS), strict=True))
    counts = {flag: sum(values) for flag, values in flags.items()}
    return {"records": table.num_rows, "clean": table.num_rows - sum(spoilt), **counts}


def _insert(path: Path, broken: list[Fault], seed: int) -> None:
    """Mix faults into a raw file, the last of them at its end, and list them in `faults.json`."""
    lines = path.read_bytes().splitlines(keepends=True)
    dice = generator(seed, len(lines), "faults")
    *middle, last = broken
    places = sorted(dice.randrange(1, len(lines) + 1) for _ in middle)
    for place, fault in reversed(list(zip(places, middle, strict=True))):
        lines.insert(place, fault.line)
    lines.append(last.line)
    path.write_bytes(b"".join(lines))
    listed = [
        {"kind": fault.kind, "id": fault.id, "line": place + number + 1}
        for number, (place, fault) in enumerate(zip([*places, len(lines) - len(broken)], broken, strict=True))
    ]
    write_json(path.parent / "faults.json", listed)


# --- questions and instructions ------------------------------------------------------------------


def _write_instructions(folder: Path, seed: int, count: int) -> int:
    """Write stage 2's instruction set, its image paths relative to `folder`."""
    records = []
    for number in range(count):
        record, image = questions.instruction(seed, number)
        records.append(record)
        if image:
            path = folder / record["image"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(questions.jpeg(image))
    folder.mkdir(exist_ok=True)
    write_json(folder / "mgm_instruction_stage_1.json", records, indent=None)
    return len(records)


def _write_textvqa(folder: Path, seed: int, count: int) -> int:
    rows, annotations, images = questions.textvqa(seed, count)
    (folder / "train_images").mkdir(parents=True)
    for name, content in images.items():
        (folder / "train_images" / name).write_bytes(content)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "llava_textvqa_val_v051_ocr.jsonl").write_text(lines, encoding="utf-8")
    head = {"dataset_type": "val", "dataset_name": "TextVQA", "dataset_version": "0.5.1"}
    write_json(folder / "TextVQA_0.5.1_val.json", {**head, "data": annotations}, indent=None)
    return len(rows)


def _write_mmbench(folder: Path, seed: int, count: int) -> int:
    rows = questions.mmbench(seed, count)
    folder.mkdir()
    with (folder / "mmbench_dev_20230712.tsv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, questions.MMBENCH_COLUMNS, delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return len(rows)

"""One corruption of every kind of file that a run makes, and of what a person might do to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Corruption(NamedTuple):
    """What is done to the first file of a results folder that a pattern names."""

    kind: str
    pattern: str
    harm: Callable[[Path], None]

    def file(self, results: Path) -> Path | None:
        """The file; None where the run has none of the kind."""
        found = sorted(path for path in results.glob(self.pattern) if path.is_file() and path.stat().st_size > 4)
        return max(found, key=lambda path: path.stat().st_size, default=None)


def flip(path: Path) -> None:
    """One bit in the middle, in place."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    _in_place(path, bytes(content))


def renumber(path: Path) -> None:
    """Another number in what stays sound JSON, as a person edits it."""
    text = path.read_text(encoding="utf-8")
    places = list(re.finditer(r"(?<=[:\s\[])\d+(?:\.\d+)?(?=[,\s\]}])", text))
    match = places[len(places) // 2]
    changed = text[: match.start()] + ("7" if match[0] != "7" else "8") + text[match.end() :]
    _in_place(path, changed.encode())


def reword(path: Path) -> None:
    """Another letter in a word."""
    text = path.read_text(encoding="utf-8")
    places = [match.start() for match in re.finditer(r"(?<=[a-z])[a-z](?=[a-z])", text)]
    place = places[len(places) // 2]
    _in_place(path, (text[:place] + ("x" if text[place] != "x" else "y") + text[place + 1 :]).encode())


def lose_a_line(path: Path) -> None:
    """The last line."""
    lines = path.read_bytes().splitlines(keepends=True)
    _in_place(path, b"".join(lines[:-1]))


def lose_an_entry(path: Path) -> None:
    """The last entry of a JSON list."""
    _in_place(path, json.dumps(json.loads(path.read_text(encoding="utf-8"))[:-1]).encode())


def empty(path: Path) -> None:
    """As a power cut leaves a file."""
    _in_place(path, b"")


def remove(path: Path) -> None:
    """Delete it."""
    path.unlink()


def _in_place(path: Path, content: bytes) -> None:
    """Written over it, as tools do that publish nothing; a second name of the file keeps what it had."""
    path.unlink()
    path.write_bytes(content)


CORRUPTIONS = [
    Corruption("claim", "configuration.json", empty),
    Corruption("digests of raw files", "pool/digests.json", reword),
    Corruption("looks at pictures", "pool/images.json", reword),
    Corruption("identities of models", "models.json", reword),
    Corruption("digests of inputs", "inputs.json", reword),
    Corruption("ledger of a raw file", "pool/files/*.json", renumber),
    Corruption("order of a raw file", "pool/files/*.order.parquet", flip),
    Corruption("pictures of a raw file", "pool/files/*.images.parquet", flip),
    Corruption("quarantine", "pool/files/*.quarantine.jsonl", lose_a_line),
    Corruption("quarantine, reworded", "pool/files/*.quarantine.jsonl", reword),
    Corruption("records of the pool", "pool/records/*.parquet", flip),
    Corruption("records of the pool, gone", "pool/records/*.parquet", remove),
    Corruption("index", "pool/index.parquet", flip),
    Corruption("card of the index", "pool/index.json", renumber),
    Corruption("definition of a pass", "scores/passes/*.json", reword),
    Corruption("card of a pass", "scores/pool/passes/*/*.json", renumber),
    Corruption("scores of a shard", "scores/pool/*/*-*.parquet", flip),
    Corruption("scores of a shard, gone", "scores/pool/*/*-*.parquet", remove),
    Corruption("card of a shard's scores", "scores/pool/*/*-*.json", renumber),
    Corruption("gathered scores", "scores/pool/*.parquet", flip),
    Corruption("card of gathered scores", "scores/pool/*.json", renumber),
    Corruption("journal of a generator", "sources/*/.work/*.jsonl", reword),
    Corruption("generated records", "sources/*/records/*-0000.parquet", flip),
    Corruption("generated records' card", "sources/*/records/*-0000.json", renumber),
    Corruption("rows that failed", "sources/*/records/*.failed.parquet", flip),
    Corruption("drawn picture", "sources/*/images/*/*.png", flip),
    Corruption("scores of generated records", "scores/[!p]*/*/*-*.parquet", flip),
    Corruption("rows of a dataset", "datasets/*/rows.parquet", flip),
    Corruption("rows that a dataset dropped", "datasets/*/dropped.parquet", flip),
    Corruption("card of a dataset", "datasets/*/card.json", renumber),
    Corruption("analysis", "analyses/*.json", renumber),
    Corruption("exported file", "exports/*/*/*.jsonl", lose_a_line),
    Corruption("exported archive", "exports/*/*/*.tar", flip),
    Corruption("card of an export", "exports/*/*/card.json", renumber),
    Corruption("held-out pairs", "held_out/pairs.json", lose_an_entry),
    Corruption("card of the held-out pairs", "held_out/card.json", renumber),
    Corruption("training file", "trainsets/*[!d].json", lose_an_entry),
    Corruption("training file, a caption", "trainsets/*[!d].json", reword),
    Corruption("card of a training file", "trainsets/*.card.json", renumber),
    Corruption("rows that the cap left out", "trainsets/*.dropped.parquet", flip),
    Corruption("instructions in use", "instructions/*[0-9a-f].json", lose_an_entry),
    Corruption("card of the instructions", "instructions/*.card.json", renumber),
    Corruption("what stage 1 waits for", "instructions/*.preflight.json", renumber),
    Corruption("what stage 2 waits for", "instructions/*.used.json", reword),
    Corruption("card of a benchmark's questions", "benchmarks/*.json", renumber),
    Corruption("card of a probe", "runs/*/*/probe/card.json", renumber),
    Corruption("choice of seeds", "runs/*/seeds.json", renumber),
    Corruption("card of stage 1", "runs/*/*/pretrain/card.json", renumber),
    Corruption("connector", "runs/*/*/pretrain/connector.safetensors", flip),
    Corruption("log of stage 1", "runs/*/*/pretrain/log.jsonl", lose_a_line),
    Corruption("copy of a stage's card", "runs/*/*/pretrain/done.json", renumber),
    Corruption("weights", "runs/*/*/finetune/checkpoint/model.safetensors", flip),
    Corruption("model's configuration", "runs/*/*/finetune/checkpoint/config.json", renumber),
    Corruption("model's card", "runs/*/*/finetune/checkpoint/README.md", reword),
    Corruption("card of stage 2", "runs/*/*/finetune/card.json", renumber),
    Corruption("answers", "runs/*/*/evaluation/textvqa/answers.jsonl", reword),
    Corruption("answers, one lost", "runs/*/*/evaluation/mmbench/answers.jsonl", lose_a_line),
    Corruption("card of answers", "runs/*/*/evaluation/*/card.json", renumber),
    Corruption("copy of the answers' card", "runs/*/*/evaluation/*/done.json", renumber),
    Corruption("result", "runs/*/*/evaluation/*/result.json", renumber),
    Corruption("leaderboard", "report/leaderboard.json", renumber),
    Corruption("leaderboard as a table", "report/leaderboard.csv", reword),
    Corruption("early losses", "report/early_loss.json", renumber),
    Corruption("page", "report/index.html", reword),
    Corruption("history of boards", "report/history.jsonl", reword),
    Corruption("configuration of the report", "report/configuration.yaml", reword),
    Corruption("card of the report", "report/card.json", reword),
]

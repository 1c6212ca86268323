"""The explorer's page: everything in one file, which asks for nothing from anywhere.

Numbers, texts and pictures travel as deflated arrays in base64, each in a data block of its own, so that what is not
looked at is not unpacked. What the data say reaches the page as text alone: the page's policy runs one script, by its
digest, and lets nothing be loaded.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bettersynth.core.publish import publish
from bettersynth.core.records import POOL
from bettersynth.datasets.values import plain
from bettersynth.report.explorer.codes import NO_VALUE, NOT_A_NUMBER, NOT_SCORED
from bettersynth.report.explorer.contents import Contents, Score
from bettersynth.workflow.run import Run

HERE = Path(__file__).parent
STYLES = (HERE.parent / "style.css", HERE / "explorer.css")
SCRIPTS = ("unpack", "rows", "scales", "histogram", "scatter", "sheets", "search", "state", "page")
"""Parts of the page's one script, in order."""
PICTURES = 1_200
"""Pairs of the pool with a picture in the page, unless said otherwise."""


class Blocks:
    """Data blocks of the page: arrays by their numbers."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, data: np.ndarray | bytes) -> int:
        """Pack an array, or bytes, and return its number."""
        raw = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
        self.texts.append(base64.b64encode(zlib.compress(raw, 9)).decode())
        return len(self.texts) - 1

    def add_texts(self, texts: Iterable[str]) -> int:
        """Pack texts, one after the other; a NUL ends each."""
        joined = "".join(f"{text.replace(chr(0), chr(0xFFFD))}\0" for text in texts)
        return self.add(joined.encode("utf-8", "replace"))


class Explorer:
    """The explorer of a run: what its page holds, packed once. Raises ValueError for stale scores or rows."""

    def __init__(self, run: Run, pictures: int = PICTURES) -> None:
        self.run = run
        self.contents = Contents(run, pictures)
        self.blocks = Blocks()
        self.meta = page_meta(self.contents, self.blocks)

    def write(self) -> Path:
        """Publish the page as one file, and return its path."""
        with publish(self.run.layout.explorer) as temporary:
            temporary.write_text(self.page(), encoding="utf-8")
        return self.run.layout.explorer

    def page(self, *, served: bool = False) -> str:
        """The page's text; `served`: whether a server stands behind it, which shows every picture."""
        script = "\n".join((HERE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
        script = f'"use strict";\n{{\n{script}\n}}\n'
        style = "".join(path.read_text(encoding="utf-8") for path in STYLES)
        images = "'self' blob: data:" if served else "blob: data:"
        policy = (
            f"default-src 'none'; script-src 'sha256-{_digest(script)}'; style-src 'sha256-{_digest(style)}'; "
            f"img-src {images}; base-uri 'none'; form-action 'none'"
        )
        template = _environment().get_template("page.html.j2")
        return template.render(
            policy=policy,
            script=Markup(script),
            style=Markup(style),
            meta=Markup(_json(self.meta | {"served": served})),
            blocks=self.blocks.texts,
            configuration=self.meta["configuration"],
            title=self.meta["title"],
        )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(value: Any) -> str:
    """JSON for a data block: no text in it can end the block."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def page_meta(contents: Contents, blocks: Blocks) -> dict[str, Any]:
    """What the page's script reads first; arrays are named by the numbers of their blocks."""
    configuration = contents.run.configuration
    scores = [_score(score, contents, blocks) for score in contents.scores]
    album, shown = contents.album()
    lengths = np.array([len(data) for data in album.thumbnails], np.uint32)
    return {
        "configuration": configuration.name,
        "title": configuration.report.title,
        "rows": contents.records.num_rows,
        "sources": [
            {"name": name, "start": contents.starts[name], "rows": rows.num_rows, "from": _parent(name, contents)}
            for name, rows in contents.sources.items()
        ],
        "codes": {"not_scored": NOT_SCORED, "not_a_number": NOT_A_NUMBER, "no_value": NO_VALUE},
        "scores": scores,
        "datasets": [
            facts | {"members": None if counts is None else _members(counts, blocks)}
            for facts, counts in contents.datasets()
        ],
        "unscored": contents.unscored,
        "ids": blocks.add_texts(contents.records["id"].to_pylist()),
        "captions": blocks.add_texts(contents.captions),
        "origins": blocks.add(contents.origins),
        "pictures": {
            "rows": blocks.add(np.array(contents.sample, np.uint32)),
            "places": blocks.add(np.array(shown, np.uint32)),
            "lengths": blocks.add(lengths),
            "data": blocks.add(b"".join(album.thumbnails)),
            "problems": {str(place): problem for place, problem in album.problems.items()},
        },
    }


def _parent(source: str, contents: Contents) -> str | None:
    return None if source == POOL else contents.run.plan.dataset(source).from_


def _members(counts: np.ndarray, blocks: Blocks) -> dict[str, int]:
    """How often each row is in a dataset, in one byte each, or two."""
    width = 1 if counts.max(initial=0) < 256 else 2
    return {"width": width, "block": blocks.add(counts.astype(f"uint{8 * width}"))}


def _score(score: Score, contents: Contents, blocks: Blocks) -> dict[str, Any]:
    coded, values = score.coded, score.column.values
    known = values.flat[np.isfinite(values.flat)] if values.numeric else np.empty(0)
    facts: dict[str, Any] = {
        "key": str(score.column.key),
        "stat": values.label,
        "words": coded.words,
        "complete": coded.complete,
        "everywhere": bool(score.scored.all()),
        "whole": bool(len(known)) and bool(np.all(known == np.round(known))),
        "bounds": [plain(bound) for bound in score.bounds],
        "edges": blocks.add(coded.edges),
        "first": blocks.add(coded.first),
        "several": blocks.add(coded.several) if len(coded.several) else None,
    }
    if len(coded.several):
        facts |= {"lengths": blocks.add(coded.lengths), "others": blocks.add(coded.others)}
    if not coded.complete:  # of the pairs with a picture, the scores themselves
        sample = np.array(contents.sample)
        there = values.counts[sample] > 0
        exact = np.full(len(sample), np.nan)
        exact[there] = values.flat[values.starts[:-1][sample[there]]]
        facts["exact"] = blocks.add(exact)
    return facts

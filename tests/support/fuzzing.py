"""Hostile inputs by the thousand: sound ones, changed at random, and what a reader may do with them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

CASES = Path(__file__).resolve().parents[1] / "faults" / "cases"
"""Inputs that failed once, by reader, made small."""
TOKENS = [
    *(b"\0", b"\n", b"\r\n", b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\\ud800", b"\\u0000"),
    *(b'"', b"\\", b"\t", b" ", b"[" * 2000, b"x" * 3000, b"!!python/object/apply:os.system [x]", b"&a *a"),
    *(b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"NaN", b"1e999", b"-1", b"9" * 30, b'""', b"[]", b"{}"),
    *(b"../", b"/etc/passwd", b"http://127.0.0.1:9/x", b"file:///etc/passwd", b"zip://a::b"),
    *(b"<image>", b"<__dj__image>", b"<eos>", b"<|__dj__eoc|>"),
]  # fmt: skip
MOST_MEGABYTES = 1500
"""By which a process may grow over all its inputs."""


def inputs_wanted(share: float, quick: int) -> int:
    """How many inputs a reader gets: its share of what `make test-faults` asks for, or a few."""
    whole = int(os.environ.get("FAULTS_INPUTS", "0"))
    return round(whole * share) or quick


def changed(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """The bytes with one to four changes: bits, numbers, cuts, repetitions, tokens, pieces of other inputs."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        place = chance.randrange(len(made) + 1)
        length = chance.choice((1, 1, 2, 4, 16, len(made) // 4 + 1))
        match chance.randrange(7):
            case 0 if made:
                made[place % len(made)] ^= 1 << chance.randrange(8)
            case 1 if made:
                made[place % len(made)] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
            case 2:
                del made[place : place + length]
            case 3:
                made[place:place] = made[place : place + length]
            case 4:
                made[place : place + chance.choice((0, length))] = chance.choice(TOKENS)
            case 5:
                other = chance.choice(seeds)
                start = chance.randrange(len(other) + 1)
                made[place : place + length] = other[start : start + length]
            case _:
                del made[chance.choice((place, place, len(made) - 1)) :]
    return bytes(made)


class Guard:
    """What this process must never do while it reads: connect, load a pickle, start a program, write elsewhere."""

    FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "pickle.find_class", "subprocess.Popen", "os.system")

    def __init__(self) -> None:
        self.place: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.place is None:
            return
        if event in self.FORBIDDEN:
            self.seen.append(f"{event} {arguments}"[:300])
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            path = arguments[0]
            if not isinstance(path, int) and not str(Path(os.fsdecode(path)).absolute()).startswith(self.place):
                self.seen.append(f"wrote {os.fsdecode(path)}")

    @contextlib.contextmanager
    def watching(self, place: Path) -> Iterator[None]:
        """Files below `place` may be written."""
        self.place, self.seen = str(place), []
        try:
            yield
        finally:
            self.place = None
        assert self.seen == [], self.seen


GUARD = Guard()
Read = Callable[[bytes], object]


def fuzz(name: str, seeds: Sequence[bytes], read: Read, place: Path, *, share: float, quick: int) -> int:
    """Give a reader its kept cases, then changed seeds; an input that fails is made small and kept. How many it got.

    `read` returns, or raises what a sentence for a person is; AssertionError tells of one that should not have passed.
    """
    kept = sorted((CASES / name).glob("*")) if (CASES / name).exists() else []
    chance, wanted = random.Random(f"{name} {os.environ.get('FAULTS_SEED', 0)}"), inputs_wanted(share, quick)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with GUARD.watching(place):
        for path in kept:
            read(path.read_bytes())
        for seed in seeds:
            read(seed)
        for _ in range(wanted):
            data = changed(chance.choice(seeds), seeds, chance)
            try:
                read(data)
            except Exception as error:
                small = _smaller(data, read, type(error))
                path = _keep(name, small)
                what = f"{name}: {type(error).__name__}: {error}"
                raise AssertionError(f"{what}; kept as {path}: {small[:300]!r}") from error
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MOST_MEGABYTES, f"{name}: {grown:.0f} MB more memory"
    return len(kept) + len(seeds) + wanted


def _smaller(data: bytes, read: Read, kind: type[Exception]) -> bytes:
    """An input that fails in the same way, of which nothing can be left out; for some seconds."""
    until, step = time.monotonic() + 10, max(len(data) // 2, 1)
    while time.monotonic() < until:
        for start in range(0, len(data), step):
            shorter = data[:start] + data[start + step :]
            try:
                read(shorter)
            except kind:
                data = shorter
                break
            except Exception:
                continue
        else:
            if step == 1:
                break
            step //= 2
    return data


def _keep(name: str, data: bytes) -> Path:
    path = CASES / name / hashlib.sha256(data).hexdigest()[:12]
    GUARD.place = None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path

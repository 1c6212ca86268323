"""Pairs to measure speed on: noisy JPEGs of 448 by 336 pixels, no smaller as files than the contest's photographs."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bettersynth.records import Record, text_of


def make_pairs(folder: Path, pairs: int, different: int) -> list[Record]:
    """Records whose images, `different` files in turn, are drawn in `folder`."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number}.jpg" for number in range(min(different, pairs))]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_draw, paths, range(len(paths)), chunksize=16))
    return [
        Record(f"{number:07}", text_of("a red car in front of an old house"), [paths[number % len(paths)].name])
        for number in range(pairs)
    ]


def _draw(path: Path, seed: int) -> None:
    import numpy as np
    from PIL import Image

    chance = np.random.default_rng(seed)
    coarse = Image.fromarray(chance.integers(0, 256, (6, 8, 3), np.uint8)).resize((448, 336), Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse, np.float32) + chance.normal(0, 12, (336, 448, 3))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)

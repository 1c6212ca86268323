"""Photographs to measure speed on: noisy JPEGs of 448 by 336 pixels, no smaller as files than the contest's."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path


def draw_photographs(folder: Path, number: int) -> list[Path]:
    """Draw `0.jpg`, `1.jpg` … in the new `folder`, all different."""
    folder.mkdir(parents=True)
    paths = [folder / f"{name}.jpg" for name in range(number)]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_draw, paths, range(number), chunksize=16))
    return paths


def _draw(path: Path, seed: int) -> None:
    import numpy as np
    from PIL import Image

    chance = np.random.default_rng(seed)
    coarse = Image.fromarray(chance.integers(0, 256, (6, 8, 3), np.uint8)).resize((448, 336), Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse, np.float32) + chance.normal(0, 12, (336, 448, 3))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)

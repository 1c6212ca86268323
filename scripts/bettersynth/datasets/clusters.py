"""Samples that are spread over clusters of like rows: k-means by cosine over vectors of bytes.

Vectors and centres hold whole numbers of at most 127, and dot products of up to 1,040 of those are exact in single
precision. So nothing depends on the order in which a machine adds, and the same vectors give the same clusters
everywhere.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.core.progress import progress
from bettersynth.core.vectors import LARGEST, Vectors, as_bytes

MOST_DIMENSIONS = 2**24 // LARGEST**2
"""Products of bytes that single precision adds up exactly."""
ROUNDS = 25
POINTS_PER_CLUSTER = 256
"""Rows that a centre is fitted to, on average; more hardly move it."""
CANDIDATES_PER_CLUSTER = 32
"""Rows that the first centres are chosen from."""
CHUNK = 8192

Places = npt.NDArray[np.int64]


def as_matrix(vectors: pa.ChunkedArray, rows: int) -> Vectors:
    """(rows, dimensions), from lists of one length. Raises ValueError when they are too long to be exact."""
    flat = np.concatenate([chunk.flatten().to_numpy() for chunk in vectors.chunks])
    matrix = flat.reshape(rows, -1)
    if matrix.shape[1] > MOST_DIMENSIONS:
        raise ValueError(f"vectors of {matrix.shape[1]} dimensions; clusters are exact up to {MOST_DIMENSIONS}")
    return matrix


def fit(vectors: Vectors, count: int, seed: int) -> Vectors:
    """Centres (count, dimensions) by Lloyd's algorithm with the cosine; the vectors are in random order."""
    centres = vectors[far_apart(vectors[: CANDIDATES_PER_CLUSTER * count], count, seed)]
    before = np.full(len(vectors), -1)
    for _ in progress(range(ROUNDS), ROUNDS, "rounds of k-means"):
        labels, _ = nearest(vectors, centres)
        if np.array_equal(labels, before):
            break
        order = np.argsort(labels, kind="stable")
        present, starts = np.unique(labels[order], return_index=True)
        centres = centres.copy()  # of a cluster that lost all its vectors the centre stays
        centres[present] = as_bytes(np.add.reduceat(vectors[order].astype(np.int64), starts))
        before = labels
    return centres


def far_apart(vectors: Vectors, count: int, seed: int) -> list[int]:
    """Places of vectors to begin with (k-means++, Arthur and Vassilvitskii 2007).

    Each is drawn with a chance that grows with its distance, 1 - cosine, from those drawn before it.
    """
    chance = random.Random(seed)
    places = [0]
    distances = np.full(len(vectors), np.inf)
    while len(places) < count:
        distances = np.minimum(distances, 1 - nearest(vectors, vectors[places[-1:]])[1])
        heights = np.cumsum(np.maximum(distances, np.finfo(float).tiny))
        places.append(int(np.searchsorted(heights, chance.random() * heights[-1])))
    return places


def nearest(vectors: Vectors, centres: Vectors) -> tuple[Places, npt.NDArray[np.float64]]:
    """For each vector the centre of the largest cosine (the first of equal ones), and that cosine."""
    transposed, lengths = centres.T.astype(np.float32), _lengths(centres)
    labels, cosines = np.empty(len(vectors), np.int64), np.empty(len(vectors))
    for start in range(0, len(vectors), CHUNK):
        chunk = vectors[start : start + CHUNK]
        products = (chunk.astype(np.float32) @ transposed).astype(np.float64) / lengths
        best = products.argmax(axis=1)
        labels[start : start + CHUNK] = best
        cosines[start : start + CHUNK] = products[np.arange(len(chunk)), best] / _lengths(chunk)
    return labels, cosines


def _lengths(vectors: Vectors) -> npt.NDArray[np.float64]:
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.int64)
    return np.sqrt(np.maximum(squares, 1))


def evenly(total: int, sizes: Sequence[int]) -> list[int]:
    """`total` shared out so that each gets as many as any other, or all it has; `total` is at most their sum."""
    most = np.array(sizes)
    quotas = np.zeros(len(sizes), np.int64)
    while left := total - int(quotas.sum()):
        wanting = np.flatnonzero(quotas < most)
        if left < len(wanting):
            quotas[wanting[:left]] += 1
        else:
            quotas[wanting] += np.minimum(left // len(wanting), (most - quotas)[wanting])
    return quotas.tolist()


def in_proportion(total: int, weights: Sequence[float]) -> list[int]:
    """`total` shared out by weight, in whole numbers: those nearest to one more get what rounding down leaves."""
    exact = total * np.array(weights) / sum(weights)
    quotas = np.floor(exact).astype(np.int64)
    rest = np.argsort(quotas - exact, kind="stable")[: total - quotas.sum()]
    quotas[rest] += 1
    return quotas.tolist()


def by_distance(places: Places, quota: int, cosines: npt.NDArray[np.float64], shares: Sequence[float]) -> Places:
    """`quota` of one cluster's places, by these shares from its nearest, middle and farthest third; a third that is too
    small is made up for by the others."""
    thirds = np.array_split(np.argsort(-cosines[places], kind="stable"), 3)
    wanted = in_proportion(quota, shares)
    taken = np.zeros(len(places), bool)
    for third, number in zip(thirds, wanted, strict=True):
        taken[np.sort(third)[:number]] = True  # `places` are at random already
    taken[np.flatnonzero(~taken)[: quota - taken.sum()]] = True
    return places[taken]

"""Equal and near-equal captions and images. Of each group the first row stays.

A near-duplicate is near to a row that stays (not merely to another near-duplicate), so nothing goes by a chain.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import chain, combinations, pairwise

import numpy as np
import numpy.typing as npt

from bettersynth.core.progress import progress
from bettersynth.core.words import words

SHINGLE_WORDS = 3
PERMUTATIONS = 128
MISSED = 0.01
HASH_BITS = 64


Twins = dict[int, int]
"""Places of what goes, each with the place of the one that stays which it is a duplicate of."""


def equal(keys: Iterable[Hashable]) -> Twins:
    """Keys that were there before."""
    first: dict[Hashable, int] = {}
    return {place: first[key] for place, key in enumerate(keys) if first.setdefault(key, place) != place}


def shingles(caption: str) -> frozenset[str]:
    """The caption's runs of three words (`core.words`) in lower case; the whole caption when it has fewer."""
    found = words(caption.lower())
    last = max(1, len(found) - SHINGLE_WORDS + 1)
    return frozenset(" ".join(found[start : start + SHINGLE_WORDS]) for start in range(last))


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Shared shingles among all shingles of both."""
    return len(first & second) / len(first | second)


def near_texts(captions: Sequence[str], similarity: float) -> Twins:
    """Captions that are near to an earlier one that stays, or equal to it: MinHash proposes, the true Jaccard
    similarity decides.

    Of pairs just at `similarity` fewer than one in a hundred are not proposed, and ever fewer above. datasketch's own
    MinHashLSH would need some 3 GB for the contest's pool, these buckets need 0.1 GB.
    """
    near: Twins = {}
    seen: dict[int, list[int]] = defaultdict(list)
    for place, buckets in enumerate(_shared_buckets(captions, similarity)):
        mine = shingles(captions[place])
        earlier = dict.fromkeys(other for bucket in buckets for other in seen[bucket])
        twin = next((one for one in earlier if jaccard(mine, shingles(captions[one])) >= similarity), None)
        if twin is not None:
            near[place] = twin
        else:
            for bucket in buckets:
                seen[bucket].append(place)
    return near


def _shared_buckets(captions: Sequence[str], similarity: float) -> Iterator[list[int]]:
    """For each caption the numbers of its LSH buckets, those left out that hold no other caption."""
    from datasketch import MinHash

    rows = _rows_per_band(similarity)
    bands = PERMUTATIONS // rows
    weights = np.random.RandomState(0).randint(1, 2**63, rows, dtype=np.uint64)
    sets = ([shingle.encode() for shingle in sorted(shingles(caption))] for caption in captions)
    sketches = progress(MinHash.generator(sets, num_perm=PERMUTATIONS), len(captions), "captions sketched")
    keys = np.empty((len(captions), bands), np.uint64)
    for place, sketch in enumerate(sketches):
        keys[place] = sketch.hashvalues[: bands * rows].reshape(bands, rows) @ weights  # modulo 2**64
    keys += np.arange(bands, dtype=np.uint64)
    _, numbers, counts = np.unique(keys, return_inverse=True, return_counts=True)
    for row in numbers.reshape(keys.shape):
        yield row[counts[row] > 1].tolist()


def _rows_per_band(similarity: float) -> int:
    """Most MinHash rows in a band at which a pair of this similarity meets in some band 99 times of 100."""
    fitting = [
        rows for rows in range(1, PERMUTATIONS + 1) if (1 - similarity**rows) ** (PERMUTATIONS // rows) <= MISSED
    ]
    return max(fitting, default=1)


def near_images(hashes: Sequence[tuple[int, ...]], distance: int) -> Twins:
    """Rows of which every image's perceptual hash is within `distance` bits of the same image's of an earlier row that
    stays. A row has a tuple of hashes."""
    values, numbers = np.unique(np.array([images[0] for images in hashes], np.uint64), return_inverse=True)
    others = _near_values(values, distance)
    seen: dict[int, list[int]] = defaultdict(list)
    near: Twins = {}
    for place, (images, number) in enumerate(zip(hashes, numbers.tolist(), strict=True)):
        earlier = chain.from_iterable(seen[value] for value in (number, *others[number]) if value in seen)
        twin = next((one for one in earlier if _within(images, hashes[one], distance)), None)
        if twin is not None:
            near[place] = twin
        else:
            seen[number].append(place)
    return near


def _near_values(values: npt.NDArray[np.uint64], distance: int) -> dict[int, list[int]]:
    """For each of the distinct hashes the numbers of the others within `distance`.

    Of `distance` + 2 bands two hashes that differ in at most `distance` bits share two at least; only hashes that do
    are compared.
    """
    edges = np.linspace(0, HASH_BITS, distance + 3).astype(int).tolist()
    masks = [((1 << (high - low)) - 1) << low for low, high in pairwise(edges)]
    found: dict[int, set[int]] = defaultdict(set)
    pairs = list(combinations(masks, 2))
    for first, second in progress(pairs, len(pairs), "pairs of bands compared"):
        keys = values & np.uint64(first | second)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        for step in range(1, len(keys)):
            same = np.flatnonzero(keys[step:] == keys[:-step])
            if not len(same):
                break
            one, other = order[same], order[same + step]
            near = np.bitwise_count(values[one] ^ values[other]) <= distance
            for left, right in zip(one[near].tolist(), other[near].tolist(), strict=True):
                found[left].add(right)
                found[right].add(left)
    return defaultdict(list, {number: sorted(others) for number, others in found.items()})


def _within(first: tuple[int, ...], second: tuple[int, ...], distance: int) -> bool:
    if len(first) != len(second):
        return False
    return all((one ^ other).bit_count() <= distance for one, other in zip(first, second, strict=True))

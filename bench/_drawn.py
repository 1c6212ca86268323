"""A pool of the contest's size, and scores drawn from the distributions that were published of the contest's pool.

What was published: the similarity's mean, deviation and the 222,000 at 0.32 or above; quartiles, mean and deviation of
phrase grounding; quartiles and mean of nsfw; word counts; the rows that single and stacked filters kept. Scores depend
on each other, the similarity on the matching and the matching on the grounding, as strongly as the 198,000 and 123,037
rows of stacked filters and the 5,900 weak ones among those ask for. Scores of new captions and images follow their
published quartiles, or the share of them that a filter kept. What was not published is drawn evenly.

Every draw depends on the record's id and the score's name alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image
from scipy.special import expit, ndtr, ndtri

from bettersynth.configuration.generators import Captioner
from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.pool import PoolFile
from bettersynth.configuration.types import Configuration
from bettersynth.core.records import POOL, text_of
from bettersynth.operators.scoring import ARROW_TYPES
from bettersynth.workflow.plan import Plan
from bettersynth.workflow.roots import roots_of

Numbers = npt.NDArray[np.float64]

LINKS = 60_000
"""Names of one image file; file systems allow some 65,000."""
QUESTIONS = [
    "Render a clear and concise summary of the photo.",
    "Give a brief description of the image.",
    "Provide a brief description of the given image.",
]
GROUNDING = {
    0.0: 0.0163, 0.2: 0.0371, 0.25: 0.0912, 1 / 3: 0.249, 0.4: 0.0464, 0.5: 0.2501,
    0.6: 0.0649, 2 / 3: 0.0564, 0.75: 0.0416, 0.8: 0.0113, 1.0: 0.1357,
}  # fmt: skip
"""Shares of the phrase grounding recalls: mean 0.5093, deviation 0.2453, quartiles 1/3, 0.5 and 0.6."""


# --- the pool ------------------------------------------------------------------------------------


def write_pool(configuration: Configuration, records: int) -> None:
    """Raw files with `records` lines in all, as their shards share them, their images and the files of questions.

    Captions are random words, as many as the contest's have, some of them twice in the pool. Images are names of a few
    tiny files.
    """
    pool = configuration.pool
    shards = sum(file.shards for file in pool.files)
    first = 0
    for number, file in enumerate(pool.files):
        ids = [f"{17 * place:09d}" for place in range(first, first + records * file.shards // shards)]
        first += len(ids)
        _write_file(file, ids, roots_of(pool).places[0])
        if number < len(pool.restore):
            _write_questions(Path(pool.restore[number]), ids)


def _write_file(file: PoolFile, ids: list[str], images: str) -> None:
    path = Path(file.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [f"images/{name[:5]}/{name}.jpg" for name in ids]
    with path.open("w", encoding="utf-8") as output:
        for name, image, caption in zip(ids, paths, captions(POOL, ids), strict=True):
            output.write(json.dumps({"id": name, "text": text_of(caption), "images": [image]}) + "\n")
    link_images(Path(images), paths)


def captions(what: str, ids: Sequence[str]) -> list[str]:
    """A caption of random words for each id; 1 in 100 is one of a few thousand."""
    made = []
    shares = uniform(f"{what} copy", ids)
    for name, share, count in zip(ids, shares, words(normal(f"{what} words", ids)).tolist(), strict=True):
        key = name if share > 0.01 else f"{share:.5f}"
        drawn = hashlib.blake2b(f"{what} {key}".encode(), digest_size=2 * MOST_WORDS).digest()
        made.append(" ".join([VOCABULARY[number] for number in struct.unpack(f">{count}H", drawn[: 2 * count])]))
    return made


def _vocabulary() -> list[str]:
    """65,536 places that hold 4,900 words, the commoner ones more often (Zipf's law, flattened at the top)."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    steps = np.cumsum([1 / (rank + 10) for rank in range(len(syllables) ** 2)])
    ranks = np.searchsorted(steps, (np.arange(65_536) + 0.5) / 65_536 * steps[-1]).tolist()
    return [syllables[rank // len(syllables)] + syllables[rank % len(syllables)] for rank in ranks]


MOST_WORDS = 23
VOCABULARY = _vocabulary()


def link_images(root: Path, paths: Sequence[str]) -> None:
    """Give tiny JPEGs below `root` all these names."""
    for folder in {(root / path).parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    for place, path in enumerate(paths):
        if place % LINKS == 0:
            original = root / path
            Image.new("RGB", (16, 16), (place // LINKS % 256, 90, 160)).save(original, "JPEG")
        else:
            os.link(original, root / path)


def _write_questions(path: Path, ids: list[str]) -> None:
    """The kit's file of the original conversations."""
    entries = (
        {"id": name, "conversations": [{"from": "human", "value": f"{QUESTIONS[place % len(QUESTIONS)]}\n<image>"}]}
        for place, name in enumerate(ids)
    )
    path.write_text("[" + ",\n".join(map(json.dumps, entries)) + "]\n", encoding="utf-8")


# --- scores --------------------------------------------------------------------------------------


def uniform(what: str, ids: Sequence[str]) -> Numbers:
    """A number in 0…1, neither of them, for each id."""
    digests = (hashlib.blake2b(f"{what} {name}".encode(), digest_size=8).digest() for name in ids)
    drawn = np.fromiter((int.from_bytes(digest, "big") for digest in digests), np.uint64, len(ids))
    return (drawn.astype(np.float64) + 0.5) / 2.0**64


def normal(what: str, ids: Sequence[str]) -> Numbers:
    """A draw from the standard normal distribution for each id."""
    drawn: Numbers = ndtri(np.minimum(uniform(what, ids), 1 - 1e-16))
    return drawn


def draw_scores(source: str, operator: str, ids: Sequence[str], plan: Plan) -> pa.Table:
    """`id` and the stats of an operator for records of a source."""
    op = plan.configuration.operators[operator].op
    made = _source_kind(source, plan)
    # A cleaned record is as good as it was; what was made anew has nothing to do with what was there.
    origin = POOL if made == "clean" else source
    draw = DRAWS.get((made, op)) or DRAWS.get((POOL, op))
    stats = (
        draw(origin, ids) if draw else {stat: uniform(f"{origin} {op} {stat}", ids) for stat in operator_spec(op).stats}
    )
    kinds = operator_spec(op).stats
    columns = {stat: _column(values, kinds[stat], f"{origin} {stat}", ids) for stat, values in stats.items()}
    return pa.table({"id": pa.array(list(ids), pa.string()), **columns})


def _source_kind(source: str, plan: Plan) -> str:
    """`pool`, or what made the source: `clean`, `redraw`, `recaption`, or `chat` for a captioner with a prompt."""
    if source == POOL:
        return POOL
    verb = plan.generators[source]
    entry = verb.entry(plan.configuration)
    return "chat" if isinstance(entry, Captioner) and entry.prompt else verb.name


def _column(values: Any, kind: str, what: str, ids: Sequence[str]) -> pa.Array:
    """Values as an operator of this kind keeps them: one per record, or a list of one."""
    if kind == "vector":
        return _vectors(what, ids)
    if kind in ("integers", "integer"):
        values = np.rint(values).astype(np.int64)
    flat = pa.array(values)
    if kind in ("integers", "numbers", "words"):
        return pa.ListArray.from_arrays(np.arange(len(flat) + 1, dtype=np.int32), flat)
    return flat.cast(ARROW_TYPES[kind])


def _vectors(what: str, ids: Sequence[str], dimensions: int = 384, topics: int = 500) -> pa.Array:
    """Vectors of bytes that lie around some topics."""
    generator = np.random.default_rng(0)
    centres = generator.normal(0, 30, (topics, dimensions)).astype(np.float32)
    flat = np.empty((len(ids), dimensions), np.int8)
    places = (uniform(what, ids) * topics).astype(int)
    for start in range(0, len(ids), 10_000):
        near = centres[places[start : start + 10_000]]
        flat[start : start + 10_000] = np.clip(near + generator.normal(0, 15, near.shape), -127, 127)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), dimensions).cast(ARROW_TYPES["vector"])


def _skewed(latent: Numbers, skew: float) -> Numbers:
    return latent + skew * (latent**2 - 1)


def _likeness(source: str, ids: Sequence[str]) -> Numbers:
    """How much like its image a caption is, as the similarity sees it: a standard normal variable."""
    return normal(f"{source} likeness", ids)


def _match(source: str, ids: Sequence[str]) -> Numbers:
    """How well a caption matches its image: correlates with the likeness by 0.5."""
    return 0.5 * _likeness(source, ids) + np.sqrt(0.75) * normal(f"{source} match", ids)


def _similarity(source: str, ids: Sequence[str]) -> dict[str, Any]:
    """Mean 0.3232, deviation 0.0392; 0.32 or above in 55.5 %."""
    return {"image_text_similarity": 0.3232 + 0.0392 * _skewed(_likeness(source, ids), -0.0575)}


def _matching(source: str, ids: Sequence[str]) -> dict[str, Any]:
    """Two heaps, at 0 and at 1: 96 % at 0.5 or above; with the similarity's 0.32, 89 % at 0.98."""
    latent = _match(source, ids)
    logit = np.interp(latent, [-5, -1.780, -0.780, 0.0255, 5], [-12, 0, 3.892, 6.436, 16])
    return {"image_text_matching_score": expit(logit)}


def _grounding(source: str, ids: Sequence[str]) -> dict[str, Any]:
    """A few fractions; 56 % at 0.5 or above. Correlates with the match by 0.17."""
    latent = 0.17 * _match(source, ids) + np.sqrt(1 - 0.17**2) * normal(f"{source} grounding", ids)
    return {"phrase_grounding_recall": _quantile(ndtr(latent), GROUNDING)}


def _quantile(share: Numbers, shares: dict[float, float]) -> Numbers:
    values = np.array(list(shares))
    steps = np.cumsum(list(shares.values()))
    found: Numbers = values[np.minimum(np.searchsorted(steps, share), len(values) - 1)]
    return found


def _aesthetics(source: str, ids: Sequence[str]) -> dict[str, Any]:
    """0.5 or above in 30 %, and in 27 % of those with a similarity of 0.32; hardly any below 0.3."""
    latent = -0.12 * _likeness(source, ids) + np.sqrt(1 - 0.12**2) * normal(f"{source} aesthetics", ids)
    return {"image_aesthetics_scores": 0.471 + 0.0552 * latent}


def _watermark(source: str, ids: Sequence[str]) -> dict[str, Any]:
    """At most 0.8 in 69.25 %, the share of 277,000 in 400,000."""
    shares, values = [0, 0.4, 0.6925, 0.8, 1], [0, 0.1, 0.8, 0.97, 1]
    return {"image_watermark_prob": np.interp(uniform(f"{source} watermark", ids), shares, values)}


def _nsfw(source: str, ids: Sequence[str]) -> dict[str, Any]:
    """Quartiles 0.0002, 0.0004 and 0.0008, mean 0.0073: a log-normal body and 1 in 100 above 0.3."""
    body = 0.0004 * np.exp(1.028 * normal(f"{source} nsfw", ids))
    tail = uniform(f"{source} nsfw tail", ids)
    return {"image_nsfw_score": np.where(tail < 0.01, 0.3 + 70 * tail, np.minimum(body, 1))}


def words(latent: Numbers) -> npt.NDArray[np.int64]:
    """Words of a caption: mean 10.8, deviation 3.5, 3 to 23; 10 or more in 60 %."""
    return np.clip(np.rint(10.79 + 3.52 * _skewed(latent, 0.1204)), 3, 23).astype(np.int64)


def _words(source: str, ids: Sequence[str]) -> dict[str, Any]:
    return {"num_words": words(normal(f"{source} words", ids))}


def _actions(source: str, ids: Sequence[str]) -> dict[str, Any]:
    """Quartiles 0, 0 and 0."""
    return {"num_action": _quantile(uniform(f"{source} actions", ids), {0: 0.8, 1: 0.15, 2: 0.05})}


def _language(source: str, ids: Sequence[str]) -> dict[str, Any]:
    drawn = uniform(f"{source} language", ids)
    return {"lang": np.where(drawn < 0.97, "en", "fr"), "lang_score": 1 - 0.6 * drawn**4}


def _shape(source: str, ids: Sequence[str]) -> dict[str, Any]:
    """Short sides of 336, means of 403 and 368."""
    return {
        "image_width": 336 - 67 * np.log(uniform(f"{source} width", ids)),
        "image_height": 336 - 32 * np.log(uniform(f"{source} height", ids)),
    }


def _hashes(source: str, ids: Sequence[str]) -> dict[str, Any]:
    """Hashes of which 1 in 100 are one of a few."""
    drawn = uniform(f"{source} copy", ids)
    keys = [name if share > 0.01 else f"{share:.5f}" for name, share in zip(ids, drawn, strict=True)]
    digests = [hashlib.sha256(f"{source} {key}".encode()).hexdigest() for key in keys]
    return {"image_sha256": digests, "image_phash": [digest[:16] for digest in digests]}


def _normal(stat: str, mean: float, deviation: float) -> Callable[[str, Sequence[str]], dict[str, Any]]:
    return lambda source, ids: {stat: mean + deviation * _likeness(source, ids)}


DRAWS: dict[tuple[str, str], Callable[[str, Sequence[str]], dict[str, Any]]] = {
    (POOL, "image_text_similarity_filter"): _similarity,
    (POOL, "image_text_matching_filter"): _matching,
    (POOL, "phrase_grounding_recall_filter"): _grounding,
    (POOL, "image_aesthetics_filter"): _aesthetics,
    (POOL, "image_watermark_filter"): _watermark,
    (POOL, "image_nsfw_filter"): _nsfw,
    (POOL, "words_num_filter"): _words,
    (POOL, "text_action_filter"): _actions,
    (POOL, "language_id_score_filter"): _language,
    (POOL, "image_shape_filter"): _shape,
    (POOL, "image_hash"): _hashes,
    # 4,000 of 5,900 new captions reach 0.28, and 35,000 of 120,000 reach 0.32: one normal distribution does both.
    ("recaption", "image_text_similarity_filter"): _normal("image_text_similarity", 0.2983, 0.0392),
    # Quartiles 0.291, 0.318 and 0.344.
    ("chat", "image_text_similarity_filter"): _normal("image_text_similarity", 0.318, 0.0393),
    ("chat", "phrase_grounding_recall_filter"): lambda source, ids: {
        "phrase_grounding_recall": np.interp(
            uniform(f"{source} grounding", ids), [0, 0.25, 0.5, 0.75], [0, 0.25, 0.9, 1]
        )
    },
    # Quartiles 0.277, 0.319 and 0.351; of the matching 0.005, 0.27 and 0.975.
    ("redraw", "image_text_similarity_filter"): _normal("image_text_similarity", 0.316, 0.055),
    ("redraw", "image_text_matching_filter"): lambda source, ids: {
        "image_text_matching_score": expit(-0.9 + 6.6 * normal(f"{source} match", ids))
    },
}
"""What made a source and an operator → its draw; what is not here is drawn as the pool's, or evenly."""

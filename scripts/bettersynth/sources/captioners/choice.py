"""Which candidates stay, and the text that Data-Juicer's captioning mapper would write with them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable

from bettersynth.configuration.generators import Captioner
from bettersynth.core.raw import caption_problem
from bettersynth.core.records import END_OF_CHUNK, IMAGE_TOKEN
from bettersynth.core.seeding import record_seed
from bettersynth.sources.cleaning import DEFAULTS, REFUSAL, TOO_FEW, TOO_MANY, caption_words, is_refusal


def candidate_problem(caption: str, settings: Captioner) -> str | None:
    """Why a candidate is no caption, or nothing."""
    if problem := caption_problem(caption):
        return str(problem[0])
    if is_refusal(caption, DEFAULTS.refusals):
        return REFUSAL
    words = len(caption_words(caption))
    if words < settings.min_words:
        return TOO_FEW
    return TOO_MANY if words > settings.max_words else None


def keep_candidate(candidates: list[str], original: str, mode: str, seed: int, record_id: str) -> str:
    """The candidate that stays, by Data-Juicer's `keep_candidate_mode` `random_any` or `similar_one_simhash`."""
    if mode == "random_any":
        return random.Random(record_seed(seed, record_id, draw=-1)).choice(candidates)
    target = simhash_of(original)
    return min(candidates, key=lambda candidate: (target ^ simhash_of(candidate)).bit_count())


def simhash_of(text: str) -> int:
    """64-bit simhash (Charikar 2002) over pairs of words, as Data-Juicer's captioning mapper takes it.

    The package that Data-Juicer asks for comes without wheels, so that a compiler would be needed.
    """
    words = [word for word in text.lower().split(" ") if word]
    pairs = [" ".join(words[i : i + 2]).encode() for i in range(len(words) - 1)]
    hashes = [int.from_bytes(hashlib.md5(pair, usedforsecurity=False).digest()[:8], "big") for pair in pairs]
    set_in = (sum(number >> bit & 1 for number in hashes) for bit in range(64))
    return sum(1 << bit for bit, count in enumerate(set_in) if 2 * count > len(hashes))


def captioned_text(text: str, captions: Iterable[str]) -> str:
    """`text` with one new caption behind each image, as Data-Juicer's captioning mapper writes it.

    Data-Juicer puts all captions of a chunk behind its first image, in reverse; here each stands behind its own.
    """
    remaining = iter(captions)
    chunks = [chunk for chunk in text.split(END_OF_CHUNK) if chunk.strip()]
    images = (chunk.count(IMAGE_TOKEN) for chunk in chunks)
    parts = ("".join(f"{IMAGE_TOKEN} {next(remaining)} " for _ in range(count)) for count in images)
    return "".join(f"{part}{END_OF_CHUNK}" for part in parts)

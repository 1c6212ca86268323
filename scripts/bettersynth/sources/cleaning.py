"""Caption hygiene: repair what is certain, drop what is beyond repair, and say why."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from pydantic import Field

from bettersynth.configuration.section import Name, Section
from bettersynth.core.raw import CONTROL_STRINGS
from bettersynth.core.records import END_OF_CHUNK, IMAGE_TOKEN, caption_of
from bettersynth.core.words import is_letter_of_unspaced, spaced_words, words


class Language(Section):
    """Languages that captions may be in."""

    operator: Name = Field(description="Entry of `operators` with `op: language_id_score_filter`.")
    one_of: list[str] = Field(default_factory=lambda: ["en"], min_length=1, description="Languages kept.")
    min: float = Field(0.3, ge=0, le=1, description="Least confidence; a caption is short, and so is it.")


class Cleaning(Section):
    """What is repaired in a caption, and what is beyond repair."""

    remove_phrases: list[str] = Field(
        default_factory=lambda: ["stock photo", "stock photos", "royalty free", "getty images", "© "],
        description="Cut from the end of a caption, with the punctuation before it.",
    )
    remove_control: bool = Field(True, description="Take control tokens such as `<eos>` or `<|im_end|>` out.")
    collapse_repeats: int = Field(
        8,
        ge=0,
        le=64,
        description="Longest run of words that is written once when it is repeated at once; 0 for none. In scripts "
        "without blanks (Chinese, Japanese, Thai …) a letter is a word.",
    )
    min_words: int = Field(1, ge=0)
    max_words: int = Field(10_000, ge=1)
    max_repetition: float = Field(
        1.0, ge=0, le=1, description="Largest share of words (of runs of words) that are repetitions of an earlier one."
    )
    repetition_words: int = Field(1, ge=1, le=64, description="Words of the runs that `max_repetition` counts.")
    refusals: list[str] = Field(
        default_factory=lambda: [
            *("i'm sorry", "i am sorry", "sorry, ", "i cannot", "i can't", "i'm unable", "i am unable", "i'm not able"),
            *("i am not able", "unfortunately, i", "as an ai"),
        ],
        description="A caption that begins so is an answer refused, not a caption.",
    )
    language: Language | None = Field(None, description="Captions in other languages are dropped.")


DEFAULTS = Cleaning()
"""The rules as the verb `clean` has them without parameters."""

EMPTY = "empty caption"
REFUSAL = "refusal"
TOO_FEW = "too few words"
TOO_MANY = "too many words"
TOO_REPETITIVE = "too repetitive"
OTHER_LANGUAGE = "another language"

CONTROL, REPETITION, TAIL = "control token", "repetition", "tail"
"""Kinds of repairs."""

_CONTROL = re.compile("|".join([r"</?s>", r"<\|[^|<>]{1,40}\|>", *map(re.escape, CONTROL_STRINGS)]))
_SEPARATORS = r"[\s,;:|./–—-]"


class Cleaned(NamedTuple):
    """A caption or a text after cleaning (None when it is beyond repair, for the reason), and what was repaired."""

    text: str | None
    reason: str | None = None
    repairs: frozenset[str] = frozenset()


def clean_text(text: str, parameters: Cleaning) -> Cleaned:
    """Data-Juicer's text with every chunk's caption cleaned.

    A text whose captions are clean already comes back as it was, to the byte.
    """
    chunks = []
    repairs: frozenset[str] = frozenset()
    for chunk in (chunk for chunk in text.split(END_OF_CHUNK) if chunk.strip()):
        cleaned = clean_caption(caption_of(chunk), parameters)
        if cleaned.text is None:
            return cleaned
        repairs |= cleaned.repairs
        changed = cleaned.text != caption_of(chunk)
        chunks.append(f"{IMAGE_TOKEN * chunk.count(IMAGE_TOKEN)}\n{cleaned.text} " if changed else chunk)
    if not chunks:
        return Cleaned(None, EMPTY)
    whole = "".join(f"{chunk}{END_OF_CHUNK}" for chunk in chunks)
    return Cleaned(text if whole.rstrip() == text.rstrip() else whole, None, repairs)


def clean_caption(caption: str, parameters: Cleaning) -> Cleaned:
    """The repaired caption, or the reason for dropping it. Cleaning a clean caption changes nothing."""
    caption = caption.strip()
    if is_refusal(caption, parameters.refusals):
        return Cleaned(None, REFUSAL)
    caption, repairs = _repaired(caption, parameters)
    found = caption_words(caption)
    if not found:
        return Cleaned(None, EMPTY)
    if len(found) < parameters.min_words:
        return Cleaned(None, TOO_FEW)
    if len(found) > parameters.max_words:
        return Cleaned(None, TOO_MANY)
    if repetition(found, parameters.repetition_words) > parameters.max_repetition:
        return Cleaned(None, TOO_REPETITIVE)
    return Cleaned(caption, None, repairs)


def _repaired(caption: str, parameters: Cleaning) -> tuple[str, frozenset[str]]:
    repairs = set()
    before = None
    while before != caption:  # a cut can lay a repeated word bare, and a repetition can hide a phrase
        before = caption
        for kind, repaired in (
            (CONTROL, remove_control(caption) if parameters.remove_control else caption),
            (REPETITION, collapse_repeats(caption, parameters.collapse_repeats)),
            (TAIL, cut_phrases(caption, parameters.remove_phrases)),
        ):
            if repaired != caption:
                caption = repaired
                repairs.add(kind)
                break
    return caption, frozenset(repairs)


def repetition(found: list[str], length: int) -> float:
    """Share of the runs of `length` of these words that are repetitions of an earlier one."""
    runs = list(zip(*(found[start:] for start in range(length)), strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def remove_control(caption: str) -> str:
    """The caption without tokens that mean something to a tokenizer, a chat template or Data-Juicer."""
    return " ".join(_CONTROL.sub(" ", caption).split()) if _CONTROL.search(caption) else caption


def is_refusal(caption: str, refusals: Iterable[str]) -> bool:
    """Whether the caption begins like an answer refused."""
    return caption.lower().replace("’", "'").startswith(tuple(refusal.lower() for refusal in refusals))


def collapse_repeats(caption: str, longest: int) -> str:
    """The caption with a run of up to `longest` words written once that follows itself, and single blanks then.

    A letter that is a word by itself (`core.words`) may be doubled: many a word is (妈妈).
    """
    found = spaced_words(caption)
    many = len(found)
    lower = [word.lower() for _, word in found]
    for length in range(1, longest + 1):
        place = 0
        while place + 2 * length <= len(found):
            run = lower[place : place + length]
            may_double = length == 1 and is_letter_of_unspaced(run[0])
            if run == lower[place + length : place + 2 * length] and not may_double:
                del found[place + length : place + 2 * length], lower[place + length : place + 2 * length]
            else:
                place += 1
    return "".join(gap + word for gap, word in found).strip() if len(found) < many else caption


def cut_phrases(caption: str, phrases: Iterable[str]) -> str:
    """The caption without these phrases at its end and the punctuation before them.

    A phrase that ends with a blank (`© `) goes with all that follows it.
    """
    for phrase in phrases:
        rest = ".*" if phrase.endswith(" ") else f"{_SEPARATORS}*"
        pattern = rf"(?:^|{_SEPARATORS}+){re.escape(phrase)}{rest}$"
        caption = re.sub(pattern, "", caption, flags=re.IGNORECASE | re.DOTALL)
    return caption


def caption_words(caption: str) -> list[str]:
    """Lower-case words (`core.words`) that hold a letter or a digit."""
    return [word.lower() for word in words(caption) if any(letter.isalnum() for letter in word)]

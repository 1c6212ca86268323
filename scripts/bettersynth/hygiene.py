"""Caption hygiene: repair what is certain, drop what is beyond repair, and say why."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bettersynth.configuration.types import Clean
from bettersynth.records import END_OF_CHUNK, IMAGE_TOKEN, caption_of

DEFAULTS = Clean.model_validate({})
"""The verb `clean` without parameters."""

EMPTY = "empty caption"
REFUSAL = "refusal"
TOO_FEW = "too few words"
TOO_MANY = "too many words"
TOO_REPETITIVE = "too repetitive"

_SEPARATORS = r"[\s,;:|./–—-]"


def clean_text(text: str, parameters: Clean) -> tuple[str | None, str | None]:
    """Data-Juicer's text with every chunk's caption cleaned, or the reason for dropping it.

    A text whose captions are clean already comes back as it was, to the byte.
    """
    chunks = []
    for chunk in (chunk for chunk in text.split(END_OF_CHUNK) if chunk.strip()):
        caption, reason = clean_caption(caption_of(chunk), parameters)
        if caption is None:
            return None, reason
        changed = caption != caption_of(chunk)
        chunks.append(f"{IMAGE_TOKEN * chunk.count(IMAGE_TOKEN)}\n{caption} " if changed else chunk)
    if not chunks:
        return None, EMPTY
    cleaned = "".join(f"{chunk}{END_OF_CHUNK}" for chunk in chunks)
    return (text if cleaned.rstrip() == text.rstrip() else cleaned), None


def clean_caption(caption: str, parameters: Clean) -> tuple[str | None, str | None]:
    """The repaired caption and nothing, or nothing and the reason for dropping it.

    Cleaning a clean caption changes nothing.
    """
    caption = caption.strip()
    if is_refusal(caption, parameters.refusals):
        return None, REFUSAL
    before = None
    while before != caption:  # a cut can lay a repeated word bare, and a repetition can hide a phrase
        before = caption
        if parameters.collapse_repeats:
            caption = collapse_repeats(caption)
        caption = cut_phrases(caption, parameters.remove_phrases)
    words = caption_words(caption)
    if not words:
        return None, EMPTY
    if len(words) < parameters.min_words:
        return None, TOO_FEW
    if len(words) > parameters.max_words:
        return None, TOO_MANY
    if 1 - len(set(words)) / len(words) > parameters.max_repetition:
        return None, TOO_REPETITIVE
    return caption, None


def is_refusal(caption: str, refusals: Iterable[str]) -> bool:
    """Whether the caption begins like an answer refused."""
    return caption.lower().replace("’", "'").startswith(tuple(refusal.lower() for refusal in refusals))


def collapse_repeats(caption: str) -> str:
    """The caption with an immediately repeated word written once, and single blanks between words."""
    words: list[str] = []
    for word in caption.split():
        if not words or word.lower() != words[-1].lower():
            words.append(word)
    return " ".join(words)


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
    """Lower-case words: what stands between blanks and holds a letter or a digit."""
    return [word.lower() for word in caption.split() if any(letter.isalnum() for letter in word)]

"""Captions as words: what stands between blanks, and single characters of scripts that write without blanks."""

from __future__ import annotations

import re

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u2e80-\u2fdf\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
)
_UNSPACED_LETTER = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """The text's words: what stands between blanks; Chinese, Japanese, Thai and their like letter by letter."""
    return _WORD.findall(text) if _UNSPACED_LETTER.search(text) else text.split()


def is_letter_of_unspaced(word: str) -> bool:
    """Whether the word is a letter of a script that writes without blanks."""
    return _UNSPACED_LETTER.fullmatch(word) is not None


def spaced_words(text: str) -> list[tuple[str, str]]:
    """Each of `words`, after a blank where the text has one before it."""
    found = _WORD.finditer(text)
    return [(" " if text[max(one.start() - 1, 0) : one.start()].isspace() else "", one[0]) for one in found]

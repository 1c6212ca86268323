"""Fetch the word lists and taggers that some operators read, into `models/` (part of `make setup`)."""

from pathlib import Path

from bettersynth.core.resources import fetch_resources

fetch_resources(Path("models"))

"""The one place that compares a library with the versions that a change of it was made for."""

from __future__ import annotations

import logging
from functools import cache
from importlib import metadata

logger = logging.getLogger(__name__)

MADE_FOR = {
    "py-data-juicer": ("1.6.1",),
    "nltk": ("3.9", "3.10"),
    "transformers": ("4.57",),
    "snakemake": ("9.27",),
    "pillow": ("11", "12", "13"),
    "torch": ("2",),
}
"""Distribution -> the versions whose insides were read; `4.57` stands for all of 4.57."""


@cache
def made_for(library: str) -> bool:
    """Whether the installed version of a library is one that its changes were made for; once, a warning if not.

    Raises KeyError for a library that has no entry in `MADE_FOR`.
    """
    versions = MADE_FOR[library]
    found = metadata.version(library)
    if any(found == version or found.startswith(f"{version}.") for version in versions):
        return True
    logger.warning(
        "%s %s is installed; what bettersynth changes of it (bettersynth/runtime/patches) was made for %s. "
        "Install that (`make setup`), or check the change against this version.",
        library,
        found,
        " or ".join(versions),
    )
    return False

"""What is changed of other libraries, one module for each: `prepare` applies what every job needs.

A change that reaches into a library's insides says for which of its versions it was made (`versions.made_for`); with
another version, a job's log warns that it may no longer do what it should.
"""

from __future__ import annotations

import os
from pathlib import Path

from bettersynth.runtime.patches import data_juicer, nltk, pillow, transformers
from bettersynth.runtime.patches.environment import ENVIRONMENT


def prepare(cache: str | Path, max_pixels: int | None = None) -> None:
    """Let libraries work without a network: to be called before transformers, data_juicer or nltk is imported.

    They read their environment once. `cache` is a folder for what Data-Juicer writes at import; nothing there is read
    back. `max_pixels` is the largest image that Pillow decodes: it looks at the header and raises before it decodes a
    larger one.
    """
    os.environ.update(ENVIRONMENT)
    data_juicer.keep_caches(cache)
    nltk.read_local_data()
    transformers.use_pillow_only()
    if max_pixels is not None:
        pillow.limit_pixels(max_pixels)

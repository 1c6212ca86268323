"""What libraries read when they are imported, for the process that jobs are forked from, which imports this first."""

import os
import tempfile

from bettersynth.runtime import patches

for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR"):
    os.environ[f"{library}_NUM_THREADS"] = "1"
with tempfile.TemporaryDirectory() as cache:
    patches.prepare(cache)

"""Evaluation: a model is asked the benchmarks' questions, and its answers are scored with the kit's numbers."""

import bettersynth.configuration  # noqa: F401 - it collects the benchmarks, so it comes before them

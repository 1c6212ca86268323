"""The two benchmarks of the contest: answers are checked to be whole and scored with the kit's numbers."""

from bettersynth.evaluation.scoring import score_answers

__all__ = ["score_answers"]

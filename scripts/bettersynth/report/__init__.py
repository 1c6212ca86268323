"""The leaderboard and the page that a person reads after a run."""

from bettersynth.report.leaderboard import build_leaderboard
from bettersynth.report.page import build_report

__all__ = ["build_leaderboard", "build_report"]

"""Compare the recipes (rule `leaderboard`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.report.leaderboard import build_leaderboard
from bettersynth.report.trackers import track

leaderboard = build_leaderboard(job.configuration, job.layout)
track(leaderboard, job.layout, list(job.configuration.benchmarks), job.configuration.report.tracker)

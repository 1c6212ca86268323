"""Compare the recipes (rule `leaderboard`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.report.leaderboard import build_leaderboard

build_leaderboard(job.configuration, job.layout)

"""Compare the recipes (rule `leaderboard`)."""

from bettersynth.runtime.job import Job

job = Job(snakemake)

from bettersynth.report.leaderboard import build_leaderboard

build_leaderboard(job.configuration, job.layout)

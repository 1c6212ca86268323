"""Relate the losses at each rung to the scores (rule `early_loss`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.report.early_loss import build_early_loss

build_early_loss(job.configuration, job.layout)

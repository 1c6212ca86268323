"""Gather the scores of a source by one operator (rule `scores_of`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.operators.gather import gather_scores

gather_scores(job.wildcards.source, job.wildcards.operator, job.input, job.layout, job.plan)

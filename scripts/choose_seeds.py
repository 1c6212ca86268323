"""Decide which seeds of a recipe go on from a rung (rule `choose_seeds`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.training.mgm.seeds import choose_seeds

choose_seeds(job.wildcards.recipe, job.configuration, job.layout, job.wildcards.choice)

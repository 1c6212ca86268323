"""Decide which seeds of a recipe go on after the probe (rule `choose_seeds`)."""

from bettersynth.job import Job

job = Job(snakemake)

from bettersynth.mgm.seeds import choose_seeds

choose_seeds(job.wildcards.recipe, job.configuration, job.layout)

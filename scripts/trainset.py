"""Write the training file of a recipe and open each of its images (rule `trainset`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.training.trainset import build_trainset

build_trainset(job.wildcards.recipe, job.configuration, job.layout, job.plan)

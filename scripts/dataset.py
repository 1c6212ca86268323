"""Choose the rows of one dataset by its verb (rule `dataset`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.datasets.build import build_dataset

build_dataset(job.wildcards.dataset, job.configuration, job.layout, job.plan)

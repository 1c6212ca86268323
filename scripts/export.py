"""Write a dataset in a format that other tools read (rule `export`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.training.export import export_dataset

export_dataset(job.wildcards.dataset, job.wildcards.form, job.configuration, job.layout, job.plan)

"""Take the quartiles of scores over a dataset (rule `analysis`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.datasets.analysis import build_analysis

build_analysis(job.wildcards.analysis, job.configuration, job.layout, job.plan)

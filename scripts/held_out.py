"""Write the pairs that no recipe trains on, in the form of a training file (rule `held_out`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.training.trainset import build_held_out

build_held_out(job.configuration, job.layout, job.plan)

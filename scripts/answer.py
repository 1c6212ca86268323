"""Answer the questions of a benchmark with a trained model (rule `answer`)."""

from bettersynth.runtime.job import Job

job = Job(snakemake)

from bettersynth.training.mgm.processes import run

wildcards = job.wildcards
run("answer", wildcards.recipe, int(wildcards.seed), job.configuration, job.layout, wildcards.benchmark)

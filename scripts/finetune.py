"""Stage 2: train connector and language model on instructions (rule `finetune`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.training.mgm.processes import run

run("finetune", job.wildcards.recipe, int(job.wildcards.seed), job.configuration, job.layout, nodes=job.nodes)

"""Train stage 1 up to a rung (rule `probe`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.training.mgm.instructions import look_again
from bettersynth.training.mgm.processes import run

look_again(job.wildcards.recipe, job.configuration, job.layout)
run(job.wildcards.rung, job.wildcards.recipe, int(job.wildcards.seed), job.configuration, job.layout, nodes=job.nodes)

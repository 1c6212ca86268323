"""Answer the questions of a benchmark with a trained model (rule `answer`)."""

from bettersynth.job import Job

job = Job(snakemake)

from bettersynth.mgm.generation import write_answers

write_answers(job.wildcards.benchmark, job.wildcards.recipe, int(job.wildcards.seed), job.configuration, job.layout)

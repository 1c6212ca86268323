"""Score the answers to a benchmark (rule `score_answers`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.evaluation.scoring import score_answers

score_answers(job.wildcards.benchmark, job.wildcards.recipe, int(job.wildcards.seed), job.configuration, job.layout)

"""Answer the questions of the benchmarks with a trained model (rule `answer`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.evaluation.answering import write_answers

write_answers(job.wildcards.recipe, int(job.wildcards.seed), job.configuration, job.layout)

"""Look at a benchmark's questions and pictures (rule `questions`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.evaluation.preflight import check_questions

check_questions(job.wildcards.benchmark, job.configuration, job.layout)

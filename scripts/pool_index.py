"""Order the whole pool and resolve ids that several files hold (rule `pool_index`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.pool.ingest import build_index

build_index(job.configuration.pool, job.layout)

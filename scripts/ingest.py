"""Read one raw file into sharded records (rules `ingest_<file>`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.pool.ingest import check_quarantined, ingest_file

pool = job.configuration.pool
file = next(file for file in pool.files if file.name == job.params.file)
ledger = ingest_file(pool, file, job.layout, trains=job.configuration.trains)
check_quarantined(pool, ledger, job.layout.quarantine(file.name), job.config_file)

"""Make one shard of a generated source (rules `recaption`, `redraw` and `clean`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.sources.make import make_source_shard

make_source_shard(job.wildcards.source, job.wildcards.shard, job.configuration, job.layout, job.plan)

"""Make one shard of a generated source (rules `recaption`, `redraw` and `clean`)."""

from bettersynth.job import Job

job = Job(snakemake)

from bettersynth.generators import make_source_shard

make_source_shard(job.wildcards.source, job.wildcards.shard, job.configuration, job.layout, job.plan)

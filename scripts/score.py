"""Score one shard of a source with one operator (rules `score_neural` and `score_plain`)."""

from bettersynth.job import Job

job = Job(snakemake)

from bettersynth.operators.scoring import score_shard

score_shard(job.wildcards.operator, job.configuration, job.layout, job.wildcards.source, job.wildcards.shard)

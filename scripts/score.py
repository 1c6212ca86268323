"""Score a chunk of a source's shards by the operators of a pass (rules `score_neural` and `score_plain`)."""

from bettersynth.job import Job

job = Job(snakemake)

from bettersynth.operators.scoring import score_chunk
from bettersynth.passes import Chunk

score_chunk(job.wildcards.source, Chunk(job.wildcards.scoring, job.wildcards.chunk), job.configuration, job.layout)

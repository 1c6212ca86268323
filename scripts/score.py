"""Score a chunk of a source's shards by the operators of a pass (rules `score_neural` and `score_plain`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.operators.scoring import score_chunk
from bettersynth.workflow.fingerprints import Fingerprints
from bettersynth.workflow.passes import Chunk

chunk = Chunk(job.wildcards.scoring, job.wildcards.chunk)
fingerprint = Fingerprints(job.configuration, job.layout).operator
score_chunk(job.wildcards.source, chunk, job.configuration, job.layout, fingerprint)

"""State what stage 2 trains on, looking at a set again that changed since its preflight (rule `instructions`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.configuration.instructions import instruction_sets
from bettersynth.core.publish import write_sealed
from bettersynth.training.mgm.instructions import used_instructions

stage = instruction_sets(job.configuration)[job.wildcards.instructions]
used = used_instructions(stage, job.configuration, job.layout)
write_sealed(job.output[0], {"rows": str(used.path), "sha256": used.sha256})

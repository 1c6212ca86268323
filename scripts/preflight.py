"""Look at an instruction set's rows and pictures, and write what is used of it (rule `preflight`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.core.publish import write_sealed
from bettersynth.training.mgm.instructions import check_instructions

card = check_instructions(job.wildcards.instructions, job.configuration, job.layout)
write_sealed(job.output[0], {"rows": card["rows"]})

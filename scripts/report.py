"""Write the report page (rule `report`)."""

from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)

from bettersynth.report.page import build_report

build_report(job.configuration, job.layout, job.plan)

"""Write the report page (rule `report`)."""

from bettersynth.job import Job

job = Job(snakemake)

from bettersynth.report import build_report

build_report(job.configuration, job.layout, job.plan)

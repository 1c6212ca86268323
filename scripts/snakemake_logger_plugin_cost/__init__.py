"""Snakemake's logger plugin `cost`: after a dry run, say what its jobs will cost and miss (`make dry-run`).

`snakemake --dry-run --logger cost` finds this package by its name, once `scripts/` is on PYTHONPATH.
"""

from __future__ import annotations

import traceback
from logging import LogRecord
from pathlib import Path
from shutil import which
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from bettersynth.configuration import Configuration, load
from bettersynth.core.commands import make
from bettersynth.core.layout import Layout
from bettersynth.datasets.trial import counted_rows
from bettersynth.inspect.cost import Costs, Due
from bettersynth.inspect.cost_table import cost_table
from bettersynth.report.power import plan_of, scatter_of, sentence
from bettersynth.runtime import gpus
from bettersynth.workflow.announced import AnnouncedJob
from bettersynth.workflow.jobs import Jobs
from bettersynth.workflow.manifest import missing, missing_words

MEASUREMENTS = Path("docs") / "measurements"


class LogHandler(LogHandlerBase):
    """Collects the jobs that a dry run announces; when it is over, prints what they cost and what they would miss."""

    def __post_init__(self) -> None:
        self.jobs: list[AnnouncedJob] = []
        self.started: dict[str, Any] = {}

    def emit(self, record: LogRecord) -> None:
        """Remember a job, or the run's folder and configuration file."""
        if getattr(record, "event", None) == LogEvent.WORKFLOW_STARTED:
            self.started = record.__dict__
        elif job := AnnouncedJob.of(record):
            self.jobs.append(job)

    def close(self) -> None:
        """Print the costs and what is missing, below all that Snakemake says."""
        super().close()
        jobs, self.jobs = self.jobs, []
        if not jobs or not self.common_settings.dryrun:
            return
        try:
            print(f"\n{self._words(jobs)}")
        except Exception:  # Snakemake would swallow it
            traceback.print_exc()

    def _words(self, jobs: list[AnnouncedJob]) -> str:
        base, files = Path(self.started["basedir"]), self.started["configfiles"]
        file = files[0] if files else base / "config" / "miniature.yaml"
        configuration = load(file)
        specified = Jobs(configuration, Layout(Path("results") / str(configuration.name)))
        counted_rows(specified)
        due = [Due(specified.job(job.rule, job.wildcards), job.gpus) for job in jobs]
        has_gpus = bool(gpus.visible()) or which("sbatch") is not None
        costs = Costs(specified, base / MEASUREMENTS, has_gpus=has_gpus)
        absent = missing([each.job.needs for each in due], configuration, file)
        words = [cost_table(costs.lines(due), costs.resume_bytes)]
        if any(job.rule == "pretrain" for job in jobs) and len(configuration.recipes) > 1:
            words.append(self._power(configuration, specified.layout))
        return "\n\n".join([*words, *([missing_words(absent)] if absent else [])])

    def _power(self, configuration: Configuration, layout: Layout) -> str:
        """What training would show, in one line."""
        plan = plan_of(configuration, scatter_of(configuration, layout).deviation)
        return f"{sentence(plan)} More: {make('power')}"

    @property
    def writes_to_stream(self) -> bool:
        """False: Snakemake's own lines are printed too."""
        return False

    @property
    def writes_to_file(self) -> bool:
        """False: nothing is kept."""
        return False

    @property
    def has_filter(self) -> bool:
        """True: jobs are wanted however quiet Snakemake is."""
        return True

    @property
    def has_formatter(self) -> bool:
        """True: nothing is formatted by Snakemake."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """False: jobs suffice."""
        return False

"""Snakemake's logger plugin `jobs`: after a dry run, the jobs that would run as one line of JSON on standard output.

`snakemake --dry-run --quiet all --logger jobs` finds this package by its name, once `scripts/` is on PYTHONPATH.
"""

from __future__ import annotations

from logging import LogRecord

from snakemake_interface_logger_plugins.base import LogHandlerBase

from bettersynth.workflow.announced import AnnouncedJob, as_line


class LogHandler(LogHandlerBase):
    """Collects the jobs that a dry run announces."""

    def __post_init__(self) -> None:
        self.jobs: list[AnnouncedJob] = []

    def emit(self, record: LogRecord) -> None:
        """Remember a job."""
        if job := AnnouncedJob.of(record):
            self.jobs.append(job)

    def close(self) -> None:
        """Print the jobs, once."""
        super().close()
        if self.jobs:
            print(as_line(self.jobs), flush=True)
            self.jobs = []

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

"""Snakemake's logger plugin `jobs`: after a dry run, the jobs that would run as one line of JSON on standard output.

`snakemake --dry-run --quiet all --logger jobs` finds this package by its name, once `scripts/` is on PYTHONPATH.
"""

from __future__ import annotations

import json
from logging import LogRecord
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent


class LogHandler(LogHandlerBase):
    """Collects the jobs that a dry run announces: `rule`, `wildcards`, `input` and `output`."""

    def __post_init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []

    def emit(self, record: LogRecord) -> None:
        """Remember a job; one without output is a target that gathers."""
        if getattr(record, "event", None) == LogEvent.JOB_INFO and record.__dict__["output"]:
            facts = record.__dict__
            files = {key: [str(file) for file in facts[key]] for key in ("input", "output")}
            self.jobs.append({"rule": facts["rule_name"], "wildcards": dict(facts["wildcards"] or {}), **files})

    def close(self) -> None:
        """Print the jobs, once."""
        super().close()
        if self.jobs:
            print(json.dumps(self.jobs), flush=True)
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

"""The jobs that a dry run of Snakemake announces: what its logger plugins collect, and how another program is told."""

from __future__ import annotations

import json
from collections.abc import Iterable
from logging import LogRecord
from typing import NamedTuple

from snakemake_interface_logger_plugins.common import LogEvent

START = '[{"rule"'


class AnnouncedJob(NamedTuple):
    """A job that would run, as Snakemake announces it."""

    rule: str
    """The name of the rule block."""
    wildcards: dict[str, str]
    input: list[str]
    output: list[str]
    gpus: int

    @classmethod
    def of(cls, record: LogRecord) -> AnnouncedJob | None:
        """The job of a logged event; None for other events, and for targets that only gather: they make no file."""
        facts = record.__dict__
        if facts.get("event") != LogEvent.JOB_INFO or not facts["output"]:
            return None
        read, made = (list(map(str, facts[key])) for key in ("input", "output"))
        return cls(facts["rule_name"], dict(facts["wildcards"] or {}), read, made, facts["resources"].get("gpu", 0))


def as_line(jobs: Iterable[AnnouncedJob]) -> str:
    """The jobs as one line."""
    return json.dumps([job._asdict() for job in jobs])


def from_output(output: str) -> list[AnnouncedJob]:
    """The jobs of what was printed, which holds such a line where there are any."""
    line = next((line for line in output.splitlines() if line.startswith(START)), "[]")
    return [AnnouncedJob(**job) for job in json.loads(line)]

"""One way in: a configuration file, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bettersynth.configuration import Configuration, load
from bettersynth.core.layout import Layout
from bettersynth.workflow.plan import Plan


@dataclass(frozen=True)
class Run:
    """A configuration, where its files lie below the present folder, and its graph of datasets."""

    configuration: Configuration
    layout: Layout
    plan: Plan
    config_file: Path

    @classmethod
    def open(cls, config_file: str | Path) -> Run:
        """The run of a configuration file. Raises ConfigurationError with every problem found."""
        return cls.of(load(config_file), config_file)

    @classmethod
    def of(cls, configuration: Configuration, config_file: str | Path) -> Run:
        """The run of a configuration that was read from `config_file`."""
        layout = Layout(Path("results") / str(configuration.name))
        return cls(configuration, layout, Plan(configuration), Path(config_file))

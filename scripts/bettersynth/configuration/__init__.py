"""The configuration: its types, and the checks that no single type can make."""

from bettersynth.configuration.load import configure, load
from bettersynth.configuration.reading import ConfigurationError, read_yaml
from bettersynth.configuration.section import NAME_PATTERN
from bettersynth.configuration.types import Configuration

__all__ = ["NAME_PATTERN", "Configuration", "ConfigurationError", "configure", "load", "read_yaml"]

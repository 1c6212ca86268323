"""Say in words where a dataset or a recipe comes from (`make explain`)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bettersynth.configuration import ConfigurationError, load
from bettersynth.core.layout import Layout
from bettersynth.inspect.explain import Explanation, UnknownNameError

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--config", default="config/miniature.yaml")
parser.add_argument("--dataset", nargs="*", default=[], metavar="NAME")
parser.add_argument("--recipe", nargs="*", default=[], metavar="NAME")
arguments = parser.parse_args()

try:
    configuration = load(arguments.config)
    explanation = Explanation(configuration, arguments.config, Layout(Path("results") / str(configuration.name)))
    texts = [explanation.dataset(name) for name in arguments.dataset]
    texts += [explanation.recipe(name) for name in arguments.recipe or (() if texts else configuration.recipes)]
except (ConfigurationError, UnknownNameError) as error:
    sys.exit(str(error))
print("\n\n\n".join(texts))

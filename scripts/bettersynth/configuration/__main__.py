"""Say what is wrong with a configuration file (`python -m bettersynth.configuration config/yours.yaml`), or nothing.

Snakemake reads the file before it runs any line of ours, and names neither file nor line of what is no YAML.
"""

import sys

from bettersynth.configuration import ConfigurationError, load

try:
    load(sys.argv[1])
except ConfigurationError as error:
    sys.exit(str(error))

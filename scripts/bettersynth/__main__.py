"""`python -m bettersynth`: the same as the command `bettersynth`."""

from bettersynth.cli.main import main

main()

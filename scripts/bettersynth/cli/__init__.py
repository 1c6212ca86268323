"""What a person types: `bettersynth COMMAND`, one module for each command.

A module's first line is the command's help, and its `command` is what runs. The Makefile's targets are short names for
these; add one by adding a module here.
"""

"""The command `bettersynth`: finds the modules beside this one, and imports only that of the command that is typed."""

from __future__ import annotations

import ast
import importlib
import logging
import pkgutil
import sys
from pathlib import Path

import click

import bettersynth.cli
from bettersynth.core.errors import PersonError

NO_COMMANDS = {"main", "options"}


class Commands(click.Group):
    """Commands by the names of modules; help is read from their first lines without importing them."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Names of all commands, in alphabetical order."""
        names = {module.name for module in pkgutil.iter_modules(bettersynth.cli.__path__)} - NO_COMMANDS
        return sorted(name.replace("_", "-") for name in names)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command of this name."""
        if name not in self.list_commands(context):
            return None
        command: click.Command = importlib.import_module(f"bettersynth.cli.{name.replace('-', '_')}").command
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """A line for each command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_line(name)) for name in self.list_commands(context)])


def _first_line(name: str) -> str:
    source = Path(bettersynth.cli.__path__[0], f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0].removesuffix(".")


@click.command(cls=Commands, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Which selection, and which rewriting, of image-caption pairs makes the best pretraining set?

    Completion in bash: eval "$(_BETTERSYNTH_COMPLETE=bash_source bettersynth)"
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")


def main() -> None:
    """Run the command that the arguments name; what a person can mend is said in a sentence, with exit status 1."""
    try:
        commands(prog_name="bettersynth")
    except PersonError as error:
        sys.exit(str(error))

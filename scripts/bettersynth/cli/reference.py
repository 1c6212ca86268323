"""Write what is generated: the schema and reference of the configuration, and the tables of the contest's guide.

`config/schema.json` and `docs/configuration.md` come from the configuration's types, the tables of `docs/contest.md`
from `config/contest.yaml` and `resources/contest/ledger.yaml` (`make reference`).
"""

from pathlib import Path

import click

from bettersynth.configuration import load
from bettersynth.configuration.ledger import read_ledger, with_tables
from bettersynth.configuration.reference import page, schema
from bettersynth.core.publish import publish

ROOT = Path(__file__).resolve().parents[3]


def guide() -> str:
    """The contest's guide with its tables written anew."""
    ledger = read_ledger(ROOT / "resources" / "contest" / "ledger.yaml")
    text = (ROOT / "docs" / "contest.md").read_text(encoding="utf-8")
    return with_tables(text, load(ROOT / "config" / "contest.yaml"), ledger)


@click.command(help=__doc__)
def command() -> None:
    """Write the three files."""
    for path, text in (
        (ROOT / "config" / "schema.json", schema()),
        (ROOT / "docs" / "configuration.md", page()),
        (ROOT / "docs" / "contest.md", guide()),
    ):
        with publish(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        click.echo(path.relative_to(ROOT))

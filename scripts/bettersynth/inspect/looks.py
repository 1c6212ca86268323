"""What commands that look at rows ask first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bettersynth.configuration.checks import unknown
from bettersynth.core.errors import PersonError
from bettersynth.core.records import POOL
from bettersynth.workflow.run import Run


def check_rows(run: Run, name: str) -> None:
    """That the rows of a dataset, or of the pool, are there; PersonError says what to type where they are not."""
    accepted = [POOL, *run.configuration.datasets]
    if name not in accepted:
        raise PersonError(unknown("DATASET", "dataset", name, accepted))
    path = run.layout.rows(name)
    if not path.exists():
        raise PersonError(
            f"{name} has no rows yet ({path} is not there); make them: "
            f"snakemake --configfile {run.config_file} --cores all -- {path}"
        )


@contextmanager
def told() -> Iterator[None]:
    """What is wrong with files that are read, stale or not on this machine, as a PersonError."""
    try:
        yield
    except FileNotFoundError as error:
        raise PersonError(f"{error.filename} is not on this machine; look where the run was made") from None
    except ValueError as error:
        raise PersonError(str(error)) from None

"""The costs of a run as a table for the terminal: by phase, with the rate of each kind of work and its source."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from bettersynth.inspect.cost import Line, Origin
from bettersynth.workflow.expected import Basis

MARKS = dict.fromkeys(Basis, "") | {Basis.PUBLISHED: "~", Basis.RECKONED: "~", Basis.AT_MOST: "≤"}
HEADINGS = ("", "jobs", "amount", "GPU h", "CPU h", "disk", "rate, and where it comes from")


def cost_table(lines: list[Line], resume_bytes: float) -> str:
    """The table, its total, and what to know about its figures. `resume_bytes`: of a state to resume from."""
    cells: list[tuple[str, ...]] = [HEADINGS]
    for phase, members in groupby(lines, key=lambda line: line.phase):
        found = list(members)
        cells.append(_sums(phase, found))
        cells.extend(_cells(line) for line in found)
    cells.append(_sums("total", lines))
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADINGS) - 1)]
    return "\n".join(["What it will cost", "", *(_row(row, widths) for row in cells), "", *_notes(lines, resume_bytes)])


def _row(cells: tuple[str, ...], widths: list[int]) -> str:
    name, *numbers = cells[:-1]
    aligned = [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True))]
    return "  ".join([*aligned, cells[-1]]).rstrip()


def _sums(name: str, lines: list[Line]) -> tuple[str, ...]:
    jobs = len(frozenset().union(*(line.jobs for line in lines)))
    gpu, cpu = sum(line.gpu_hours for line in lines), sum(line.cpu_hours for line in lines)
    return name, f"{jobs:,}", "", hours(gpu), hours(cpu), size(sum(line.size for line in lines)), ""


def _cells(line: Line) -> tuple[str, ...]:
    amount = f"{MARKS[line.basis]}{line.amount:,} {line.unit}" if line.unit else ""
    rate = f"{_rate(line.rate.per_second)}/s, {line.rate.origin}: {line.rate.detail}" if line.unit else ""
    return (
        f"  {line.what}",
        f"{len(line.jobs):,}",
        amount,
        hours(line.gpu_hours),
        hours(line.cpu_hours),
        size(line.size),
        rate,
    )


def _notes(lines: list[Line], resume_bytes: float) -> Iterator[str]:
    bases = {line.basis for line in lines}
    if Basis.AT_MOST in bases:
        yield "≤: at most so many; what a filter keeps is known once its scores are there."
    if bases & {Basis.PUBLISHED, Basis.RECKONED}:
        yield "~: as many as were published, or as follow from that or from what is made so far."
    guessed = [line for line in lines if line.rate.origin == Origin.GUESS and line.unit]
    if guessed:
        hours_guessed = sum(line.gpu_hours + line.cpu_hours for line in guessed)
        yield (
            f"Guesses make up {hours(hours_guessed)} of these hours; the first jobs of a kind that run here replace "
            "its guess."
        )
    if any(line.gpu_hours for line in lines):
        yield "GPU-hours are of one GPU; a job's CPU cores beside its GPU are not counted apart."
    if any(line.what == "finetune" for line in lines):
        yield f"While a stage 2 runs, its states to resume from take up to {size(resume_bytes)} more."


def hours(number: float) -> str:
    """Hours with two significant digits, `-` for none."""
    if not number:
        return "-"
    return (
        f"{number:,.0f}"
        if number >= 10
        else f"{number:.1f}"
        if number >= 1
        else f"{number:.2g}"
        if number >= 0.01
        else "<0.01"
    )


def size(number: float) -> str:
    """Bytes as a person says them: `12 kB`, `3.4 GB`."""
    if not number:
        return "-"
    units = iter(("bytes", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while number >= 999.5 and unit != "TB":
        number, unit = number / 1000, next(units)
    return f"{number:.0f} {unit}" if number >= 10 or unit == "bytes" else f"{number:.1f} {unit}"


def _rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"

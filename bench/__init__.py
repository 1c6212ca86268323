"""Benchmarks, one module each: what `python -m bench NAME` runs, and the file it leaves.

A module's docstring says what it measures; `add_arguments(parser)` declares its options; `measure(options)` runs both
sides of a comparison in one go and returns figures, flat name to number with the unit in the name. Modules import
nothing heavy at the top, because listing the commands imports them all.
"""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bettersynth.core.publish import write_json

ROOT = Path(__file__).resolve().parents[1]
MEASUREMENTS = ROOT / "docs" / "measurements"


def record(path: str | Path, command: str, figures: dict[str, float], device: str = "cpu") -> dict[str, Any]:
    """Publish figures with the command, the commit, the date and the machine they come from, and return all that.

    `device` is `cpu` or `cuda`; the figures keep their order.
    """
    measured = {
        "command": command,
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(device),
        "figures": figures,
    }
    write_json(path, measured, sort_keys=False)
    return measured


def commit() -> str | None:
    """The checkout's commit, with `-dirty` when files differ from it; None where there is none yet."""
    answer = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=40", "--match=-"],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() if answer.returncode == 0 else None


def machine(device: str) -> str:
    """What the figures were computed on: the GPUs that are visible, or the processor and its cores."""
    if device == "cuda":
        import torch

        count = torch.cuda.device_count()
        return (f"{count} × " if count > 1 else "") + torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {len(os.sched_getaffinity(0))} cores"

"""The toy additions: where they lie, and which files a thing is named in."""

import subprocess

from workflow import ROOT

TOYS = ROOT / "tests" / "toys"


def places(name: str) -> list[str]:
    """Files of the project, tests left out, that name a thing."""
    command = ["git", "grep", "--untracked", "--name-only", "--word-regexp", name, "--", ":!tests/**/test_*.py"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()

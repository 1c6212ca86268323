"""Two commits are timed in turns, each in a swept checkout of its own."""

import argparse
import subprocess

import pytest

from bench import times

MAKEFILE = """
setup:
	mkdir -p .venv
	echo setup $(SECONDS) >> ../said
demo:
	test -d .venv && test ! -e results
	touch results
	echo demo $(SECONDS) >> ../said
	sleep $(SECONDS)
"""


@pytest.fixture
def repository(tmp_path):
    """Two commits, the first of which takes longer."""
    folder = tmp_path / "repository"
    (folder / ".ci").mkdir(parents=True)
    (folder / ".ci" / "run").write_text("#!/bin/sh\ntest ! -e .venv && test ! -e results && make setup && make demo\n")
    (folder / ".ci" / "run").chmod(0o755)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    for seconds in (1, 0):
        (folder / "Makefile").write_text(f"SECONDS = {seconds}\n{MAKEFILE}")
        subprocess.run(["git", "add", "--all"], cwd=folder, check=True)
        author = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
        subprocess.run(["git", *author, "commit", "-qm", "state"], cwd=folder, check=True)
    return folder


def timed(repository, tmp_path, **options):
    return times.measure(
        argparse.Namespace(
            **{
                "before": "HEAD~1",
                "after": "HEAD",
                "rounds": 2,
                "only": None,
                "folder": tmp_path / "checkouts",
                "repository": repository,
                **options,
            }
        )
    )


def test_commits_take_turns_in_swept_checkouts(repository, tmp_path):
    figures = timed(repository, tmp_path)
    assert list(figures)[:5] == ["rounds", "demo_seconds_before", "demo_seconds", "ci_seconds_before", "ci_seconds"]
    assert figures["demo_seconds_before"] >= 1 and figures["ci_seconds_before"] >= 1
    assert figures["demo_seconds"] < 1 and figures["ci_seconds"] < 1 and "ci_cpu_seconds" in figures
    said = (tmp_path / "checkouts" / "said").read_text().splitlines()
    once = ["setup 1", "demo 1", "setup 0", "demo 0"]
    assert said == [*once, *once] * 2, "the demo of both, then the whole of both, twice"


def test_a_command_that_fails_says_what_it_printed(repository, tmp_path):
    with pytest.raises(RuntimeError, match=r"make setup failed in .*before"):
        (tmp_path / "checkouts" / "said").mkdir(parents=True)
        timed(repository, tmp_path, only="demo")

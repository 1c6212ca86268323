"""Every test of a fault in its long form: rows that held, points of kills, hostile inputs, corruptions, mutations."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from bench import ROOT
from bench._faults import FAULTS, write_document
from bettersynth.core.publish import read_json

FURTHER = ("tests/mutations", "tests/faults", "tests/inspect/test_audit.py", "tests/core/test_protections.py")
"""Tests beside those of the rows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--inputs", type=int, default=1_000_000, help="hostile inputs in all (default: %(default)s)")
    parser.add_argument("--points", type=int, default=0, help="kill points of each job, 0: all (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that test (default: %(default)s)")
    parser.add_argument("--records", type=int, default=410_000, help="records to audit (default: %(default)s)")
    parser.add_argument("--cases", type=Path, nargs="+", help="take what tests came to from these JUnit files instead")
    parser.add_argument("--audited", type=Path, help="take the audit's figures from this file of `bench audit`")
    parser.add_argument("--without", metavar="WORDS", help="tests to leave out, as `pytest -k` takes them")


class Case(NamedTuple):
    """A test that ran: its node id without parameters, how it ended, and the figures that it noted."""

    test: str
    outcome: str
    figures: dict[str, float]


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Run the tests and the audit of many records, write `docs/faults.md`; RuntimeError when a test failed."""
    with tempfile.TemporaryDirectory() as folder:
        reports = options.cases or [tested(Path(folder) / "cases.xml", options)]
        cases = [case for report in reports for case in cases_of(report)]
    audit = read_json(options.audited)["figures"] if options.audited else _audited(options.records)
    figures = figures_of(cases) | audit
    write_document(figures)
    if failed := [case.test for case in cases if case.outcome == "failed"]:
        raise RuntimeError(f"{len(failed)} tests failed, {failed[0]} the first: see above")
    return figures


def tested(report: Path, options: argparse.Namespace) -> Path:
    """Run the tests, those of the long form among them, and write what came of them as JUnit's XML."""
    rows = dict.fromkeys(f"tests/{test.partition('::')[0]}" for fault in FAULTS.values() for test in fault.tests)
    wanted = {f"tests/{test}" for fault in FAULTS.values() for test in fault.tests}
    files = [file for file in rows if not file.startswith(FURTHER)]
    nodes = [node for file in files for node in sorted(wanted) if node.startswith(f"{file}::")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}"]
    command += [f"--numprocesses={options.workers}", "--dist=loadfile", "-o", "junit_family=xunit1"]
    command += ["-k", f"not ({options.without})"] if options.without else []
    sizes = {"FAULTS_INPUTS": str(options.inputs), "FAULTS_POINTS": str(options.points)}
    subprocess.run([*command, *FURTHER, *nodes], cwd=ROOT, env=os.environ | sizes, check=False)
    return report


def cases_of(report: Path) -> list[Case]:
    """What came of the tests of a JUnit file; of a run that was cut short, of those that had ended."""
    return [_case(element) for element in ElementTree.parse(report).iter("testcase")]


def _case(element: ElementTree.Element) -> Case:
    name = element.attrib["name"].partition("[")[0]
    test = f"{element.attrib['classname'].removeprefix('tests.').replace('.', '/')}.py::{name}"
    kinds = {child.tag for child in element}
    outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
    noted = {entry.attrib["name"]: float(entry.attrib["value"]) for entry in element.iter("property")}
    return Case(test, outcome, noted)


def figures_of(cases: list[Case]) -> dict[str, float]:
    """Rows whose tests held, and the sums of what tests noted."""
    outcomes: dict[str, Counter[str]] = {}
    noted: Counter[str] = Counter()
    for case in cases:
        outcomes.setdefault(case.test, Counter())[case.outcome] += 1
        noted.update(case.figures)
    by_row = {
        number: sum((outcomes.get(test, Counter()) for test in fault.tests), Counter())
        for number, fault in FAULTS.items()
    }
    held = [number for number, row in by_row.items() if row["passed"] and not row["failed"]]
    planted = outcomes.get("inspect/test_audit.py::test_a_corruption_is_found_and_named_first", Counter())
    mutations = outcomes.get("mutations/test_mutations.py::test_a_protection_that_is_gone_is_missed", Counter())
    return {
        "fault_rows": len(FAULTS),
        "fault_rows_tested": len(held),
        "corruptions_planted": planted.total(),
        "corruptions_found": planted["passed"],
        "mutations": mutations.total(),
        "mutations_noticed": mutations["passed"],
        **dict(sorted(noted.items())),
        **{f"row_{number}_tests_passed": row["passed"] for number, row in by_row.items()},
    }


def _audited(records: int) -> dict[str, float]:
    from bench.audit import audited

    return audited(records)

"""The table of faults: a test for every row, and a page that says what the table says."""

from __future__ import annotations

import argparse
import ast

import pytest

from bench import ROOT, faults
from bench._faults import DOCUMENT, FAULTS, KEPT, document
from bettersynth.core.publish import read_json


def test_every_row_has_tests_that_are_there():
    assert list(FAULTS) == list(range(1, 31))
    for number, fault in FAULTS.items():
        assert fault.tests, f"row {number} has no test"
        for test in fault.tests:
            file, _, name = test.partition("::")
            tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
            names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert name in names, f"row {number}: {file} has no {name}"


def test_the_page_is_written_from_the_table():
    figures = read_json(KEPT)["figures"] if KEPT.exists() else {}
    assert DOCUMENT.read_text(encoding="utf-8") == document(figures), "write it anew: python -m bench._faults"


def test_rows_are_counted_by_what_their_tests_did(tmp_path, monkeypatch):
    """A row whose tests were all skipped, or of which one failed, is not counted as tested."""
    report = tmp_path / "cases.xml"
    cases = "".join(
        f'<testcase classname="tests.{file.removesuffix(".py").replace("/", ".")}" name="{name}[1]">{inside}</testcase>'
        for number, inside in ((28, ""), (29, "<skipped/>"), (30, "<failure/>"))
        for file, _, name in [FAULTS[number].tests[0].partition("::")]
    )
    noted = '<properties><property name="kill_points" value="7"/></properties>'
    cases += f'<testcase classname="tests.faults.test_other" name="test_other">{noted}</testcase>'
    report.write_text(f"<testsuites>{cases}</testsuites>")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: None)
    options = argparse.Namespace(inputs=1, points=1, workers=1, without=None)
    figures = faults.figures_of(faults.cases_of(faults.tested(report, options)))
    assert (figures["fault_rows"], figures["fault_rows_tested"], figures["kill_points"]) == (30, 1, 7)
    assert figures["row_28_tests_passed"] == 1 and figures["row_29_tests_passed"] == 0
    assert "| 1 held |" in document(figures) and "killed at 7 places" in document(figures)


def test_a_failed_test_is_an_error_after_the_page_is_written(monkeypatch):
    case = faults.Case("faults/test_other.py::test_other", "failed", {})
    written = []
    monkeypatch.setattr(faults, "cases_of", lambda _: [case])
    monkeypatch.setattr(faults, "_audited", lambda _: {})
    monkeypatch.setattr(faults, "write_document", written.append)
    with pytest.raises(RuntimeError, match="1 tests failed, faults/test_other"):
        faults.measure(argparse.Namespace(records=1, audited=None, cases=["any.xml"]))
    assert written

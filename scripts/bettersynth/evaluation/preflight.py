"""The benchmarks' questions, annotations and pictures, looked at before any training is paid for."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bettersynth.configuration.benchmark import Benchmark, CellError, Question
from bettersynth.configuration.pool import Reading
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.parallel import map_threads
from bettersynth.core.progress import progress
from bettersynth.core.publish import Card, sha256_file
from bettersynth.pool.images import ImageProblem, check_image
from bettersynth.training.mgm.conversations import question_problem
from bettersynth.training.preflight import Finding, PreflightError, explain, write_findings

logger = logging.getLogger(__name__)

Numbered = tuple[int, Question]
"""A question, and the number of its row."""


def check_questions(name: str, configuration: Configuration, layout: Layout) -> dict[str, Any]:
    """Look at all that a benchmark reads; write and return the card.

    A benchmark is asked whole: PreflightError lists all that would stop it.
    """
    benchmark = configuration.benchmarks[name]
    file, record = benchmark.questions, layout.findings(layout.questions_card(name))
    card = Card(benchmark=name, inputs={path: sha256_file(path) for path in benchmark.files})
    findings: list[Finding] = []
    questions: list[Numbered] = []
    rows: list[Any] = []
    try:
        if not (rows := list(benchmark.rows())):
            raise ValueError("holds no question")
        questions += _askable(benchmark, rows, findings)
        ids = {number: str(question.id) for number, question in questions}
        for fault in benchmark.faults(rows):
            row_id = ids.get(fault.row, str(fault.row))
            findings.append(Finding(fault.row, row_id, fault.key, file, fault.key, fault.detail))
    except Exception as error:  # readers of JSON and tables fail in many ways; all mean the same here
        findings.append(Finding(0, "-", "file", file, "unreadable file", f"{', '.join(benchmark.files)}: {error}"))
    findings += _bad_pictures(questions, file, configuration.pool.reading)
    write_findings(record, findings)
    if findings:
        lines = explain(f"{name} {file}", findings, len(rows), record)
        lines.append("A benchmark is asked whole: mend its files and pictures, and run again.")
        raise PreflightError("\n".join(lines))
    remarks = benchmark.remarks(rows)
    for words, count in remarks.items():
        logger.info("%s: %s rows: %s", file, f"{count:,}", words)
    told = {"remarks": remarks} if remarks else {}
    return card.write(layout.questions_card(name), beside=[record], questions=len(rows), **told)


def _askable(benchmark: Benchmark, rows: list[Any], findings: list[Finding]) -> Iterator[Numbered]:
    """The questions that can be asked but for their pictures; what is wrong with the others joins the findings."""
    file = benchmark.questions
    for number, row in enumerate(rows, 1):
        row_id = str(next(iter(row.values()), number)) if isinstance(row, dict) else str(number)
        try:
            question, _ = benchmark.ask(row)
        except ImageProblem as problem:
            findings.append(Finding(number, row_id, "image", file, str(problem.reason), problem.detail))
        except KeyError as error:
            findings.append(Finding(number, row_id, str(error.args[0]), file, "missing key", f"no {error}"))
        except CellError as error:
            findings.append(Finding(number, row_id, error.key, file, error.key, error.detail))
        except (TypeError, ValueError, AttributeError) as error:
            findings.append(Finding(number, row_id, "row", file, "odd row", str(error)))
        else:
            if problem_of_text := question_problem(question.prompt):
                reason, detail = problem_of_text.reason, problem_of_text.detail
                findings.append(Finding(number, str(question.id), "text", file, reason, detail))
            yield number, question


def _bad_pictures(questions: list[Numbered], file: str, reading: Reading) -> list[Finding]:
    """Findings of pictures that cannot be opened; every one is decoded, a file once."""
    files = {question.image: (number, question) for number, question in questions if isinstance(question.image, Path)}
    inside = [(number, question) for number, question in questions if isinstance(question.image, bytes)]

    def look(numbered: Numbered) -> Finding | None:
        number, question = numbered
        try:
            check_image(question.image, reading, decode=True)
        except ImageProblem as problem:
            where = str(question.image) if isinstance(question.image, Path) else file
            return Finding(number, str(question.id), "image", where, str(problem.reason), problem.detail)
        return None

    pictured = [*files.values(), *inside]
    found = progress(map_threads(look, pictured, os.cpu_count() or 1), len(pictured), "pictures of questions")
    return [finding for finding in found if finding is not None]

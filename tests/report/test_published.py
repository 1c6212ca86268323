"""The contest's published tables claim nothing that one run of each recipe cannot show."""

import copy
from pathlib import Path

import pytest
from click.testing import CliRunner

from bettersynth.cli.published import LEDGER, command
from bettersynth.configuration.ledger import read_ledger
from bettersynth.report.published import PublishedBoard

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ledger():
    return read_ledger(ROOT / LEDGER)


@pytest.mark.parametrize(("letters", "rows"), [("SDT", 15), ("L", 10)])
def test_no_pair_survives_the_correction(ledger, letters, rows):
    board = PublishedBoard(ledger, letters)
    pairs = board.pairs()
    assert len(pairs) == rows * (rows - 1) / 2 and board.scatter == pytest.approx(0.095, abs=0.001)
    assert all(pair.p_holm > 0.05 for pair in pairs) and any(pair.difference.p <= 0.05 for pair in pairs)
    assert "none after Holm's correction" in board.sentence()


def test_ratios_are_whole_questions_and_another_is_refused(ledger):
    board = PublishedBoard(ledger, "SDTL")
    rows = {name: row for name, row in ledger["rows"].items() if "hits" in row}
    assert len(rows) > 30 and {name: board.hits(row) for name, row in rows.items()} == {
        name: row["hits"] for name, row in rows.items()
    }
    wrong = copy.deepcopy(ledger)
    wrong["rows"]["S1"]["mmbench"] = 1.0400
    with pytest.raises(ValueError, match="no whole number"):
        PublishedBoard(wrong, "SDT")


def test_a_difference_beyond_luck_would_be_seen(ledger):
    larger = copy.deepcopy(ledger)
    larger["rows"]["S3"] |= {"mmbench": 6.9936, "textvqa": 9.0}
    surest, *_ = PublishedBoard(larger, "SDT").pairs()
    assert "S3" in (surest.first, surest.second) and surest.p_holm <= 0.05


def test_the_command_prints_a_sentence_for_each_table(monkeypatch):
    monkeypatch.chdir(ROOT)
    told = CliRunner().invoke(command, []).output
    assert told.count("after Holm's correction") == 2 and "D3 over T4" in told

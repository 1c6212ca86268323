"""What the configuration alone decides: sources, shards and scores of each dataset."""

from __future__ import annotations

import pytest

from bettersynth.configuration import configure
from bettersynth.workflow.plan import Plan, Scores


@pytest.fixture
def plan() -> Plan:
    return Plan(
        configure(
            {
                "pool": {
                    "files": [{"name": "a", "path": "a.jsonl", "shards": 2}, {"name": "b", "path": "b.jsonl"}],
                    "images": ".",
                },
                "models": {"clip": {"path": "clip"}, "blip2": {"path": "blip2"}},
                "operators": {
                    "similarity": {"op": "image_text_similarity_filter", "model": "clip"},
                    "words": {"op": "words_num_filter"},
                    "hashes": {"op": "image_hash"},
                },
                "captioners": {"blip2": {"model": "blip2"}},
                "datasets": {
                    "weak": {"from": "pool", "filter": {"similarity": {"max": 0.28}}},
                    "rewritten": {"from": "weak", "recaption": {"captioner": "blip2", "shards": 2}},
                    "better": {"from": "rewritten", "filter": {"similarity": {"min": 0.28}}},
                    "spliced": {"from": "pool", "splice": "better"},
                    "best": {"from": "spliced", "rank": {"by": {"similarity": 1, "words": 0.1}, "top": 10}},
                    "clean": {"from": "spliced", "clean": True},
                    "rest": {"from": "pool", "subtract": "clean"},
                    "unique": {"from": "spliced", "dedup": {"by": "image"}},
                    "unlike": {"from": "clean", "dedup": {"by": "text"}},
                },
            },
            "test.yaml",
        )
    )


def test_shards_are_named_for_their_file_or_source(plan):
    assert plan.shards("pool") == ["a-0000", "a-0001", "b-0000"]
    assert plan.shards("rewritten") == ["rewritten-0000", "rewritten-0001"]


@pytest.mark.parametrize(
    ("dataset", "sources"),
    [
        ("pool", ("pool",)),
        ("weak", ("pool",)),
        ("rewritten", ("rewritten",)),
        ("better", ("rewritten",)),
        ("spliced", ("pool", "rewritten")),
        ("clean", ("pool", "clean", "rewritten")),
        ("rest", ("pool",)),
    ],
)
def test_sources_that_rows_may_name(plan, dataset, sources):
    assert plan.sources(dataset) == sources


def test_a_dataset_reads_the_scores_of_its_parents_sources_only(plan):
    assert plan.scores("better") == [Scores("rewritten", "similarity")]
    assert set(plan.scores("best")) == {
        (source, operator) for source in ("pool", "rewritten") for operator in ("similarity", "words")
    }
    assert {score.operator for score in plan.scores("unique")} == {"hashes"}
    assert plan.scores("spliced") == []


def test_records_are_read_only_where_text_matters(plan):
    assert plan.reads_records("unlike") == ("pool", "clean", "rewritten")
    assert plan.reads_records("rewritten") == ("rewritten",)
    assert plan.reads_records("best") == ()


def test_lineage_and_what_generators_were_asked(plan):
    assert plan.lineage("spliced") == ("weak", "rewritten", "better", "spliced")
    assert plan.asked("better") == ["weak"]
    assert plan.asked("weak") == []

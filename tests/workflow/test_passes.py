"""Which operators score which shards together."""

from __future__ import annotations

import pytest

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, write_json
from bettersynth.workflow.passes import Chunk, Passes, chunk_name, chunk_shards
from bettersynth.workflow.plan import Plan, Scores

CONFIGURATION = Configuration.model_validate(
    {
        "pool": {
            "files": [{"name": "a", "path": "a.jsonl", "shards": 5}, {"name": "b", "path": "b.jsonl", "shards": 2}],
            "images": "images",
        },
        "operators": {
            "similarity": {"op": "image_text_similarity_filter"},
            "matching": {"op": "image_text_matching_filter"},
            "words": {"op": "words_num_filter"},
        },
    }
)
ALL = {Scores("pool", "similarity"), Scores("pool", "matching"), Scores("pool", "words")}


@pytest.fixture
def passes(tmp_path):
    """Passes of jobs of at most three shards; `settings` stand for the operators' fingerprints."""

    def make(wanted=ALL, **settings):
        return Passes(Plan(CONFIGURATION), Layout(tmp_path), lambda name: settings.get(name, name), lambda: wanted, 3)

    return make


def done(tmp_path, chunks):
    for chunk in chunks:
        layout = Layout(tmp_path)
        operators = read_json(layout.scoring_pass(chunk.scoring))["operators"]
        shards = {shard: {"scores": operators} for shard in chunk_shards(chunk.chunk)}
        for shard, scores in shards.items():
            for operator, key in scores["scores"].items():
                table = layout.score_shard("pool", operator, shard, key)
                table.parent.mkdir(parents=True, exist_ok=True)
                table.touch()
                table.with_suffix(".json").touch()
        write_json(layout.pass_card("pool", *chunk), {"shards": shards})


def test_names_of_chunks():
    assert chunk_name(["a-0003"]) == "a-0003-0003"
    assert chunk_shards("stage_1-0009-0011") == ["stage_1-0009", "stage_1-0010", "stage_1-0011"]


def test_operators_of_one_device_share_a_pass_and_jobs_stay_within_a_file(passes):
    planned = passes()
    similarity = planned.chunks("pool", "similarity")
    assert [chunk.chunk for chunk in similarity] == ["a-0000-0002", "a-0003-0004", "b-0000-0001"]
    assert similarity == planned.chunks("pool", "matching")
    assert planned.operators(similarity[0].scoring) == {"similarity": "similarity", "matching": "matching"}
    words = planned.chunks("pool", "words")
    assert planned.operators(words[0].scoring) == {"words": "words"}
    assert similarity[0].scoring.startswith("gpu-") and words[0].scoring.startswith("cpu-")


def test_only_what_a_run_asks_for_is_scored(passes):
    planned = passes({Scores("pool", "similarity")})
    alone = planned.chunks("pool", "similarity")
    assert planned.operators(alone[0].scoring) == {"similarity": "similarity"}
    other = planned.chunks("pool", "matching")
    assert planned.operators(other[0].scoring) == {"matching": "matching"}
    assert planned.chunks("pool", "similarity") == alone


def test_a_new_or_changed_operator_is_scored_by_itself(passes, tmp_path):
    first = passes({Scores("pool", "similarity")})
    done(tmp_path, first.chunks("pool", "similarity"))
    then = passes()
    assert then.chunks("pool", "similarity") == first.chunks("pool", "similarity")
    assert then.operators(then.chunks("pool", "matching")[0].scoring) == {"matching": "matching"}
    done(tmp_path, then.chunks("pool", "matching"))
    changed = passes(similarity="another model")
    assert changed.operators(changed.chunks("pool", "similarity")[0].scoring) == {"similarity": "another model"}
    assert changed.chunks("pool", "matching") == then.chunks("pool", "matching")


def test_an_operator_that_changed_takes_nothing_from_the_others_of_its_pass(passes, tmp_path):
    before = passes().chunks("pool", "matching")
    done(tmp_path, before)
    changed = passes(similarity="another model")
    assert changed.chunks("pool", "matching") == before
    [due] = {chunk.scoring for chunk in changed.chunks("pool", "similarity")}
    assert changed.operators(due) == {"similarity": "another model"}


def test_scores_that_a_pass_left_out_when_it_ran_again_are_due(passes, tmp_path):
    first = passes().chunks("pool", "matching")[0]
    done(tmp_path, passes().chunks("pool", "matching"))
    card = Layout(tmp_path).pass_card("pool", *first)
    for entry in (content := read_json(card))["shards"].values():
        del entry["scores"]["similarity"]
    write_json(card, content)
    planned = passes()
    assert planned.chunks("pool", "matching")[0] == first
    due = planned.chunks("pool", "similarity")[-1]
    assert due.chunk == first.chunk and planned.operators(due.scoring) == {"similarity": "similarity"}


def test_an_interrupted_run_goes_on_with_the_jobs_that_are_left(passes, tmp_path):
    before = passes().chunks("pool", "matching")
    done(tmp_path, before[1:2])
    assert sorted(passes().chunks("pool", "matching")) == sorted(before)


def test_jobs_of_another_size_do_not_score_again(passes, tmp_path):
    before = passes().chunks("pool", "matching")
    done(tmp_path, before)
    for size in (1, 16):
        planned = Passes(Plan(CONFIGURATION), Layout(tmp_path), lambda name: name, lambda: ALL, size)
        assert planned.chunks("pool", "matching") == before


def test_scores_of_shards_that_are_no_more_do_not_count(passes, tmp_path):
    gone = Chunk(passes().chunks("pool", "matching")[0].scoring, "a-0004-0006")
    done(tmp_path, [gone])
    assert gone not in passes().chunks("pool", "matching")


def test_jobs_that_hand_shards_to_a_ray_ask_for_no_gpu_and_score_nothing_again(passes, tmp_path):
    first = passes({Scores("pool", "similarity")})
    done(tmp_path, first.chunks("pool", "similarity"))
    scoring = CONFIGURATION.scoring.model_copy(update={"engine": "ray", "ray_address": "auto"})
    plan = Plan(CONFIGURATION.model_copy(update={"scoring": scoring}))
    on_ray = Passes(plan, Layout(tmp_path), lambda name: name, lambda: ALL, 3)
    assert on_ray.chunks("pool", "similarity") == first.chunks("pool", "similarity")
    [due] = {chunk.scoring for chunk in on_ray.chunks("pool", "matching")}
    assert due.startswith("cpu-") and on_ray.operators(due) == {"matching": "matching", "words": "words"}

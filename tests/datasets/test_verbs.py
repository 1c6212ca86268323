"""Each verb on rows in memory, and the promises that hold for all of them: order, ids, a ledger that adds up."""

import math
import random
from collections import Counter
from importlib import import_module

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import MemoryStep, pairs_of

from bettersynth.configuration import verb
from bettersynth.configuration.threshold import Threshold
from bettersynth.core.records import ROWS, text_of
from bettersynth.datasets import dedup
from bettersynth.datasets.build import applied
from bettersynth.datasets.ledger import Reasons
from bettersynth.datasets.values import values_of
from bettersynth.datasets.verbs.dedup import Dedup
from bettersynth.datasets.verbs.filter import drop_outside
from bettersynth.datasets.verbs.intersect import Intersect
from bettersynth.datasets.verbs.rank import Rank, mean_per_row
from bettersynth.datasets.verbs.repeat import Repeat
from bettersynth.datasets.verbs.resample import Resample
from bettersynth.datasets.verbs.sample import Sample
from bettersynth.datasets.verbs.splice import Splice
from bettersynth.datasets.verbs.subtract import Subtract
from bettersynth.datasets.verbs.union import Union

# --- rows in memory ------------------------------------------------------------------------------

IDS = st.sampled_from([f"r{number}" for number in range(12)])


def rows_of(ids, source="pool") -> pa.Table:
    """Rows with one source for all ids, or `{id: source}`."""
    sources = [source[name] if isinstance(source, dict) else source for name in ids]
    return pa.table([pa.array(list(ids), pa.string()), pa.array(sources, pa.string())], ROWS)


some_rows = st.lists(IDS, max_size=20).map(rows_of)
distinct_rows = st.lists(IDS, max_size=12, unique=True).map(rows_of)


def check(outcome, rows):
    """What holds for every verb that only leaves rows out."""
    ledger = outcome.ledger()
    assert ledger["in"] + ledger["added"] == ledger["out"] + sum(ledger["dropped"].values())
    kept, dropped = pairs_of(outcome.rows), pairs_of(outcome.dropped)
    assert Counter(kept) + Counter(dropped) == Counter(pairs_of(rows)), "no row is lost or made"
    iterator = iter(pairs_of(rows))
    assert all(row in iterator for row in kept), "order is the parent's"


@given(some_rows, some_rows, some_rows)
def test_intersect_and_subtract_share_out_the_rows(rows, first, second):
    inside = Intersect(["a", "b"]).apply(MemoryStep(rows, others={"a": first, "b": second}))
    outside = Subtract(["a", "b"]).apply(MemoryStep(rows, others={"a": first, "b": second}))
    check(inside, rows)
    check(outside, rows)
    ids, one, two = (set(table["id"].to_pylist()) for table in (rows, first, second))
    assert set(inside.rows["id"].to_pylist()) == ids & one & two
    assert set(outside.rows["id"].to_pylist()) == ids - one - two
    assert set(outside.ledger()["dropped"]) <= {"in a", "in b"}
    assert set(inside.ledger()["dropped"]) <= {"not in a", "not in b"}


@given(distinct_rows, distinct_rows)
def test_union_keeps_the_first_of_each_id(one, two):
    other = rows_of(two["id"].to_pylist(), "new")
    outcome = Union(["two"]).apply(MemoryStep(one, others={"two": other}))
    check(outcome, pa.concat_tables([one, other]))
    expected = dict(pairs_of(other)) | dict(pairs_of(one))
    assert dict(pairs_of(outcome.rows)) == expected
    assert outcome.rows.num_rows == len(expected)


@given(some_rows, distinct_rows, st.booleans())
def test_splice_changes_sources_only(rows, other, drop):
    new = rows_of(other["id"].to_pylist(), "new")
    asked = rows_of(sorted({*other["id"].to_pylist(), "r0", "r1"}))
    verb = Splice(dataset="better", unmatched="drop" if drop else "keep")
    outcome = verb.apply(MemoryStep(rows, others={"better": new}, asked=[asked]))
    ledger = outcome.ledger()
    improved = set(new["id"].to_pylist())
    failed = {"r0", "r1"} - improved if drop else set()
    expected = [(name, "new" if name in improved else "pool") for name, _ in pairs_of(rows) if name not in failed]
    assert pairs_of(outcome.rows) == expected
    assert ledger["changed"] == sum(source == "new" for _, source in expected)
    assert set(ledger["dropped"]) <= {"rewritten, not in better"}
    assert all(name in failed for name, _ in pairs_of(outcome.dropped))


@given(some_rows, st.integers(1, 5))
def test_repeat_is_the_whole_set_again(rows, times):
    outcome = Repeat(times).apply(MemoryStep(rows))
    assert pairs_of(outcome.rows) == pairs_of(rows) * times
    ledger = outcome.ledger()
    assert (ledger["in"], ledger["out"]) == (rows.num_rows, rows.num_rows * times)


@given(distinct_rows, st.integers(1, 15), st.integers(0, 3), st.randoms(use_true_random=False))
def test_a_sample_depends_on_seed_and_ids_only(rows, size, seed, chance):
    outcome = Sample(rows=size, seed=seed).apply(MemoryStep(rows))
    check(outcome, rows)
    assert outcome.rows.num_rows == min(size, rows.num_rows)
    order = list(range(rows.num_rows))
    chance.shuffle(order)
    shuffled = Sample(rows=size, seed=seed).apply(MemoryStep(rows.take(pa.array(order, pa.int64()))))
    assert set(pairs_of(shuffled.rows)) == set(pairs_of(outcome.rows))


def test_samples_of_one_seed_are_nested_and_seeds_differ():
    rows = rows_of([f"{number}" for number in range(1000)])
    small, large = (set(Sample(rows=n).apply(MemoryStep(rows)).rows["id"].to_pylist()) for n in (100, 300))
    assert small < large
    other = set(Sample(rows=100, seed=1).apply(MemoryStep(rows)).rows["id"].to_pylist())
    assert len(small & other) < 30
    assert Sample(fraction=0.25).apply(MemoryStep(rows)).rows.num_rows == 250


@given(some_rows, some_rows, st.integers(0, 3), st.randoms(use_true_random=False))
def test_a_sample_like_another_has_as_many_ids_each_as_often(rows, other, seed, chance):
    verb = Sample(like="other", seed=seed)
    outcome = applied(verb, MemoryStep(rows, others={"other": other}))
    ledger = outcome.ledger()
    found, wanted = (Counter(table["id"].to_pylist()) for table in (outcome.rows, other))
    there = set(rows["id"].to_pylist())
    assert (ledger["in"], ledger["out"]) == (rows.num_rows, other.num_rows if there else 0)
    if len(there) >= len(wanted):
        assert sorted(found.values()) == sorted(wanted.values())
    else:
        assert found.keys() == (there if wanted else set()), "of too few, all"
    order = list(range(rows.num_rows))
    chance.shuffle(order)
    shuffled = applied(verb, MemoryStep(rows.take(pa.array(order, pa.int64())), others={"other": other}))
    assert Counter(shuffled.rows["id"].to_pylist()) == found, "by seed and ids, whatever the rows' order"


def test_a_sample_like_a_repeated_set_is_a_whole_set_again():
    rows, other = rows_of([f"{number}" for number in range(1000)]), rows_of([*"abcdefgh"] * 3)
    drawn = Sample(like="other").apply(MemoryStep(rows, others={"other": other})).rows["id"].to_pylist()
    assert drawn == drawn[:8] * 3 and drawn[:8] == sorted(drawn[:8], key=int)
    once = Sample(rows=8).apply(MemoryStep(rows)).rows["id"].to_pylist()
    assert drawn[:8] == once, "the ids that a sample of the same seed has"


@given(some_rows.filter(lambda rows: rows.num_rows > 0), st.integers(1, 60), st.randoms(use_true_random=False))
def test_drawing_with_replacement_depends_on_seed_and_ids_only(rows, size, chance):
    outcome = Resample(rows=size, seed=3).apply(MemoryStep(rows))
    ledger = outcome.ledger()
    assert (ledger["in"], ledger["out"]) == (rows.num_rows, size)
    assert set(pairs_of(outcome.rows)) <= set(pairs_of(rows))
    order = list(range(rows.num_rows))
    chance.shuffle(order)
    shuffled = Resample(rows=size, seed=3).apply(MemoryStep(rows.take(pa.array(order))))
    assert Counter(pairs_of(shuffled.rows)) == Counter(pairs_of(outcome.rows))


def test_every_row_is_as_likely_to_be_drawn():
    rows = rows_of([f"{number}" for number in range(500)])
    outcome = Resample(rows=2000).apply(MemoryStep(rows))
    counts = Counter(Counter(outcome.rows["id"].to_pylist()).values())
    undrawn = outcome.dropped.num_rows
    poisson = [500 * math.exp(-4) * 4**times / math.factorial(times) for times in range(8)]
    assert abs(undrawn - poisson[0]) < 12
    assert all(abs(counts[times] - poisson[times]) < 35 for times in range(1, 8))
    twice = Resample(rows=9000).apply(MemoryStep(rows_of(["a", "a", "b"])))
    assert 5700 < Counter(twice.rows["id"].to_pylist())["a"] < 6300, "a row that is there twice is drawn twice as often"


def ranked(rows, score, **parameters):
    values = values_of("x.y", pa.array(score, pa.float64()))
    return Rank(by="x", **parameters).apply(MemoryStep(rows, values={"x": values}))


@given(st.lists(st.tuples(IDS, st.sampled_from([0.0, 0.5, 1.0])), unique_by=lambda item: item[0]), st.data())
def test_rank_takes_a_run_of_the_best_with_ties_by_id(scored, data):
    skip, top = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 6))
    rows, score = rows_of([name for name, _ in scored]), [value for _, value in scored]
    outcome = ranked(rows, score, top=top, skip=skip)
    check(outcome, rows)
    best = sorted(scored, key=lambda item: (-item[1], item[0]))
    assert {name for name, _ in best[skip : skip + top]} == set(outcome.rows["id"].to_pylist())
    dropped = outcome.ledger()["dropped"]
    assert dropped.get("rank: skipped best", 0) == min(skip, len(scored))


def test_rank_by_lowest_by_fraction_and_without_score():
    rows = rows_of("abcd")
    outcome = ranked(rows, [3.0, 1.0, math.nan, 2.0], fraction=0.5, descending=False)
    assert outcome.rows["id"].to_pylist() == ["b", "d"]
    assert outcome.ledger()["dropped"] == {"rank: below the cut": 1, "x.y not a number": 1}
    assert outcome.dropped["value"].to_pylist() == ["3", None]


# --- keep rule -----------------------------------------------------------------------------------

numbers = st.floats(-2, 2) | st.sampled_from([0.0, 0.25, 0.5, 1.0])


@pytest.fixture(scope="module")
def data_juicer_filter():
    """Data-Juicer's own filter over a list of numbers, without a model."""
    from data_juicer.ops.filter.image_aspect_ratio_filter import ImageAspectRatioFilter

    return ImageAspectRatioFilter


def reasons_by(values, **threshold):
    reasons = Reasons(len(values.counts))
    drop_outside(reasons, values, Threshold(**threshold))
    return reasons


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(numbers, min_size=1, max_size=4), min_size=1, max_size=6),
    st.tuples(numbers, numbers).map(sorted),
    st.sampled_from(["any", "all"]),
)
def test_the_keep_rule_is_data_juicers(data_juicer_filter, lists, bounds, strategy):
    low, high = bounds
    operator = data_juicer_filter(min_ratio=low, max_ratio=high, any_or_all=strategy)
    theirs = list(operator.process_batched({"__dj__stats__": [{"aspect_ratios": values} for values in lists]}))
    ours = reasons_by(values_of("shape.aspect_ratios", pa.array(lists)), min=low, max=high, any_or_all=strategy)
    assert ours.stays.tolist() == theirs


def test_a_row_is_dropped_for_its_first_value_outside():
    column = pa.array([[0.1], [0.9], [], None, [float("nan")], [None], [0.5, 0.9], [0.9, 0.1], [0.2], [0.8]])
    threshold = {"min": 0.2, "max": 0.8}
    below, above = "op.stat below 0.2", "op.stat above 0.8"
    none, nan = "op.stat no value", "op.stat not a number"
    values = values_of("op.stat", column)
    any_of = [below, above, none, none, nan, nan, None, above, None, None]
    all_of = [below, above, none, none, nan, nan, above, above, None, None]
    assert reasons_by(values, **threshold).words() == any_of
    assert reasons_by(values, **threshold, any_or_all="all").words() == all_of
    found = reasons_by(values, **threshold).columns()[2].to_pylist()
    assert found == ["0.1", "0.9", None, None, "nan", "nan", None, "0.9", None, None], "the value that decided"


def test_plain_numbers_and_words_have_thresholds_too():
    counts = values_of("words.num_words", pa.array([3, None, 12]))
    assert reasons_by(counts, min=10).words() == [
        "words.num_words below 10",
        "words.num_words no value",
        None,
    ]
    words = values_of("language.lang", pa.array(["en", "zh", None]))
    assert reasons_by(words, one_of=["en", "fr"]).words() == [
        None,
        "language.lang not one of en, fr",
        "language.lang no value",
    ]
    with pytest.raises(ValueError, match="is a word"):
        reasons_by(words, min=1)
    with pytest.raises(ValueError, match="is a number"):
        reasons_by(counts, one_of=["en"])


def test_a_record_with_several_values_is_ranked_by_their_mean():
    reasons = Reasons(4)
    means = mean_per_row(values_of("op.stat", pa.array([[1.0, 2.0], [], [5.0], [1.0, None]])), reasons)
    np.testing.assert_array_equal(means, [1.5, np.nan, 5.0, np.nan])
    assert reasons.words() == [None, "op.stat no value", None, "op.stat not a number"]


def test_the_ledger_refuses_not_to_add_up():
    outcome = Repeat(2).apply(MemoryStep(rows_of("ab")))
    with pytest.raises(AssertionError, match="is not out"):
        outcome._replace(added=0).ledger()


# --- deduplication -------------------------------------------------------------------------------


def by_text(captions, similarity=None):
    """Reasons in words, and values, of rows with these captions; their ids are their places."""
    near = {"near": True, "similarity": similarity} if similarity else {}
    step = MemoryStep(
        rows_of([str(place) for place in range(len(captions))]),
        records=pa.table({"text": list(map(text_of, captions))}),
    )
    return reasons_by_id(Dedup(by="text", **near).apply(step), len(captions))


def by_image(digests, hashes, distance):
    """The same of rows with these images."""
    scores = pa.table({"id": list(map(str, range(len(digests)))), "image_sha256": digests, "image_phash": hashes})
    step = MemoryStep(rows_of([str(place) for place in range(len(digests))]), scores={"image_hash": scores})
    return reasons_by_id(Dedup(by="image", near=True, distance=distance).apply(step), len(digests))


def reasons_by_id(outcome, count):
    dropped = {row["id"]: (row["key"], row["value"]) for row in outcome.dropped.to_pylist()}
    return [dropped.get(str(place), (None, None)) for place in range(count)]


def test_equal_and_near_captions_go_and_the_first_stays():
    long = "a red car parked in front of an old brick house on a sunny winter day in the quiet part of town"
    captions = [long, "a cat", long, long + " today", "a dog", "a cat", "two", "two"]
    twins = {2: "0", 5: "1", 7: "6"}
    exact = [("duplicate text", twins[place]) if place in twins else (None, None) for place in range(8)]
    assert by_text(captions) == exact
    exact[3] = ("near-duplicate text", "0")
    assert by_text(captions, 0.9) == exact


def test_near_captions_of_languages_without_blanks_go():
    chinese = "一只白色的小狗坐在客厅的灰色沙发上看着窗外的花园和远处的山"
    thai = "สุนัขสีขาวตัวเล็กนั่งอยู่บนโซฟาสีเทาในห้องนั่งเล่นและมองออกไปนอกหน้าต่าง"
    captions = [chinese, chinese + "。", "一只猫", thai, thai + "ไป", "一条狗在海边跑"]
    near = "near-duplicate text"
    assert [reason for reason, _ in by_text(captions, 0.9)] == [None, near, None, None, near, None]
    assert dedup.shingles("一只黑猫 cat food,") == {"一 只 黑", "只 黑 猫", "黑 猫 cat", "猫 cat food,"}


def test_near_duplicates_go_exactly_when_they_are_near_to_one_that_stays():
    chance = random.Random(0)
    words = [f"w{number}" for number in range(30)]
    captions = []
    for _ in range(60):
        base = chance.choices(words, k=14)
        captions += [" ".join(base), " ".join([*base[:-1], chance.choice(words)]), " ".join(chance.choices(base, k=12))]
    reasons = [reason for reason, _ in by_text(captions, 0.8)]
    kept = [dedup.shingles(caption) for caption, reason in zip(captions, reasons, strict=True) if reason is None]
    assert 60 <= len(kept) < 130
    near = [max(dedup.jaccard(one, two) for two in kept if two is not one) for one in kept]
    assert max(near) < 0.8, "of the rows that stay no two are near"
    for caption, reason in zip(captions, reasons, strict=True):
        if reason:
            assert max(dedup.jaccard(dedup.shingles(caption), one) for one in kept) >= 0.8


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=12), st.integers(0, 12), st.randoms(use_true_random=False))
def test_near_images_are_those_within_the_distance(hashes, distance, chance):
    flipped = [value ^ sum(1 << bit for bit in chance.sample(range(64), chance.randint(0, 14))) for value in hashes]
    every = hashes + flipped
    digests = pa.array([[f"sha{place}"] for place in range(len(every))], pa.list_(pa.string()))
    hashes = pa.array([[f"{value:016x}"] for value in every], pa.list_(pa.string()))
    reasons = [reason for reason, _ in by_image(digests, hashes, distance)]
    kept: list[int] = []
    for value, reason in zip(every, reasons, strict=True):
        near = any((value ^ other).bit_count() <= distance for other in kept)
        assert reason == ("near-duplicate image" if near else None)
        kept += [] if near else [value]


def test_images_with_equal_bytes_go_whatever_the_distance():
    hashes = [["0" * 16], ["f" * 16], *[["0" * 16] * 2] * 2]
    reasons = by_image([["a"], ["a"], ["a", "b"], ["a", "b"]], hashes, 0)
    assert reasons == [(None, None), ("duplicate image", "0"), (None, None), ("duplicate image", "2")]


def test_the_verb_in_the_docstring_works_as_it_stands_there(tmp_path, monkeypatch):
    lines = verb.__doc__.splitlines()
    code = "\n".join(line.removeprefix("    ") for line in lines if line.startswith("    ") or not line)
    (tmp_path / "a_verb_by_the_docstring.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    head = import_module("a_verb_by_the_docstring").Head.model_validate(2)
    outcome = head.apply(MemoryStep(rows_of("abc")))
    check(outcome, rows_of("abc"))
    assert outcome.rows["id"].to_pylist() == ["a", "b"] and head.name == "head"
    assert outcome.ledger()["dropped"] == {"beyond the first 2": 1}
    assert (head.brief(), head.sentence(None)) == ("first 2", "head 2")

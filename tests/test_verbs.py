"""Each verb on rows in memory, and the promises that hold for all of them: order, ids, a ledger that adds up."""

import math
import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import pairs_of

from bettersynth.configuration.datasets import Rank, Resample, Sample, Threshold
from bettersynth.datasets import dedup, verbs
from bettersynth.datasets.ledger import no_reasons
from bettersynth.datasets.scores import mean_per_row, threshold_reasons, values_of
from bettersynth.pool.rows import ROWS

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
    inside = verbs.intersect(rows, {"a": first, "b": second})
    outside = verbs.subtract(rows, {"a": first, "b": second})
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
    outcome = verbs.union([one, other])
    check(outcome, pa.concat_tables([one, other]))
    expected = dict(pairs_of(other)) | dict(pairs_of(one))
    assert dict(pairs_of(outcome.rows)) == expected
    assert outcome.rows.num_rows == len(expected)


@given(some_rows, distinct_rows, st.booleans())
def test_splice_changes_sources_only(rows, other, drop):
    new = rows_of(other["id"].to_pylist(), "new")
    asked = rows_of(sorted({*other["id"].to_pylist(), "r0", "r1"}))
    outcome = verbs.splice(rows, "better", new, [asked], drop_unmatched=drop)
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
    outcome = verbs.repeat(rows, times)
    assert pairs_of(outcome.rows) == pairs_of(rows) * times
    ledger = outcome.ledger()
    assert (ledger["in"], ledger["out"]) == (rows.num_rows, rows.num_rows * times)


@given(distinct_rows, st.integers(1, 15), st.integers(0, 3), st.randoms(use_true_random=False))
def test_a_sample_depends_on_seed_and_ids_only(rows, size, seed, chance):
    outcome = verbs.sample(rows, Sample(rows=size, seed=seed))
    check(outcome, rows)
    assert outcome.rows.num_rows == min(size, rows.num_rows)
    order = list(range(rows.num_rows))
    chance.shuffle(order)
    shuffled = verbs.sample(rows.take(pa.array(order, pa.int64())), Sample(rows=size, seed=seed))
    assert set(pairs_of(shuffled.rows)) == set(pairs_of(outcome.rows))


def test_samples_of_one_seed_are_nested_and_seeds_differ():
    rows = rows_of([f"{number}" for number in range(1000)])
    small, large = (set(verbs.sample(rows, Sample(rows=n)).rows["id"].to_pylist()) for n in (100, 300))
    assert small < large
    other = set(verbs.sample(rows, Sample(rows=100, seed=1)).rows["id"].to_pylist())
    assert len(small & other) < 30
    assert verbs.sample(rows, Sample(fraction=0.25)).rows.num_rows == 250


@given(some_rows.filter(lambda rows: rows.num_rows > 0), st.integers(1, 60), st.randoms(use_true_random=False))
def test_drawing_with_replacement_depends_on_seed_and_ids_only(rows, size, chance):
    outcome = verbs.resample(rows, Resample(rows=size, seed=3))
    ledger = outcome.ledger()
    assert (ledger["in"], ledger["out"]) == (rows.num_rows, size)
    assert set(pairs_of(outcome.rows)) <= set(pairs_of(rows))
    order = list(range(rows.num_rows))
    chance.shuffle(order)
    shuffled = verbs.resample(rows.take(pa.array(order)), Resample(rows=size, seed=3))
    assert Counter(pairs_of(shuffled.rows)) == Counter(pairs_of(outcome.rows))


def test_every_row_is_as_likely_to_be_drawn():
    rows = rows_of([f"{number}" for number in range(500)])
    outcome = verbs.resample(rows, Resample(rows=2000))
    counts = Counter(Counter(outcome.rows["id"].to_pylist()).values())
    undrawn = outcome.dropped.num_rows
    poisson = [500 * math.exp(-4) * 4**times / math.factorial(times) for times in range(8)]
    assert abs(undrawn - poisson[0]) < 12
    assert all(abs(counts[times] - poisson[times]) < 35 for times in range(1, 8))
    twice = verbs.resample(rows_of(["a", "a", "b"]), Resample(rows=9000))
    assert 5700 < Counter(twice.rows["id"].to_pylist())["a"] < 6300, "a row that is there twice is drawn twice as often"


@given(st.lists(st.tuples(IDS, st.sampled_from([0.0, 0.5, 1.0])), unique_by=lambda item: item[0]), st.data())
def test_rank_takes_a_run_of_the_best_with_ties_by_id(scored, data):
    skip, top = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 6))
    rows, score = rows_of([name for name, _ in scored]), np.array([value for _, value in scored], float)
    outcome = verbs.rank(rows, score, no_reasons(len(score)), Rank(by="x", top=top, skip=skip))
    check(outcome, rows)
    best = sorted(scored, key=lambda item: (-item[1], item[0]))
    assert {name for name, _ in best[skip : skip + top]} == set(outcome.rows["id"].to_pylist())
    dropped = outcome.ledger()["dropped"]
    assert dropped.get("rank: skipped best", 0) == min(skip, len(scored))


def test_rank_by_lowest_by_fraction_and_without_score():
    rows = rows_of("abcd")
    score, reasons = np.array([3.0, 1.0, np.nan, 2.0]), no_reasons(4)
    reasons[2] = "x.y not a number"
    outcome = verbs.rank(rows, score, reasons, Rank(by="x", fraction=0.5, descending=False))
    assert outcome.rows["id"].to_pylist() == ["b", "d"]
    assert outcome.ledger()["dropped"] == {"rank: below the cut": 1, "x.y not a number": 1}


# --- keep rule -----------------------------------------------------------------------------------

numbers = st.floats(-2, 2) | st.sampled_from([0.0, 0.25, 0.5, 1.0])


@pytest.fixture(scope="module")
def data_juicer_filter():
    """Data-Juicer's own filter over a list of numbers, without a model."""
    from data_juicer.ops.filter.image_aspect_ratio_filter import ImageAspectRatioFilter

    return ImageAspectRatioFilter


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
    threshold = Threshold(min=low, max=high, any_or_all=strategy)
    ours = threshold_reasons(values_of("shape.aspect_ratios", pa.array(lists)), threshold)
    assert [reason is None for reason in ours] == theirs


def test_a_row_is_dropped_for_its_first_value_outside():
    column = pa.array([[0.1], [0.9], [], None, [float("nan")], [None], [0.5, 0.9], [0.9, 0.1], [0.2], [0.8]])
    threshold = {"min": 0.2, "max": 0.8}
    below, above = "op.stat below 0.2", "op.stat above 0.8"
    none, nan = "op.stat no value", "op.stat not a number"
    values = values_of("op.stat", column)
    any_of = [below, above, none, none, nan, nan, None, above, None, None]
    all_of = [below, above, none, none, nan, nan, above, above, None, None]
    assert threshold_reasons(values, Threshold(**threshold)).tolist() == any_of
    assert threshold_reasons(values, Threshold(**threshold, any_or_all="all")).tolist() == all_of


def test_plain_numbers_and_words_have_thresholds_too():
    counts = values_of("words.num_words", pa.array([3, None, 12]))
    assert threshold_reasons(counts, Threshold(min=10)).tolist() == [
        "words.num_words below 10",
        "words.num_words no value",
        None,
    ]
    words = values_of("language.lang", pa.array(["en", "zh", None]))
    assert threshold_reasons(words, Threshold(one_of=["en", "fr"])).tolist() == [
        None,
        "language.lang not one of en, fr",
        "language.lang no value",
    ]
    with pytest.raises(ValueError, match="is a word"):
        threshold_reasons(words, Threshold(min=1))
    with pytest.raises(ValueError, match="is a number"):
        threshold_reasons(counts, Threshold(one_of=["en"]))


def test_a_record_with_several_values_is_ranked_by_their_mean():
    means, reasons = mean_per_row(values_of("op.stat", pa.array([[1.0, 2.0], [], [5.0], [1.0, None]])))
    np.testing.assert_array_equal(means, [1.5, np.nan, 5.0, np.nan])
    assert reasons.tolist() == [None, "op.stat no value", None, "op.stat not a number"]


def test_the_ledger_refuses_not_to_add_up():
    outcome = verbs.repeat(rows_of("ab"), 2)
    with pytest.raises(AssertionError, match="is not out"):
        outcome._replace(added=0).ledger()


# --- deduplication -------------------------------------------------------------------------------


def test_equal_and_near_captions_go_and_the_first_stays():
    long = "a red car parked in front of an old brick house on a sunny winter day in the quiet part of town"
    captions = [long, "a cat", long, long + " today", "a dog", "a cat", "two", "two"]
    exact = ["duplicate text" if place in (2, 5, 7) else None for place in range(8)]
    assert dedup.text_reasons(captions, None).tolist() == exact
    exact[3] = "near-duplicate text"
    assert dedup.text_reasons(captions, 0.9).tolist() == exact


def test_near_captions_of_languages_without_blanks_go():
    chinese = "一只白色的小狗坐在客厅的灰色沙发上看着窗外的花园和远处的山"
    thai = "สุนัขสีขาวตัวเล็กนั่งอยู่บนโซฟาสีเทาในห้องนั่งเล่นและมองออกไปนอกหน้าต่าง"
    captions = [chinese, chinese + "。", "一只猫", thai, thai + "ไป", "一条狗在海边跑"]
    near = "near-duplicate text"
    assert dedup.text_reasons(captions, 0.9).tolist() == [None, near, None, None, near, None]
    assert dedup.shingles("一只黑猫 cat food,") == {"一 只 黑", "只 黑 猫", "黑 猫 cat", "猫 cat food,"}


def test_near_duplicates_go_exactly_when_they_are_near_to_one_that_stays():
    chance = random.Random(0)
    words = [f"w{number}" for number in range(30)]
    captions = []
    for _ in range(60):
        base = chance.choices(words, k=14)
        captions += [" ".join(base), " ".join([*base[:-1], chance.choice(words)]), " ".join(chance.choices(base, k=12))]
    reasons = dedup.text_reasons(captions, 0.8)
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
    reasons = dedup.image_reasons(
        [[f"sha{place}"] for place in range(len(every))], [[f"{value:016x}"] for value in every], distance
    )
    kept: list[int] = []
    for value, reason in zip(every, reasons, strict=True):
        near = any((value ^ other).bit_count() <= distance for other in kept)
        assert reason == ("near-duplicate image" if near else None)
        kept += [] if near else [value]


def test_images_with_equal_bytes_go_whatever_the_distance():
    reasons = dedup.image_reasons(
        [["a"], ["a"], ["a", "b"], ["a", "b"]], [["0" * 16], ["f" * 16], *[["0" * 16] * 2] * 2], 0
    )
    assert reasons.tolist() == [None, "duplicate image", None, "duplicate image"]

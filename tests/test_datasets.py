"""Datasets: each verb on real files, and the promises that hold for all rows: order, ids, a ledger that adds up."""

import math
import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import configure_pairs, make_pool, pair, write_jsonl, write_scores

from bettersynth.configuration.datasets import Rank, Resample, Sample, Threshold
from bettersynth.datasets import build_dataset, dedup, verbs
from bettersynth.datasets.analysis import build_analysis
from bettersynth.datasets.generated import FAILED
from bettersynth.datasets.ledger import no_reasons
from bettersynth.datasets.scores import kept_by_margin, mean_per_row, threshold_reasons, values_of
from bettersynth.ingest import ingest_file
from bettersynth.publish import read_json, sha256_file, write_json
from bettersynth.records import Record, read_table, text_of, write_records, write_table
from bettersynth.sources import ROWS, asked_rows, load_records, read_rows

# --- rows in memory ------------------------------------------------------------------------------

IDS = st.sampled_from([f"r{number}" for number in range(12)])


def rows_of(ids, source="pool") -> pa.Table:
    """Rows with one source for all ids, or `{id: source}`."""
    sources = [source[name] if isinstance(source, dict) else source for name in ids]
    return pa.table([pa.array(list(ids), pa.string()), pa.array(sources, pa.string())], ROWS)


def pairs_of(table):
    return list(zip(table["id"].to_pylist(), table["source"].to_pylist(), strict=True))


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


# --- on files ------------------------------------------------------------------------------------

OPERATORS = {
    "similarity": {"op": "image_text_similarity_filter"},
    "shape": {"op": "image_shape_filter"},
    "hash": {"op": "image_hash"},
}


def make(tmp_path, datasets, records=None, **sections):
    """A pool of ten records with scores 0.0, 0.1 … 0.9, and the datasets built in order."""
    records = records or [pair(f"r{number}", f"caption {number}") for number in range(10)]
    configuration = configure_pairs(
        tmp_path,
        {"one": records[:6], "two": records[6:]},
        operators=OPERATORS,
        captioners={name: {"model": "any"} for name in ("a", "b", "blip2")},
        datasets=datasets,
        **sections,
    )
    layout, plan = make_pool(configuration, tmp_path)
    ids = [record["id"] for record in records]
    write_scores(layout, plan, "similarity", {name: {"s": [place / 10]} for place, name in enumerate(ids)})
    return configuration, layout, plan


def built(configuration, layout, plan, name):
    card = build_dataset(name, configuration, layout, plan)
    rows = pairs_of(read_rows(name, layout))
    dropped = Counter(read_table(layout.dropped(name))["reason"].to_pylist())
    assert dict(dropped) == card["ledger"]["dropped"]
    assert card["rows"] == len(rows)
    assert card["sha256"] == sha256_file(layout.rows(name))
    assert read_json(layout.dataset_card(name)) == card
    return card, [name for name, _ in rows]


def test_a_filter_reads_its_scores_and_writes_its_card(tmp_path):
    world = make(tmp_path, {"good": {"from": "pool", "filter": {"similarity": {"min": 0.3, "max": 0.7}}}})
    card, ids = built(*world, "good")
    assert ids == ["r3", "r4", "r5", "r6", "r7"], "closed interval, pool's order"
    assert card["ledger"]["dropped"] == {"similarity.s above 0.7": 2, "similarity.s below 0.3": 3}
    assert (card["verb"], card["parents"]) == ("filter", ["pool"])
    assert card["parameters"] == {"similarity": {"min": 0.3, "max": 0.7, "any_or_all": "any"}}
    assert card["inputs"] == {"pool": sha256_file(world[1].index)}


def test_rows_of_one_pool_file_stay_whatever_their_source(tmp_path):
    datasets = {
        "second": {"from": "pool", "files": "two"},
        "new": {"from": "pool", "recaption": {"captioner": "blip2"}},
        "new_second": {"from": "new", "files": ["two"]},
    }
    world = make(tmp_path, datasets)
    card, ids = built(*world, "second")
    assert ids == ["r6", "r7", "r8", "r9"]
    assert card["ledger"]["dropped"] == {"of another file": 6}
    generate(world[1], world[2], "new", "pool", {})
    built(*world, "new")
    assert built(*world, "new_second")[1] == ids


def test_a_stat_must_be_named_when_there_are_several(tmp_path):
    datasets = {
        "vague": {"from": "pool", "filter": {"shape": {"min": 1}}},
        "wide": {"from": "pool", "filter": {"shape.width": {"min": 8}, "similarity": {"max": 0.85}}},
    }
    configuration, layout, plan = make(tmp_path, datasets)
    write_scores(layout, plan, "shape", {f"r{n}": {"width": [n], "height": [1]} for n in range(10)})
    with pytest.raises(ValueError, match=r"write one of `shape\.width`, `shape\.height`"):
        build_dataset("vague", configuration, layout, plan)
    card, ids = built(configuration, layout, plan, "wide")
    assert ids == ["r8"]
    assert card["ledger"]["dropped"] == {"shape.width below 8": 8, "similarity.s above 0.85": 1}


def test_scores_of_other_records_are_refused(tmp_path):
    configuration, layout, plan = make(tmp_path, {"good": {"from": "pool", "filter": {"similarity": {"min": 0.3}}}})
    write_jsonl(tmp_path / "one.jsonl", [pair(f"r{number}", "changed") for number in range(6)])
    ingest_file(configuration.pool, configuration.pool.files[0], layout)
    with pytest.raises(ValueError, match=r"\.parquet was made from other records .*`snakemake --force "):
        build_dataset("good", configuration, layout, plan)
    assert not layout.rows("good").exists()


@pytest.mark.parametrize(
    ("row", "threshold", "close"),
    [
        ([0.2995], {"min": 0.3}, True),
        ([0.3005], {"min": 0.3}, True),
        ([0.3], {"max": 0.3}, True),
        ([0.302], {"min": 0.3}, False),
        ([0.3005, 0.9], {"min": 0.3}, False),
        ([0.3005, 0.9], {"min": 0.3, "any_or_all": "all"}, True),
        ([], {"min": 0.3}, False),
    ],
)
def test_a_close_call_is_one_that_a_small_difference_decides(row, threshold, close):
    values = values_of("similarity.s", pa.array([row], pa.list_(pa.float64())))
    could, must = (kept_by_margin(values, Threshold(**threshold), margin)[0] for margin in (1e-3, -1e-3))
    assert (could and not must) == close


def test_the_ledger_counts_close_calls_of_neural_scores_only(tmp_path):
    datasets = {
        "similar": {"from": "pool", "filter": {"similarity": {"min": 0.3}}},
        "wide": {"from": "pool", "filter": {"shape.width": {"min": 3}}},
        "wide_and_similar": {"from": "pool", "filter": {"shape.width": {"min": 4}, "similarity": {"min": 0.3}}},
    }
    configuration, layout, plan = make(tmp_path, datasets)
    write_scores(layout, plan, "shape", {f"r{n}": {"width": [n], "height": [1]} for n in range(10)})
    assert built(configuration, layout, plan, "similar")[0]["ledger"]["near"] == 1
    assert "near" not in built(configuration, layout, plan, "wide")[0]["ledger"]
    assert "near" not in built(configuration, layout, plan, "wide_and_similar")[0]["ledger"], "r3 is narrow anyway"


def test_scores_in_bf16_have_more_close_calls(tmp_path):
    datasets = {"similar": {"from": "pool", "filter": {"similarity": {"min": 0.305}}}}
    for precision, near in ("fp16", None), ("bf16", 1):
        configuration, layout, plan = make(tmp_path / precision, datasets, scoring={"precision": precision})
        assert built(configuration, layout, plan, "similar")[0]["ledger"].get("near") == near


def test_a_partial_score_file_is_refused(tmp_path):
    configuration, layout, plan = make(tmp_path, {"good": {"from": "pool", "filter": {"similarity": {"min": 0.3}}}})
    path = layout.scores("pool", "similarity")
    write_table(path, read_table(path).slice(1))
    with pytest.raises(ValueError, match=r"1 rows of source `pool` have no scores of `similarity`, such as r"):
        build_dataset("good", configuration, layout, plan)


def test_the_winning_recipe_from_filter_to_repeat(tmp_path):
    datasets = {
        "matched": {"from": "pool", "filter": {"similarity": {"min": 0.2}}},
        "weak": {"from": "matched", "filter": {"similarity": {"max": 0.5}}},
        "rewritten": {"from": "weak", "recaption": {"captioner": "blip2", "shards": 2}},
        "better": {"from": "rewritten", "filter": {"similarity": {"min": 0.6}}},
        "spliced": {"from": "matched", "splice": "better"},
        "strict": {"from": "matched", "splice": {"dataset": "better", "unmatched": "drop"}},
        "best": {"from": "spliced", "repeat": 2},
    }
    configuration, layout, plan = make(tmp_path, datasets)
    world = (configuration, layout, plan)
    assert built(*world, "matched")[1] == [f"r{n}" for n in range(2, 10)]
    assert built(*world, "weak")[1] == ["r2", "r3", "r4", "r5"]

    generate(layout, plan, "rewritten", "weak", {"r3": "refusal"})
    card, ids = built(*world, "rewritten")
    assert ids == ["r2", "r4", "r5"]
    assert card["ledger"] == {"in": 4, "added": 0, "out": 3, "changed": 3, "dropped": {"refusal": 1}}
    assert set(read_rows("rewritten", layout)["source"].to_pylist()) == {"rewritten"}

    write_scores(layout, plan, "similarity", {"r2": {"s": [0.9]}, "r4": {"s": [0.6]}, "r5": {"s": [0.5]}}, "rewritten")
    assert built(*world, "better")[1] == ["r2", "r4"]
    card, ids = built(*world, "spliced")
    assert ids == [f"r{n}" for n in range(2, 10)]
    assert card["ledger"]["changed"] == 2
    assert pairs_of(read_rows("spliced", layout))[:4] == [
        ("r2", "rewritten"),
        ("r3", "pool"),
        ("r4", "rewritten"),
        ("r5", "pool"),
    ]
    card, ids = built(*world, "strict")
    assert ids == ["r2", "r4", "r6", "r7", "r8", "r9"]
    assert card["ledger"]["dropped"] == {"rewritten, not in better": 2}
    card, ids = built(*world, "best")
    assert ids == [f"r{n}" for n in range(2, 10)] * 2
    assert card["ledger"] == {"in": 8, "added": 8, "out": 16, "changed": 0, "dropped": {}}

    records = load_records(read_rows("best", layout), layout, plan).to_pylist()
    assert [record["id"] for record in records] == ids
    assert records[0]["text"] == records[8]["text"] == text_of("new caption r2")
    assert records[1]["text"] == text_of("caption 3")
    assert {record["image_root"] for record in records} == {"pool"}


def generate(layout, plan, name, parent, failures, caption="new caption {}"):
    """Do a generator's work: for each shard the rows asked for, made or failed."""
    shards = plan.shards(name)
    asked_of_all = []
    for shard in shards:
        asked = asked_rows(read_rows(parent, layout), shard, len(shards))
        asked_of_all += pairs_of(asked)
        records = load_records(asked, layout, plan).to_pylist()
        made = [
            Record(r["id"], text_of(caption.format(r["id"])), r["images"], r["image_root"])
            for r in records
            if r["id"] not in failures
        ]
        failed = [(*row, failures[row[0]]) for row in pairs_of(asked) if row[0] in failures]
        write_records(layout.records(name, shard), made)
        columns = list(zip(*failed, strict=True)) if failed else [()] * 3
        write_table(layout.failed(name, shard), pa.table([pa.array(c, pa.string()) for c in columns], FAILED))
        write_json(
            layout.records_card(name, shard),
            {"asked": asked.num_rows, "sha256": sha256_file(layout.records(name, shard))},
        )
    assert Counter(asked_of_all) == Counter(set(pairs_of(read_rows(parent, layout)))), "each distinct row asked once"


def test_a_generator_is_asked_once_for_a_row_that_is_repeated(tmp_path):
    datasets = {
        "twice": {"from": "pool", "repeat": 2},
        "new": {"from": "twice", "recaption": {"captioner": "blip2", "shards": 3}},
    }
    world = make(tmp_path, datasets)
    built(*world, "twice")
    generate(world[1], world[2], "new", "twice", {})
    assert built(*world, "new")[1] == [f"r{n}" for n in range(10)] * 2


def test_cleaning_changes_the_source_of_changed_captions_only(tmp_path):
    records = [pair("a", "a dog stock photo"), pair("b", "a cat"), pair("c", "I cannot")]
    world = make(tmp_path, {"clean": {"from": "pool", "clean": True}}, records)
    layout = world[1]
    write_records(
        layout.records("clean", "clean-0000"),
        [Record("a", text_of("a dog"), ["images/one.png"]), Record("b", text_of("a cat"), ["images/one.png"])],
    )
    failed = pa.table([["c"], ["pool"], ["refusal"]], FAILED)
    write_table(layout.failed("clean", "clean-0000"), failed)
    card, _ = built(*world, "clean")
    assert pairs_of(read_rows("clean", layout)) == [("a", "clean"), ("b", "pool")]
    assert card["ledger"] == {"in": 3, "added": 0, "out": 2, "changed": 1, "dropped": {"refusal": 1}}


def test_a_generator_that_is_silent_about_a_row_is_refused(tmp_path):
    world = make(tmp_path, {"new": {"from": "pool", "recaption": {"captioner": "blip2"}}})
    layout = world[1]
    write_records(layout.records("new", "new-0000"), [Record(f"r{n}", text_of("x"), ["a"]) for n in range(8)])
    write_table(layout.failed("new", "new-0000"), FAILED.empty_table())
    with pytest.raises(ValueError, match=r"2 of its rows, such as r8, r9"):
        build_dataset("new", *world)


def test_an_earlier_rewriting_of_everything_is_no_candidate_of_a_splice(tmp_path):
    datasets = {
        "all_new": {"from": "pool", "recaption": {"captioner": "a"}},
        "weak": {"from": "all_new", "sample": {"rows": 3}},
        "again": {"from": "weak", "recaption": {"captioner": "b"}},
        "mixed": {"from": "all_new", "splice": {"dataset": "again", "unmatched": "drop"}},
    }
    world = make(tmp_path, datasets)
    generate(*world[1:], "all_new", "pool", {})
    built(*world, "all_new")
    _, weak = built(*world, "weak")
    generate(*world[1:], "again", "weak", {weak[0]: "empty caption"})
    built(*world, "again")
    card, _ = built(*world, "mixed")
    assert card["ledger"] == {
        "in": 10,
        "added": 0,
        "out": 9,
        "changed": 2,
        "dropped": {"rewritten, not in again": 1},
        "unmatched": 1,
    }


def test_ranking_by_a_weighted_sum_of_scaled_scores(tmp_path):
    rank = {"by": {"similarity": 1.0, "shape.width": 2.0}, "top": 3, "skip": 1, "normalise": "min_max"}
    configuration, layout, plan = make(tmp_path, {"best": {"from": "pool", "rank": rank}})
    write_scores(layout, plan, "shape", {f"r{n}": {"width": [100 * (9 - n)], "height": [1]} for n in range(10)})
    card, ids = built(configuration, layout, plan, "best")
    assert ids == ["r1", "r2", "r3"], "the width weighs more, so the order is r0, r1, …"
    assert card["ledger"]["dropped"] == {"rank: below the cut": 6, "rank: skipped best": 1}


def test_dedup_by_caption_and_by_image(tmp_path):
    records = [pair("a", "a dog"), pair("b", "a cat"), pair("c", "a dog"), pair("d", "a cow")]
    datasets = {
        "texts": {"from": "pool", "dedup": {"by": "text"}},
        "images": {"from": "pool", "dedup": {"by": "image", "near": True, "distance": 2}},
    }
    world = make(tmp_path, datasets, records)
    hashes = {"a": ("1", "00ff"), "b": ("1", "00ff"), "c": ("2", "00fc"), "d": ("3", "ff00")}
    write_scores(
        *world[1:],
        "hash",
        {key: {"image_sha256": [sha], "image_phash": [hash_.zfill(16)]} for key, (sha, hash_) in hashes.items()},
    )
    assert built(*world, "texts")[1] == ["a", "b", "d"]
    card, ids = built(*world, "images")
    assert ids == ["a", "d"]
    assert card["ledger"]["dropped"] == {"duplicate image": 1, "near-duplicate image": 1}


def test_nothing_left_is_a_dataset_too(tmp_path):
    datasets = {
        "none": {"from": "pool", "filter": {"similarity": {"min": 5}}},
        "still": {"from": "none", "filter": {"similarity": {"min": 0}}},
        "texts": {"from": "none", "dedup": True},
        "spliced": {"from": "pool", "splice": "none"},
        "twice": {"from": "none", "repeat": 2},
    }
    world = make(tmp_path, datasets)
    sizes = {name: built(*world, name)[0]["rows"] for name in datasets}
    assert sizes == {"none": 0, "still": 0, "texts": 0, "spliced": 10, "twice": 0}
    assert load_records(read_rows("none", world[1]), *world[1:]).num_rows == 0


def test_a_record_of_two_files_has_the_text_and_score_of_the_file_that_won(tmp_path):
    configuration = configure_pairs(
        tmp_path,
        {"one": [pair("x", "first")], "two": [pair("x", "second"), pair("y")]},
        operators=OPERATORS,
        datasets={"good": {"from": "pool", "filter": {"similarity": {"min": 0.5}}}},
    )
    layout, plan = make_pool(configuration, tmp_path)
    write_scores(layout, plan, "similarity", {"x": {"s": [0.1]}, "y": {"s": [0.9]}})
    path = layout.scores("pool", "similarity")
    ids = read_table(path)["id"].to_pylist()
    assert ids.count("x") == 2
    scores = [[0.9] if name == "y" else [0.1] if place == ids.index("x") else [0.8] for place, name in enumerate(ids)]
    write_table(path, pa.table({"id": ids, "s": scores}))
    _, ids = built(configuration, layout, plan, "good")
    assert ids == ["y"], "the first file's record of x scores 0.1"
    assert load_records(read_rows("pool", layout), layout, plan)["text"].to_pylist()[0] == text_of("first")


def test_rows_are_the_same_bytes_every_time(tmp_path):
    world = make(tmp_path, {"half": {"from": "pool", "sample": {"fraction": 0.5}}})
    built(*world, "half")
    before = world[1].rows("half").read_bytes(), world[1].dropped("half").read_bytes()
    built(*world, "half")
    assert (world[1].rows("half").read_bytes(), world[1].dropped("half").read_bytes()) == before


def test_an_analysis_is_of_the_values_of_its_rows(tmp_path):
    world = make(
        tmp_path,
        {"high": {"from": "pool", "filter": {"similarity": {"min": 0.5}}}},
        analyses={"quartiles": {"dataset": "high", "operators": ["similarity", "shape.width"]}},
    )
    configuration, layout, plan = world
    sizes = {f"r{n}": {"width": [n, 10 * n], "height": [1, 1]} for n in range(10)}
    write_scores(layout, plan, "shape", sizes | {"r9": {"width": None, "height": None}})
    built(*world, "high")
    stats = build_analysis("quartiles", configuration, layout, plan)["stats"]
    assert stats["similarity"] == {
        "stat": "similarity.s",
        "values": 5,
        "not_numbers": 0,
        "mean": pytest.approx(0.7),
        "sd": pytest.approx(0.158114, abs=1e-6),
        "quartiles": pytest.approx([0.6, 0.7, 0.8]),
    }
    assert stats["shape.width"]["values"] == 8, "each image counts, as in dj-analyze; one that has no score does not"
    assert read_json(layout.analysis("quartiles"))["rows"] == 5
    assert plan.analysed("quartiles") == [("pool", "similarity"), ("pool", "shape")]

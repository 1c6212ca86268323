"""Clusters: found where they are, the same on every machine, and sampled as asked."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pairs import MemoryStep, configure_pairs, make_pool, pair, write_scores

from bettersynth.configuration import ConfigurationError, configure
from bettersynth.core.publish import read_json
from bettersynth.core.records import ROWS
from bettersynth.core.vectors import as_bytes
from bettersynth.datasets import clusters
from bettersynth.datasets.build import build_dataset
from bettersynth.datasets.verbs.cluster import Bands, Cluster
from bettersynth.pool.rows import read_rows

SIZES = {"a": 60, "b": 30, "c": 10}


@pytest.fixture(scope="module")
def world():
    """Rows and vectors around three directions, `a` near its own more often than far, the order at random."""
    chance = np.random.default_rng(0)
    centres = chance.normal(size=(len(SIZES), 48))
    names = [name for name, size in SIZES.items() for _ in range(size)]
    vectors = np.array([centres["abc".index(name)] + 0.2 * chance.normal(size=48) for name in names])
    ids = [f"{name}{number}" for number, name in enumerate(names)]
    order = chance.permutation(len(ids))
    rows = pa.table([pa.array([ids[place] for place in order]), pa.repeat("pool", len(ids))], ROWS)
    return rows, as_bytes(vectors[order])


def column(vectors):
    return pa.chunked_array([pa.array(list(vectors), pa.list_(pa.int8()))])


def sampled(rows, vectors, parameters):
    scores = pa.table({"id": rows["id"], "y": column(vectors)})
    return parameters.apply(MemoryStep(rows, scores={"x": scores}))


def kept(world, **parameters):
    rows, vectors = world
    outcome = sampled(rows, vectors, Cluster(by="x", **parameters))
    outcome.ledger()
    return Counter(name[0] for name in outcome.rows["id"].to_pylist())


def test_clusters_are_the_groups_and_give_alike_as_far_as_they_can(world):
    assert kept(world, clusters=3, rows=30) == {"a": 10, "b": 10, "c": 10}
    assert kept(world, clusters=3, rows=60) == {"a": 25, "b": 25, "c": 10}
    assert kept(world, clusters=3, rows=1000) == SIZES
    assert kept(world, clusters=3, rows=50, share="proportional") == {"a": 30, "b": 15, "c": 5}


def test_the_same_rows_whatever_their_order_and_other_rows_for_another_seed(world):
    rows, vectors = world
    turned = pa.array(np.arange(rows.num_rows)[::-1])

    def ids(rows, vectors, seed):
        parameters = Cluster(by="x", clusters=3, rows=40, seed=seed)
        return set(sampled(rows, vectors, parameters).rows["id"].to_pylist())

    assert ids(rows, vectors, 0) == ids(rows.take(turned), vectors[::-1], 0) != ids(rows, vectors, 1)


def test_bands_take_their_shares_by_distance(world):
    rows, vectors = world
    centre = clusters.fit(vectors, 1, seed=0)
    _, cosines = clusters.nearest(vectors, centre)
    third = np.empty(len(vectors), int)
    third[np.argsort(-cosines, kind="stable")] = np.repeat([0, 1, 2], [34, 33, 33])
    band_of = dict(zip(rows["id"].to_pylist(), third.tolist(), strict=True))
    for bands, expected in (
        ({"near": 0.25, "middle": 0.5, "far": 0.25}, {0: 10, 1: 20, 2: 10}),
        (
            {"near": 1, "middle": 0, "far": 0},
            None,
        ),
    ):
        parameters = Cluster(by="x", clusters=1, rows=40, bands=Bands(**bands))
        outcome = sampled(rows, vectors, parameters)
        found = Counter(band_of[name] for name in outcome.rows["id"].to_pylist())
        assert sum(found.values()) == 40
        assert found == expected if expected else found[0] == 34, "a band that is too small is made up for"


def test_dot_products_of_bytes_are_exact_in_any_order():
    chance = np.random.default_rng(1)
    vectors = chance.choice(np.array([-127, 127], np.int8), (200, clusters.MOST_DIMENSIONS))
    single = vectors.astype(np.float32)
    assert (single @ single.T == vectors.astype(np.int64) @ vectors.T.astype(np.int64)).all()
    wide = np.zeros((2, clusters.MOST_DIMENSIONS + 1), np.int8)
    rows = pa.table([pa.array(["a", "b"]), pa.repeat("pool", 2)], ROWS)
    with pytest.raises(ValueError, match="1041 dimensions; clusters are exact up to 1040"):
        sampled(rows, wide, Cluster(by="x", clusters=2, rows=1))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9), st.data())
def test_what_is_shared_out_adds_up(sizes, data):
    total = data.draw(st.integers(0, sum(sizes)))
    quotas = clusters.evenly(total, sizes)
    assert sum(quotas) == total
    assert all(quota <= size for quota, size in zip(quotas, sizes, strict=True))
    unfilled = [quota for quota, size in zip(quotas, sizes, strict=True) if quota < size]
    assert not unfilled or max(quotas) - min(unfilled) <= 1
    if sum(sizes):
        shares = clusters.in_proportion(total, sizes)
        assert sum(shares) == total
        assert all(abs(share - total * size / sum(sizes)) < 1 for share, size in zip(shares, sizes, strict=True))


def test_a_dataset_of_clusters_reads_the_stored_vectors(tmp_path, world):
    _, vectors = world
    records = [pair(f"r{number}", f"caption {number}") for number in range(12)]
    configuration = configure_pairs(
        tmp_path,
        {"one": records},
        operators={"embedding": {"op": "text_embedding"}},
        datasets={"spread": {"from": "pool", "cluster": {"by": "embedding", "clusters": 3, "rows": 5}}},
    )
    layout, plan = make_pool(configuration, tmp_path)
    stats = {f"r{number}": {"text_embedding": vectors[number].tolist()} for number in range(11)}
    write_scores(layout, plan, "embedding", stats | {"r11": {"text_embedding": None}})
    build_dataset("spread", configuration, layout, plan)
    assert read_rows("spread", layout).num_rows == 5
    dropped = read_json(layout.dataset_card("spread"))["ledger"]["dropped"]
    assert dropped == {"embedding.text_embedding no value": 1, "not sampled": 6}


def test_only_clusters_read_vectors_and_clusters_read_only_vectors():
    content = {
        "pool": {"files": [{"name": "a", "path": "a.jsonl"}], "images": "."},
        "models": {"bge": {"path": "bge"}},
        "operators": {"words": {"op": "words_num_filter"}, "embedding": {"op": "text_embedding", "model": "bge"}},
        "datasets": {
            "x": {"from": "pool", "cluster": {"by": "words", "clusters": 2, "rows": 1}},
            "y": {"from": "pool", "rank": {"by": "embedding", "top": 1}},
            "z": {"from": "pool", "cluster": {"by": "embeding", "clusters": 2, "rows": 1}},
        },
    }
    with pytest.raises(ConfigurationError) as refused:
        configure(content, "test.yaml")
    assert [problem.partition(":")[0] for problem in refused.value.problems] == [
        "datasets.x.cluster.by",
        "datasets.y.rank.embedding",
        "datasets.z.cluster.by",
    ]
    assert "did you mean `embedding`?" in str(refused.value)

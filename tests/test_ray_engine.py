"""Scoring on a real Ray, through Data-Juicer's Ray dataset: the same scores as in the job itself."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from bettersynth.configuration.types import Configuration
from bettersynth.layout import Layout
from bettersynth.operators.ray_engine import Cluster, RayError
from bettersynth.publish import read_json
from bettersynth.records import Record, read_table, text_of, write_records

REPOSITORY = Path(__file__).parents[1]
OPERATORS = {
    "similarity": {"op": "image_text_similarity_filter", "model": "clip"},
    "flipped": {"op": "image_text_similarity_filter", "model": "clip", "parameters": {"horizontal_flip": True}},
    "nsfw": {"op": "image_nsfw_filter", "model": "nsfw"},
    "words": {"op": "words_num_filter"},
    "sizes": {"op": "image_shape_filter"},
    "hashes": {"op": "image_hash"},
    "embedding": {"op": "text_embedding", "model": "clip"},
}
SHARDS = {"f-0000": range(12), "f-0001": range(0), "f-0002": range(12, 24), "f-0003": range(24, 30)}


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    """Data-Juicer and transformers work from local files only."""
    from bettersynth.operators import offline

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        offline.prepare(tmp_path_factory.mktemp("cache"), 100_000_000)
        yield


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Makes the configuration of a pool of three full shards and an empty one; picture 15 is cut short."""
    import tiny_models

    root = tmp_path_factory.mktemp("pool")
    models = {"clip": tiny_models.clip(root / "clip"), "nsfw": tiny_models.classifier(root / "nsfw", seed=14)}
    images = root / "images"
    images.mkdir()
    chance = random.Random(2)
    for number in range(30):
        size = (32 + number, 40)
        Image.frombytes("RGB", size, chance.randbytes(3 * size[0] * size[1])).save(images / f"{number}.jpg")
    (images / "15.jpg").write_bytes((images / "15.jpg").read_bytes()[:1200])

    def configured(**scoring) -> Configuration:
        return Configuration.model_validate(
            {
                "pool": {"files": [{"path": "raw.jsonl", "name": "f"}], "images": str(images)},
                "models": {name: {"path": str(path)} for name, path in models.items()},
                "operators": OPERATORS,
                "scoring": scoring,
            }
        )

    return configured


def shards_of(folder: Path) -> Layout:
    layout = Layout(folder)
    for shard, numbers in SHARDS.items():
        caption = "a red boat " * 3
        records = [Record(f"{number:03}", text_of(f"{caption} {number}"), [f"{number}.jpg"]) for number in numbers]
        write_records(layout.records("pool", shard), records)
    return layout


def score(configuration: Configuration, layout: Layout, due: dict[str, list[str]]) -> dict[tuple[str, str], Path]:
    """Score these operators of each shard; where their scores lie."""
    from bettersynth.operators.scoring import score_shards

    paths = {
        shard: {name: layout.score_shard("pool", name, shard, "key") for name in names} for shard, names in due.items()
    }
    score_shards("pool", paths, configuration, layout)
    return {(shard, name): path for shard, names in paths.items() for name, path in names.items()}


@pytest.fixture(scope="module")
def address():
    """A Ray of one node with room for two actors."""
    from bettersynth.operators.ray_engine import CPU_ACTOR

    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as temporary, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", "0" * 64)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray = [str(Path(sys.executable).parent / "ray")]
        start = ["start", "--head", "--port=0", f"--num-cpus={2 * CPU_ACTOR}", "--include-dashboard=false"]
        options = [f"--temp-dir={temporary}", "--object-store-memory=200000000", "--disable-usage-stats"]
        subprocess.run([*ray, *start, *options], check=True, stdout=subprocess.DEVNULL)
        try:
            yield "auto"
        finally:
            subprocess.run([*ray, "stop", "--force"], check=True, stdout=subprocess.DEVNULL)


def test_no_ray_is_an_error_with_the_next_step(pool, tmp_path):
    """First of all, while there is none."""
    with pytest.raises(RayError, match=r"no Ray at scoring.ray_address 'auto'(.|\n)*ray start --head"):
        score(pool(engine="ray", ray_address="auto"), shards_of(tmp_path), {"f-0000": ["words"]})


def test_the_same_scores_as_without_it(pool, address, tmp_path):
    due = {shard: list(OPERATORS) for shard in SHARDS} | {"f-0003": ["words", "similarity"]}
    local = score(pool(), shards_of(tmp_path / "local"), due)
    on_ray = score(pool(engine="ray", ray_address=address), shards_of(tmp_path / "ray"), due)

    assert len(on_ray) == 3 * len(OPERATORS) + 2
    for what, path in on_ray.items():
        assert read_table(path).equals(read_table(local[what])), what
        ours, theirs = (read_json(one.with_suffix(".json")) for one in (path, local[what]))
        for fact in ("rows", "sha256", "unreadable", "precision", "inputs", "parameters"):
            assert ours[fact] == theirs[fact], (what, fact)
        if ours["rows"]:  # nothing goes to Ray for an empty shard
            assert ours["batch"] == theirs["batch"]
            assert ours["seconds_by_part"].keys() == theirs["seconds_by_part"].keys()
    assert list(read_json(on_ray["f-0002", "nsfw"].with_suffix(".json"))["unreadable"]) == ["015"]
    assert read_table(on_ray["f-0002", "similarity"])["image_text_similarity"].null_count == 1


def test_a_record_that_cannot_be_scored_is_named_and_shards_before_it_stay(pool, address, tmp_path):
    from bettersynth.operators.scoring import ScoringError

    layout = shards_of(tmp_path)
    good = [Record(f"{number:03}", text_of("a boat"), [f"{number}.jpg"]) for number in range(24, 30)]
    write_records(layout.records("pool", "f-0003"), [*good, Record("two", text_of("a") + text_of("b"), ["1.jpg"])])
    with pytest.raises(ScoringError, match=r"similarity cannot score record two of .*f-0003.*no image is left"):
        score(pool(engine="ray", ray_address=address), layout, {shard: ["similarity"] for shard in SHARDS})
    done = [shard for shard in SHARDS if layout.score_shard("pool", "similarity", shard, "key").exists()]
    assert done == ["f-0000", "f-0001", "f-0002"]


def test_a_job_starts_and_ends_a_ray_of_its_own(pool, tmp_path, caplog):
    import ray

    with caplog.at_level(logging.INFO, logger="bettersynth"):
        paths = score(pool(engine="ray"), shards_of(tmp_path), {"f-0000": ["words"]})
    local = score(pool(), shards_of(tmp_path / "local"), {"f-0000": ["words"]})
    assert read_table(paths["f-0000", "words"]).equals(read_table(local["f-0000", "words"]))
    assert "scoring pairs on Ray: 12 in" in caplog.text
    assert not ray.is_initialized()


def test_an_address_is_of_the_engine_ray(pool):
    with pytest.raises(ValueError, match="add `engine: ray`"):
        pool(ray_address="auto")


@pytest.mark.parametrize(
    ("nodes", "cpus", "actors"),
    [
        ([(2, 0)], 2, 1),
        ([(32, 0), (64, 0)], 4, 24),
        ([(16, 0), (64, 4)], 16, 4),
        ([(8, 8)], 1, 8),
        ([(96, 2), (16, 2)], 8, 4),
    ],
)
def test_actors_share_the_nodes(nodes, cpus, actors):
    assert (Cluster(nodes).cpus_of_an_actor, Cluster(nodes).actors) == (cpus, actors)

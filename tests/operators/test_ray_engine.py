"""Scoring on a real Ray, through Data-Juicer's Ray dataset: the same scores as in the job itself."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json
from bettersynth.core.records import Record, text_of, write_records
from bettersynth.core.tables import read_table
from bettersynth.operators.ray.engine import CPU_ACTOR, Cluster
from bettersynth.runtime.patches.environment import ENVIRONMENT

REPOSITORY = Path(__file__).parents[2]
OPERATORS = {
    "similarity": {"op": "image_text_similarity_filter", "model": "clip"},
    "flipped": {"op": "image_text_similarity_filter", "model": "clip", "parameters": {"horizontal_flip": True}},
    "nsfw": {"op": "image_nsfw_filter", "model": "nsfw"},
    "words": {"op": "words_num_filter"},
    "sizes": {"op": "image_shape_filter"},
    "hashes": {"op": "image_hash"},
    "embedding": {"op": "text_embedding", "model": "clip"},
}
TOKEN = 64 * "0"
SHARDS = {"f-0000": range(12), "f-0001": range(0), "f-0002": range(12, 24), "f-0003": range(24, 30)}


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


SCORE = """
import json, logging, sys
from pathlib import Path
from typing import NamedTuple
logging.basicConfig(level=logging.ERROR, format="%(message)s")
logging.getLogger("bettersynth").setLevel(logging.INFO)
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.runtime.network import forbid_network
from bettersynth.operators.scoring import score_shards
from bettersynth.operators.ray.engine import RayScorer
on_ray = RayScorer._on_ray
def with_small_blocks(*given):  # as if stats were large, which must not cut a shard in two
    from ray.data import DataContext
    DataContext.get_current().target_max_block_size = 2_000
    return on_ray(*given)
RayScorer._on_ray = with_small_blocks
given = json.load(sys.stdin)
forbid_network("the test")
paths = {shard: {name: Path(path) for name, path in names.items()} for shard, names in given["paths"].items()}
score_shards("pool", paths, Configuration.model_validate(given["configuration"]), Layout(given["results"]))
import ray
assert not ray.is_initialized()
"""


class Scored(NamedTuple):
    """What a job that scored left: where scores lie, or would, and what it printed for people."""

    paths: dict[tuple[str, str], Path]
    code: int
    said: str


def score(configuration: Configuration, layout: Layout, due: dict[str, list[str]]) -> Scored:
    """Score these operators of each shard, in a process of its own as a job does: Ray is set up once in a process."""
    paths = {
        shard: {name: str(layout.score_shard("pool", name, shard, "key")) for name in names}
        for shard, names in due.items()
    }
    given = {"paths": paths, "configuration": configuration.model_dump(by_alias=True), "results": str(layout.root)}
    environment = {**os.environ, **ENVIRONMENT, "RAY_AUTH_TOKEN": TOKEN, "PYTHONPATH": str(REPOSITORY / "scripts")}
    job = subprocess.run(
        [sys.executable, "-c", SCORE],
        input=json.dumps(given),
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    found = {(shard, name): Path(path) for shard, names in paths.items() for name, path in names.items()}
    return Scored(found, job.returncode, job.stdout + job.stderr)


@pytest.fixture(scope="module")
def address():
    """A Ray of one node with room for two actors."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as temporary:
        ray = [str(Path(sys.executable).parent / "ray")]
        start = ["start", "--head", "--port=0", f"--num-cpus={2 * CPU_ACTOR}", "--include-dashboard=false"]
        options = [f"--temp-dir={temporary}", "--object-store-memory=200000000", "--disable-usage-stats"]
        log = Path(temporary, "log")
        with log.open("w") as file:  # `ray stop` would end whatever Ray there is on this machine
            environment = {**os.environ, "RAY_AUTH_TOKEN": TOKEN}
            node = subprocess.Popen(
                [*ray, *start, *options, "--block"], stdout=file, stderr=file, env=environment, start_new_session=True
            )
        try:
            yield started(log)
        finally:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()


def started(log: Path) -> str:
    """The address that `ray start` prints when it has."""
    for _ in range(120):
        if found := re.search(r"--address='([\d.:]+)'", log.read_text()):
            return found[1]
        time.sleep(0.5)
    raise TimeoutError(log.read_text())


def test_the_same_scores_as_without_it(pool, address, tmp_path):
    due = {shard: list(OPERATORS) for shard in SHARDS} | {"f-0003": ["words", "similarity"]}
    local = score(pool(), shards_of(tmp_path / "local"), due)
    on_ray = score(pool(engine="ray", ray_address=address), shards_of(tmp_path / "ray"), due)

    assert (local.code, on_ray.code) == (0, 0), on_ray.said
    assert "scoring pairs on Ray: 30 of 30 in" in on_ray.said
    assert len(on_ray.paths) == 3 * len(OPERATORS) + 2
    for what, path in on_ray.paths.items():
        assert read_table(path).equals(read_table(local.paths[what])), what
        ours, theirs = (read_json(one.with_suffix(".json")) for one in (path, local.paths[what]))
        for fact in ("rows", "sha256", "unreadable", "precision", "inputs", "parameters"):
            assert ours[fact] == theirs[fact], (what, fact)
        if ours["rows"]:  # nothing goes to Ray for an empty shard
            assert ours["batch"] == theirs["batch"]
            assert ours["seconds_by_part"].keys() == theirs["seconds_by_part"].keys()
    assert list(read_json(on_ray.paths["f-0002", "nsfw"].with_suffix(".json"))["unreadable"]) == ["015"]
    assert read_table(on_ray.paths["f-0002", "similarity"])["image_text_similarity"].null_count == 1


def test_a_record_that_cannot_be_scored_is_named_and_shards_before_it_stay(pool, address, tmp_path):
    layout = shards_of(tmp_path)
    good = [Record(f"{number:03}", text_of("a boat"), [f"{number}.jpg"]) for number in range(24, 30)]
    two = Record("two", text_of("a") + text_of("b"), ["1.jpg"])  # raised for, which stops nothing
    write_records(layout.records("pool", "f-0000"), [two])
    write_records(layout.records("pool", "f-0003"), [*good, Record("gone", text_of("a boat"), ["gone.jpg"])])
    scored = score(pool(engine="ray", ray_address=address), layout, {shard: ["similarity"] for shard in SHARDS})

    assert re.search(r"ScoringError: similarity cannot score record gone of .*f-0003.*no such file", scored.said)
    failed = read_json(scored.paths["f-0000", "similarity"].with_suffix(".json"))["failed"]
    assert "no image is left" in failed["two"]
    assert [shard for (shard, _), path in scored.paths.items() if path.exists()] == ["f-0000", "f-0001", "f-0002"]


def test_a_model_that_a_node_lacks_is_named(pool, address, tmp_path):
    configuration = pool(engine="ray", ray_address=address)
    elsewhere = {name: model.model_copy(update={"path": str(tmp_path)}) for name, model in configuration.models.items()}
    broken = configuration.model_copy(update={"models": elsewhere})
    scored = score(broken, shards_of(tmp_path / "results"), {"f-0000": ["similarity"]})
    assert re.search(r"RayError: node .* cannot score: FileNotFoundError: .*no config.json", scored.said)


def test_a_job_starts_and_ends_a_ray_of_its_own(pool, tmp_path):
    due = {"f-0000": ["words"]}
    scored = score(pool(engine="ray"), shards_of(tmp_path), due)
    local = score(pool(), shards_of(tmp_path / "local"), due)
    assert scored.code == 0, scored.said
    assert read_table(scored.paths["f-0000", "words"]).equals(read_table(local.paths["f-0000", "words"]))


def test_no_ray_at_the_address_is_an_error_with_the_next_step(pool, tmp_path):
    scored = score(pool(engine="ray", ray_address="nowhere"), shards_of(tmp_path), {"f-0000": ["words"]})
    assert "RayError: no Ray at scoring.ray_address 'nowhere'" in scored.said
    assert "ray start --head" in scored.said


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

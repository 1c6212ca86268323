"""The largest and the longest pictures that ingest takes, in a process that may not take more than 2 GB."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[2]
MOST = 2_000_000
"""KiB."""
SIZES = [(60_000, 1), (1, 60_000), (1000, 1), (65_535, 1_500)]

START = """
import os, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30,) * 2)  # a failure is an error, not the machine's end
from bettersynth.configuration.pool import Reading
from bettersynth.pool.images import open_image
folder = Path(sys.argv[1])
pictures = sorted(folder.glob("*.png"))
"""
END = """
status = Path("/proc/self/status").read_text()  # getrusage tells of the process that started this one, too
print(status.partition("VmHWM:")[2].split()[0])
"""
JOBS = {
    "scoring": """
import tiny_models
from bettersynth.runtime import patches
patches.prepare(folder / "cache")
tiny_models.SIDE = 336  # as CLIP's largest
from bettersynth.configuration.pool import Model, Operator, Scoring
from bettersynth.core.records import Record, text_of
from bettersynth.operators.batched.scorer import BatchScorer
from bettersynth.operators.batched.stand_in import AsGiven
model = Model(path=str(tiny_models.clip(folder / "clip")))
name = "image_text_similarity_filter"
for device_resizes in (False, True):
    scorer = BatchScorer.load({name: (Operator(op=name), model)}, reading=Reading(), settings=Scoring(), device="cpu")
    scorer._device_resizes = device_resizes  # as on a GPU
    records = [Record(path.name, text_of("a line"), [str(path)]) for path in pictures + pictures[-1:]]
    assert all(entry["image_text_similarity"] for entry in scorer.score(records, AsGiven())[name].stats)
""",
    "captions": """
import tiny_models
tiny_models.SIDE = 336
from bettersynth.configuration.generators import Captioner
from bettersynth.sources.captioners.families import open_family
from bettersynth.sources.captioners.reading import Reader, Request
family = open_family(Captioner(model="any"), tiny_models.llava(folder / "llava"), "cpu")
requests = [Request(path.name, number, 0, path) for number, path in enumerate(pictures + pictures[-1:])]
assert len(Reader(family, 0, Reading()).read(requests).requests) == len(requests)
""",
    "training": """
from tiny_mgm import SIDE, make_tokenizer
from transformers import CLIPImageProcessor
from bettersynth.training.mgm.model import MGMConfig
from bettersynth.training.mgm.processing import Processor
for side, aspect, some in ((768, "pad", pictures[:-1]), (336, "pad", pictures[:-1]), (768, "square", pictures)):
    sizes = {"image_size": side // 2, "patch_size": side // 8}
    config = MGMConfig(vision_config=sizes, image_size_aux=side, image_aspect=aspect)
    processor = Processor(make_tokenizer(), CLIPImageProcessor(), config)
    for path in some:
        assert processor.pixels(open_image(path, Reading())).shape == (3, side, side)
""",
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    for number, size in enumerate(SIZES):
        Image.new("RGB", size, "teal").save(folder / f"{number}.png", compress_level=1)
    return folder


@pytest.mark.parametrize("job", JOBS)
def test_no_picture_takes_more_than_two_gigabytes(pictures, tmp_path, job):
    for path in pictures.iterdir():
        (tmp_path / path.name).symlink_to(path)
    paths = f"{REPOSITORY / 'scripts'}:{REPOSITORY / 'tests' / 'support'}"
    done = subprocess.run(
        [sys.executable, "-c", START + JOBS[job] + END, str(tmp_path)],
        env={"PYTHONPATH": paths, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < MOST

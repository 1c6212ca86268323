"""Reading pictures from tars, a zip and Parquet against single files: cold and warm, by few and many processes."""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROUNDS = 3
"""How often each is measured, in turn with the others; the median counts."""
IN_A_TAR = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--pictures", type=int, default=8000, help="pictures in each storage (default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 16], help="processes (default: 2 and 16)")
    parser.add_argument("--folder", type=Path, help="where a folder for them is made (default: the system's)")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Read and decode every picture once, in random order, from each storage in turn.

    Cold: the kernel is told to forget the files' contents before (it goes on knowing their names, in favour of single
    files). Pictures a second are of the wall clock; milliseconds a picture are of the processors.
    """
    figures: dict[str, float] = {"pictures": options.pictures}
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        paths = dict(_stored(folder, options.pictures))
        figures["picture_bytes"] = round(
            sum(path.stat().st_size for path in (folder / "files").rglob("*.jpg")) / options.pictures
        )
        figures |= _indexed(paths)
        for state in ("cold", "warm"):
            for workers in options.workers:
                seconds = _rounds(paths, workers, folder if state == "cold" else None)
                for storage, (wall, cpu) in seconds.items():
                    figures[f"{state}_{storage}_images_per_s_{workers}_workers"] = round(options.pictures / wall)
                    figures[f"{state}_{storage}_cpu_ms_{workers}_workers"] = round(1000 * cpu / options.pictures, 3)
                    if storage != "files":
                        ratio = seconds["files"][0] / wall
                        figures[f"{state}_{storage}_over_files_{workers}_workers"] = round(ratio, 3)
    return figures


def _indexed(paths: dict[str, list[str]]) -> dict[str, float]:
    """What the indexes of all archives take to make, which happens once."""
    from bettersynth.workflow.archives import archive, split

    taken = {}
    for storage in sorted(paths.keys() - {"files"}):
        started = time.process_time()
        for container in sorted({found[0] for path in paths[storage] if (found := split(path))}):
            archive(container)
        taken[f"{storage}_index_cpu_seconds"] = round(time.process_time() - started, 3)
    return taken


def _rounds(paths: dict[str, list[str]], workers: int, cold: Path | None) -> dict[str, tuple[float, float]]:
    """Seconds and processor seconds of each storage."""
    found: dict[str, list[tuple[float, float]]] = {storage: [] for storage in paths}
    for number in range(ROUNDS + (cold is None)):
        for storage, own in paths.items():
            if cold:
                _forget(cold)
            taken = _read_all(own, workers)
            if cold or number:  # the first round warms up
                found[storage].append(taken)
    return {storage: (median(w for w, _ in each), median(c for _, c in each)) for storage, each in found.items()}


def _read_all(paths: list[str], workers: int) -> tuple[float, float]:
    """Wall and processor seconds to open every picture."""
    started, spent = time.perf_counter(), os.times()
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        for _ in pool.imap_unordered(_pixels, paths, chunksize=64):
            pass
        pool.close()
        pool.join()
    now = os.times()
    cpu = now.user + now.system + now.children_user + now.children_system
    return time.perf_counter() - started, cpu - sum(spent[:4])


def _pixels(path: str) -> tuple[int, ...]:
    from bettersynth.configuration.pool import USUAL
    from bettersynth.pool.images import open_pixels

    return open_pixels(path, USUAL).shape


def _forget(folder: Path) -> None:
    """Let the kernel drop what it has of the files."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)  # what is not written yet cannot be forgotten
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _stored(folder: Path, pictures: int) -> Iterator[tuple[str, list[str]]]:
    """Every storage of the same pictures, and their paths in one random order."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    order = np.random.default_rng(0).permutation(pictures).tolist()
    contents = list(_drawn(pictures))
    for number, content in enumerate(contents):
        path = folder / "files" / f"{number // 1000:05d}" / f"{number:09d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    yield "files", [f"{folder}/files/{number // 1000:05d}/{number:09d}.jpg" for number in order]
    (folder / "tars").mkdir()
    for first in range(0, pictures, IN_A_TAR):
        with tarfile.open(folder / "tars" / f"{first // IN_A_TAR:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(first, min(first + IN_A_TAR, pictures)):
                for name, data in ((f"{number:09d}.jpg", contents[number]), (f"{number:09d}.txt", b"a caption")):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    yield "tar", [f"{folder}/tars/{number // IN_A_TAR:05d}.tar/{number:09d}.jpg" for number in order]
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"{number // 1000:05d}/{number:09d}.jpg", content)
    yield "zip", [f"{folder}/images.zip/{number // 1000:05d}/{number:09d}.jpg" for number in order]
    image: dict[str, Any] = {"bytes": contents, "path": [""] * pictures}
    table = pa.table({"image": pa.StructArray.from_arrays(list(image.values()), list(image))})
    pq.write_table(table, folder / "train.parquet", compression="none", use_dictionary=False)
    yield "parquet", [f"{folder}/train.parquet/image/{number}" for number in order]


def _drawn(pictures: int) -> Iterator[bytes]:
    """JPEGs of 336 by 336 pixels and some 30 kB, of a hundred kinds, told apart by their last bytes."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    kinds = []
    for _ in range(100):
        small = Image.fromarray(random.integers(0, 256, (84, 84, 3), np.uint8))
        picture, held = small.resize((336, 336), Image.Resampling.BILINEAR), io.BytesIO()
        picture.save(held, "JPEG", quality=88)
        kinds.append(held.getvalue())
    for number in range(pictures):
        yield kinds[number % len(kinds)] + number.to_bytes(8, "little")

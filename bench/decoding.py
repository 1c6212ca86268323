"""On one core: JPEGs decoded by Pillow, simplejpeg and torchvision; a file's way to its pixels; Pillow's resizing.

torchvision is not among the project's packages: where it cannot be imported it is left out, with a word. To compare it
too, `pip install --target FOLDER torchvision` and give `PYTHONPATH=FOLDER` to the command. Another decoder may stand in
for Pillow only where its pixels are Pillow's, so that is counted too.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

SIDES = (224, 384, 768)
"""Sides that the contest's operators and MGM see, in pixels."""


PIECE = 32
"""Images that a worker decodes before it passes any on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--images", type=Path, help="folder of JPEGs, such as the contest's (default: drawn ones)")
    parser.add_argument("--limit", type=int, default=400, help="images, the first by name (default: %(default)s)")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds an image, the median of all; and the share of images whose pixels are Pillow's."""
    import numpy as np
    from PIL import Image

    from bench._photographs import draw_photographs
    from bettersynth.configuration.pool import Reading
    from bettersynth.pool.images import open_image, open_pixels

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.images or Path(temporary) / "images"
        if options.images is None:
            draw_photographs(folder, options.limit)
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[: options.limit]
        if not paths:
            raise FileNotFoundError(f"{folder}: no JPEG; name another folder with --images, or leave it out")
        contents = [path.read_bytes() for path in paths]
        ways = {
            "open_image": lambda path: np.asarray(open_image(path, Reading())),
            "open_pixels": lambda path: open_pixels(path, Reading()),
        }
        ways_ms = {f"{name}_to_memory_ms": _to_memory(way, paths) for name, way in ways.items()}
    pictures = [_by_pillow(content) for content in contents]
    figures: dict[str, float] = {
        "images": len(contents),
        "megapixels_an_image": round(statistics.mean(picture.size for picture in pictures) / 3e6, 3),
    }
    for name, decode in _decoders().items():
        figures[f"{name}_decode_ms"] = _milliseconds(decode, contents)
        same = [np.array_equal(decode(content), picture) for content, picture in zip(contents, pictures, strict=True)]
        figures[f"{name}_same_pixels_percent"] = round(100 * statistics.mean(same), 2)
    figures |= ways_ms
    images = [Image.fromarray(picture) for picture in pictures]
    for side in SIDES:
        figures[f"pillow_resize_{side}_ms"] = _milliseconds(_resize(side), images)
    return figures


def _decoders() -> dict[str, Callable[[bytes], np.ndarray]]:
    """Those that can be imported: JPEG bytes to RGB (height, width, 3)."""
    import simplejpeg

    found: dict[str, Callable[[bytes], np.ndarray]] = {"pillow": _by_pillow}
    found["simplejpeg"] = lambda content: simplejpeg.decode_jpeg(content, "RGB")
    try:
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        def by_torchvision(content: bytes) -> np.ndarray:
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            return decode_jpeg(data, ImageReadMode.RGB).permute(1, 2, 0).numpy()

        found["torchvision"] = by_torchvision
    except (ImportError, RuntimeError) as error:  # the latter where torchvision was built for another PyTorch
        print(f"left out: {error}")
    return found


def _by_pillow(content: bytes) -> np.ndarray:
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def _resize(side: int) -> Callable[[Image.Image], np.ndarray]:
    import numpy as np
    from PIL import Image

    return lambda image: np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def _to_memory(way: Callable[[Path], np.ndarray], paths: Sequence[Path]) -> float:
    """A worker's milliseconds for an image, the mean: from its file to where the device takes it from.

    The process's own, in which the kernel's for new memory is; like a worker, it has a piece's images at one time.
    """
    import numpy as np

    largest = max(way(path).size for path in paths)
    memory = np.empty(largest, np.uint8)
    started = time.process_time()
    for first in range(0, len(paths), PIECE):
        for pixels in [way(path) for path in paths[first : first + PIECE]]:
            memory[: pixels.size] = pixels.ravel()
    return round(1000 * (time.process_time() - started) / len(paths), 3)


def _milliseconds(work: Callable[[Any], np.ndarray], given: Sequence[object]) -> float:
    """The median of the items' times, each item once."""
    seconds = []
    for one in given:
        started = time.perf_counter()
        work(one)
        seconds.append(time.perf_counter() - started)
    return round(1000 * statistics.median(seconds), 3)

"""Find and open an image: the one way, shared by ingest, operators, generators, training and evaluation.

Nothing here follows a URL or leaves the image folder, no image is decoded before its header's size is
checked, and an image that is cut short is an error, never a grey rest.
"""

from __future__ import annotations

import contextlib
import os
import re
from functools import cached_property, lru_cache
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from bettersynth.configuration.pool import Pool
from bettersynth.layout import Layout
from bettersynth.records import POOL

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that are opened; Pillow's other readers are never offered the file."""

_SIGNATURES = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//|\\\\|.*::")  # a scheme or drive, a network path, fsspec's chain


class ImageReason(StrEnum):
    """Why an image cannot be used."""

    PATH = "image path"
    MISSING = "image missing"
    HEADER = "image header"
    FORMAT = "image format"
    TOO_LARGE = "image too large"
    UNREADABLE = "image unreadable"


class ImageProblem(Exception):  # noqa: N818 - a finding about the data, not a failure of the program
    """An image that cannot be used: `reason` is short and fixed, `detail` names the file and what is wrong."""

    def __init__(self, reason: ImageReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def resolve(root: str | Path, relative: str) -> Path:
    """The file below `root` that `relative` names; whether it exists is not asked.

    Raises ImageProblem (`image path`) for a URL, an absolute path, and a path that leaves `root` through `..` or
    through a symbolic link. `root` itself may be a link.
    """
    if not relative or "\0" in relative:
        raise ImageProblem(ImageReason.PATH, f"{relative!r} is no path")
    if _URL.match(relative):
        raise ImageProblem(ImageReason.PATH, f"{relative!r} is a URL; only files below the image folder are opened")
    if relative.startswith(("/", "\\")):
        raise ImageProblem(ImageReason.PATH, f"{relative!r} is absolute; give it relative to the image folder")
    if ".." in re.split(r"[/\\]", relative):
        raise ImageProblem(ImageReason.PATH, f"{relative!r} has a `..` in it")
    real_root = _resolved(os.path.join(os.getcwd(), root))  # noqa: PTH109, PTH118 - links before `..`
    real = Path(os.path.realpath(f"{real_root}/{relative}"))
    if not real.is_relative_to(real_root):
        raise ImageProblem(ImageReason.PATH, f"{relative!r} leaves the image folder through a symbolic link to {real}")
    return real


@lru_cache(maxsize=64)
def _resolved(root: str) -> Path:
    """Asked for every image, and the same for all of a pool."""
    return Path(root).resolve()


def check_image(path: str | Path, max_pixels: int, *, decode: bool = False) -> tuple[int, int]:
    """Width and height from the image's header; with `decode`, every byte is read too, at the least resolution.

    Raises ImageProblem: `image missing`, `image header`, `image format` or `image too large`; with `decode`, also
    `image unreadable`.
    """
    with _open_header(path, max_pixels) as image:
        size = image.size
        if decode:
            image.draft("RGB", (1, 1))  # a JPEG is then decoded at an eighth of its size, in a fraction of the time
            _load(image, path)
        return size


def open_image(path: str | Path, max_pixels: int) -> Image.Image:
    """The decoded image in mode RGB, turned as its EXIF orientation says.

    Equal to what Data-Juicer's `load_image` gives (`datasets.Image`, then `convert("RGB")`), except that an image
    cut short is refused. Raises ImageProblem: those of `check_image`, and `image unreadable`.
    """
    with _open_header(path, max_pixels) as image:
        return _decoded(image, path)


def open_pixels(path: str | Path, max_pixels: int) -> npt.NDArray[np.uint8]:
    """The pixels of `open_image`, uint8 `[height, width, 3]`; raises the same.

    TurboJPEG writes those of the usual JPEG where they are to be; Pillow's are copied twice on the way. What TurboJPEG
    refuses or warns of is Pillow's to judge, as is every other format, a fourth channel, and a picture with EXIF or XMP
    data, which may be turned.
    """
    with _open_header(path, max_pixels) as image:
        usual = image.mode in ("RGB", "L") and not image.info.keys() & {"exif", "xmp"}
        if image.format == "JPEG" and usual and image.fp:
            with contextlib.suppress(ValueError, OSError, MemoryError):
                image.fp.seek(0)
                return simplejpeg.decode_jpeg(image.fp.read(), "RGB")
        return np.asarray(_decoded(image, path))


def _decoded(image: Image.Image, path: str | Path) -> Image.Image:
    _load(image, path)
    try:
        if image.getexif().get(ExifTags.Base.Orientation) is not None:
            image = ImageOps.exif_transpose(image)
        return image if image.mode == "RGB" else image.convert("RGB")
    except Exception as error:  # a decoder fails in many ways on hostile bytes; all mean the same here
        raise ImageProblem(ImageReason.UNREADABLE, f"{path}: {error}") from error


def _open_header(path: str | Path, max_pixels: int) -> ImageFile.ImageFile:
    Image.MAX_IMAGE_PIXELS = max_pixels  # Pillow's own guard, at our limit: it warns above it, and refuses at twice
    try:
        image = Image.open(path, formats=FORMATS)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise ImageProblem(ImageReason.MISSING, f"{path}: no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageProblem(ImageReason.TOO_LARGE, f"{path}: {error}") from None
    except UnidentifiedImageError:
        raise _unidentified(path) from None
    except Exception as error:  # a header parser fails in many ways on hostile bytes; all mean the same here
        raise ImageProblem(ImageReason.HEADER, f"{path}: {error}") from error
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise ImageProblem(ImageReason.TOO_LARGE, f"{path}: {width} × {height} is more than {max_pixels} pixels")
    return image


def _load(image: Image.Image, path: str | Path) -> None:
    # Importing data_juicer switches this on, and Pillow reads it at every load.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        image.load()
    except Exception as error:  # a decoder fails in many ways on hostile bytes; all mean the same here
        raise ImageProblem(ImageReason.UNREADABLE, f"{path}: {error}") from error


def _unidentified(path: str | Path) -> ImageProblem:
    with Path(path).open("rb") as file:
        start = file.read(4)
    if not start:
        return ImageProblem(ImageReason.HEADER, f"{path}: empty file")
    if start.startswith(_SIGNATURES):
        return ImageProblem(ImageReason.HEADER, f"{path}: damaged header")
    return ImageProblem(ImageReason.FORMAT, f"{path}: none of {', '.join(FORMATS)}")


class ImageRoots:
    """Maps a record's `image_root` and relative path to a file of this run."""

    def __init__(self, pool: Pool, layout: Layout) -> None:
        self._pool = pool
        self._layout = layout

    def folder(self, image_root: str) -> Path:
        """The folder that `image_root` names: the pool's images, or those of a source."""
        return Path(self._pool.images) if image_root == POOL else self._layout.source_images(image_root)

    def path(self, image_root: str, relative: str) -> Path:
        """The file; raises ImageProblem (`image path`)."""
        return resolve(self.folder(image_root), relative)

    def open(self, image_root: str, relative: str) -> Image.Image:
        """The decoded image in mode RGB; raises ImageProblem."""
        return open_image(self.path(image_root, relative), self._pool.max_pixels)

    def from_pool(self, image_root: str, relative: str) -> str:
        """The path relative to the pool's image folder, whichever folder the image lies in; `/` between parts."""
        if image_root == POOL:
            return relative
        folder = self.folder(image_root)
        if self._behind_link:  # `..` leads elsewhere there
            return os.path.relpath(folder.resolve() / relative, self._behind_link).replace(os.sep, "/")
        return os.path.relpath(folder / relative, self._pool.images).replace(os.sep, "/")

    @cached_property
    def _behind_link(self) -> Path | None:
        """Where the pool's image folder really is, if a link leads to it."""
        folder = Path(self._pool.images)
        return None if folder.resolve() == Path(os.path.abspath(folder)) else folder.resolve()  # noqa: PTH100

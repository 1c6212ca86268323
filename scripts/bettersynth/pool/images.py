"""Find and open an image: the one way, shared by ingest, operators, generators, training and evaluation.

Nothing here follows a URL or leaves the image folder, no image is decoded before its header's size is
checked, and an image that is cut short is an error, never a grey rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import threading
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from PIL.Image import Transpose

from bettersynth.configuration.pool import Pool, Reading
from bettersynth.configuration.storage import MemberError
from bettersynth.core.image_paths import ImageProblem, ImageReason, resolve
from bettersynth.core.layout import Layout
from bettersynth.core.own import open_file
from bettersynth.core.records import POOL
from bettersynth.core.remedy import config_of
from bettersynth.workflow.archives import file_stat, read_member, sha256_at
from bettersynth.workflow.pictures import Known, State, known_pictures
from bettersynth.workflow.roots import roots_of

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that are opened; Pillow's other readers are never offered the file."""

MOST_SIDE = 65_535
"""Pixels of the longest side that is opened, JPEG's own limit: memory goes with it, too."""
HELD_BYTES = 1 << 26
"""Bytes of the longest file that is held in memory while it is looked at."""
LARGE = 16_000_000
"""Pixels above which a process decodes one image at a time, however many threads it has."""
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""EXIF's orientations that are not upright, and what brings them there."""

Source = str | Path | bytes
"""A file, or a file's bytes."""

_large = threading.Lock()
_SIGNATURES = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")


class FileBytes(bytes):
    """A file's bytes, that know its name."""

    name: str


def read_image(path: Path) -> tuple[State, Source]:
    """A picture's state, and its bytes, read once; of a very large file, its path, to be read again.

    Raises OSError, and ImageProblem for a member of an archive that is not read.
    """
    try:
        with open_file(path) as file:
            stat = os.fstat(file.fileno())
            if stat.st_size > HELD_BYTES:
                return State.of(stat, hashlib.file_digest(file, "sha256").hexdigest()), path
            contents = FileBytes(file.read())
    except NotADirectoryError:
        stat, contents = file_stat(path), _member(path)
    contents.name = str(path)
    return State.of(stat, hashlib.sha256(contents).hexdigest()), contents


def _member(path: str | Path) -> FileBytes:
    """The bytes of a member of an archive, by the path that leads to it. Raises ImageProblem."""
    try:
        contents = FileBytes(read_member(path))
    except MemberError as error:
        raise ImageProblem(ImageReason.MEMBER, str(error)) from None
    except FileNotFoundError as error:
        raise ImageProblem(ImageReason.MISSING, str(error)) from None
    except OSError as error:
        raise ImageProblem(ImageReason.UNREADABLE, f"{path}: {error}") from error
    contents.name = str(path)
    return contents


def check_image(source: Source, reading: Reading, *, decode: bool = False) -> tuple[int, int]:
    """Width and height from the image's header; with `decode`, every byte is read too, at the least resolution.

    Raises ImageProblem: `image missing`, `image header`, `image format` or `image too large`; with `decode`, also
    `image unreadable`, for whatever `open_image` could not open.
    """
    with _open_header(source, reading) as image:
        size = image.size
        if decode:
            image.draft("RGB", (1, 1))  # a JPEG is then decoded at an eighth of its size, in a fraction of the time
            _decoded(image, source, reading)
        return size


def open_image(source: Source, reading: Reading) -> Image.Image:
    """The decoded image in mode RGB, turned as its EXIF orientation says; one that cannot be read says nothing.

    Equal to what Data-Juicer's `load_image` gives (`datasets.Image`, then `convert("RGB")`), except that an image
    cut short is refused, that damaged EXIF data is not, and that grey of more than 8 bits is scaled unless `reading`
    says to clip it. Raises ImageProblem: those of `check_image`.
    """
    with _open_header(source, reading) as image:
        return _decoded(image, source, reading)


def open_pixels(source: Source, reading: Reading) -> npt.NDArray[np.uint8]:
    """The pixels of `open_image`, uint8 `[height, width, 3]`; raises the same.

    TurboJPEG writes those of the usual JPEG where they are to be; Pillow's are copied twice on the way. What TurboJPEG
    refuses or warns of is Pillow's to judge, as is every other format, a fourth channel, and a picture with EXIF or XMP
    data, which may be turned.
    """
    with _open_header(source, reading) as image:
        usual = image.mode in ("RGB", "L") and not image.info.keys() & {"exif", "xmp"}
        if image.format == "JPEG" and usual and image.fp:
            with contextlib.suppress(ValueError, OSError, MemoryError):
                image.fp.seek(0)
                return simplejpeg.decode_jpeg(image.fp.read(), "RGB")
        return np.asarray(_decoded(image, source, reading))


def rgb(image: Image.Image, reading: Reading) -> Image.Image:
    """A decoded image as every reader sees it: upright, in mode RGB, 8 bits a channel."""
    if (turn := TURNS.get(_orientation(image))) is not None:
        image = image.transpose(turn)
    if image.mode == "RGB":
        return image
    if reading.deep_grey == "scale" and image.mode.startswith(("I", "F")):
        image = _scaled(image)
    return image.convert("RGB")


def _orientation(image: Image.Image) -> Any:
    """What EXIF or XMP data say, if they can be read at all."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        hash(orientation)
    except Exception:  # a parser fails in many ways on hostile bytes; all mean the same here
        return None
    return orientation


def _scaled(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, or of mode I or F, in 8 bits.

    Modes I and F state no range: theirs is the smallest of 1 (F only), 255, 65,535 and 2**32 - 1 that holds all values.
    """
    values = np.asarray(image)
    if values.dtype.kind == "u":
        return Image.fromarray(_EIGHT_OF_SIXTEEN[values])
    most = np.nanmax(values, initial=0.0, where=np.isfinite(values))
    ranges = (255.0, 65_535.0, 2.0**32 - 1)
    white = next((end for end in ((1.0, *ranges) if values.dtype.kind == "f" else ranges) if most <= end), most)
    scaled = np.multiply(values, 255.0 / white, dtype=np.float32)
    np.nan_to_num(scaled, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    return Image.fromarray(np.clip(scaled, 0, 255, out=scaled).round().astype(np.uint8))


_EIGHT_OF_SIXTEEN = ((np.arange(65_536, dtype=np.uint32) + 128) // 257).astype(np.uint8)


def _decoded(image: Image.Image, source: Source, reading: Reading) -> Image.Image:
    # Importing data_juicer switches this on, and Pillow reads it at every load.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with _large if math.prod(image.size) > LARGE else contextlib.nullcontext():
            image.load()
            return rgb(image, reading)
    except Exception as error:  # a decoder fails in many ways on hostile bytes; all mean the same here
        raise ImageProblem(ImageReason.UNREADABLE, f"{_named(source)}: {error}") from error


def _open_header(source: Source, reading: Reading) -> ImageFile.ImageFile:
    # Pillow's own guard, at our limit: it warns above it, and refuses at twice
    Image.MAX_IMAGE_PIXELS = reading.max_pixels
    name = _named(source)
    try:
        if not isinstance(source, bytes):
            open_file(source).close()
        image = Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except NotADirectoryError:
        return _open_header(_member(source), reading)  # type: ignore[arg-type]  # only a path raises it
    except (FileNotFoundError, IsADirectoryError):
        raise ImageProblem(ImageReason.MISSING, f"{name}: no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageProblem(ImageReason.TOO_LARGE, f"{name}: {error}") from None
    except UnidentifiedImageError:
        raise _unidentified(source) from None
    except Exception as error:  # a header parser fails in many ways on hostile bytes; all mean the same here
        raise ImageProblem(ImageReason.HEADER, f"{name}: {error}") from error
    width, height = image.size
    limits = ((width * height, reading.max_pixels, "pixels"), (max(width, height), MOST_SIDE, "pixels on a side"))
    for found, most, unit in limits:
        if found > most:
            image.close()
            raise ImageProblem(ImageReason.TOO_LARGE, f"{name}: {width} × {height} is more than {most} {unit}")
    return image


def _named(source: Source) -> str:
    if isinstance(source, FileBytes):
        return source.name
    return f"{len(source)} bytes" if isinstance(source, bytes) else str(source)


def _unidentified(source: Source) -> ImageProblem:
    start = source[:4] if isinstance(source, bytes) else _start(source)
    name = _named(source)
    if not start:
        return ImageProblem(ImageReason.HEADER, f"{name}: empty file")
    if start.startswith(_SIGNATURES):
        return ImageProblem(ImageReason.HEADER, f"{name}: damaged header")
    return ImageProblem(ImageReason.FORMAT, f"{name}: none of {', '.join(FORMATS)}")


def _start(path: str | Path) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(4)


class ImageRoots:
    """Maps a record's `image_root` and relative path to a file of this run, or a member of an archive.

    A path that leads through an archive (`shards/00000.tar/000000012.jpg`) is opened by this module's functions as one
    of a file is (`workflow.archives` finds and reads it).
    """

    def __init__(self, pool: Pool, layout: Layout) -> None:
        self._pool = pool
        self._layout = layout
        self.roots = roots_of(pool)

    def resolved(self, image_root: str, relative: str) -> Path:
        """The file, whatever it holds now; raises ImageProblem (`image path`)."""
        if image_root == POOL:
            return self.roots.resolve(relative)
        return resolve(self._layout.source_images(image_root), relative)

    def path(self, image_root: str, relative: str) -> Path:
        """The file; raises ImageProblem (`image path`, or `image changed` for another than the pool was read with)."""
        path = self.resolved(image_root, relative)
        if image_root == POOL:
            self._check(relative, path)
        return path

    def plain(self, image_root: str, relative: str) -> Path:
        """The file as a person would write it; whether it may be opened is not asked."""
        if image_root == POOL:
            return Path(self.roots.at(relative))
        return self._layout.source_images(image_root) / relative

    def named(self, relative: str) -> Path:
        """The file that a training file names, whatever it holds now."""
        if relative.startswith("../") and self._known.state(relative) is None:  # drawn
            return self._folder / relative
        return Path(self.roots.at(relative))

    def found(self, relative: str) -> Path:
        """The file that a training file names; raises ImageProblem (`image changed`)."""
        path = self.named(relative)
        self._check(relative, path)
        return path

    def is_as_read(self, image_root: str, relative: str) -> bool:
        """Whether the file looks, by size and time, like the picture of the pool that ingest has read."""
        read = self._known.state(relative) if image_root == POOL else None
        try:
            return read is not None and State.of(file_stat(self.roots.at(relative))).looks_like(read)
        except OSError:
            return False

    def load(self) -> ImageRoots:
        """Learn now what ingest has read, before processes are forked or threads ask."""
        self._known.state("")
        return self

    def _check(self, relative: str, path: Path) -> None:
        """Size and time tell; where these are others, the contents."""
        read = self._known.state(relative)
        if read is None:
            return
        try:
            same = State.of(file_stat(path)).looks_like(read) or sha256_at(path) == read.sha256
        except (OSError, MemberError):  # whoever opens it says what is wrong with it
            return
        if not same:
            raise ImageProblem(
                ImageReason.CHANGED,
                f"{path}: not the picture that was read into the pool; run again, which reads it in anew: "
                f"make run CONFIG={config_of(self._layout.root / 'pool')}",
            )

    @cached_property
    def _known(self) -> Known:
        return known_pictures(self._pool, self._layout)

    def open(self, image_root: str, relative: str) -> Image.Image:
        """The decoded image in mode RGB; raises ImageProblem."""
        return open_image(self.path(image_root, relative), self._pool.reading)

    def from_pool(self, image_root: str, relative: str) -> str:
        """The path relative to the (first) image folder, whichever folder the image lies in; `/` between parts."""
        if image_root == POOL:
            return relative
        images = self._layout.source_images(image_root)
        if self._behind_link:  # `..` leads elsewhere there
            return os.path.relpath(images.resolve() / relative, self._behind_link).replace(os.sep, "/")
        return os.path.relpath(images / relative, self._folder).replace(os.sep, "/")

    @cached_property
    def _folder(self) -> Path:
        """The (first) image folder; of an archive, the one that it lies in."""
        place = Path(self.roots.places[0])
        return place.parent if place.is_file() else place

    @cached_property
    def _behind_link(self) -> Path | None:
        """Where the image folder really is, if a link leads to it."""
        folder = self._folder
        return None if folder.resolve() == Path(os.path.abspath(folder)) else folder.resolve()  # noqa: PTH100

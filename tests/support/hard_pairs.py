"""Records and pictures that broke something once: what is refused, with its reason, and what runs through it all."""

from __future__ import annotations

import json
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from pairs import llava_pair, pair, write_image
from PIL import ExifTags, Image

from bettersynth.core.raw import CONTROL_STRINGS, Reason
from bettersynth.core.records import IMAGE_TOKEN, text_of
from bettersynth.pool.images import ImageReason


def line(**changes) -> bytes:
    """A good record as a raw line, with keys changed; None removes a key."""
    record = {key: value for key, value in {**pair("x"), **changes}.items() if value is not None}
    return json.dumps(record, ensure_ascii=False).encode()


def with_text(text) -> bytes:
    return line(text=text)


FAULTS = {
    "torn": (b'{"id": "x", "text": "<__dj__im', Reason.TORN),
    "two values": (line() + line(), Reason.TORN),
    "not a number": (b'{"id": NaN}', Reason.TORN),
    "latin-1": (line().replace(b"teal", b"t\xe9al"), Reason.ENCODING),
    "lone surrogate": (line().replace(b"teal", b"\\ud800"), Reason.ENCODING),
    "byte order mark inside": (b"\xef\xbb\xbf" + line(), Reason.ENCODING),
    "NUL byte": (line().replace(b"teal", b"te\0al"), Reason.NUL),
    "NUL escaped": (line().replace(b"teal", b"\\u0000"), Reason.NUL),
    "NUL in id": (line(id="a\0"), Reason.NUL),
    "a list": (b"[1, 2]", Reason.NOT_OBJECT),
    "id a float": (line(id=1.5), Reason.ODD_ID),
    "id a bool": (line(id=True), Reason.ODD_ID),
    "id a list": (line(id=["x"]), Reason.ODD_ID),
    "id empty": (line(id=" "), Reason.ODD_ID),
    "no text": (line(text=None), Reason.NO_TEXT),
    "text a list": (line(text=["a"]), Reason.NO_TEXT),
    "images a string": (line(images="images/one.png"), Reason.NO_IMAGES),
    "images empty": (line(images=[]), Reason.NO_IMAGES),
    "images missing": (line(images=None), Reason.NO_IMAGES),
    "image a number": (line(images=[1]), Reason.NO_IMAGES),
    "image empty": (line(images=[""]), Reason.NO_IMAGES),
    "two images, one token": (line(images=["images/one.png"] * 2), Reason.IMAGE_COUNT),
    "two tokens, one image": (with_text(IMAGE_TOKEN + text_of("a")), Reason.IMAGE_COUNT),
    "no token": (with_text("a teal square"), Reason.NO_IMAGE_TOKEN),
    "LLaVA's token": (with_text("<image>\na teal square"), Reason.PLAIN_TOKEN),
    "caption empty": (with_text(text_of("  \n ")), Reason.EMPTY_CAPTION),
    **{
        f"{word} in the caption": (with_text(text_of(f"a {word} b")), Reason.CONTROL_STRING) for word in CONTROL_STRINGS
    },
}


def bomb(path, width, height):
    """A PNG of a few bytes that says it is huge."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    return path


def odd_images(folder):
    """Images in unusual modes, orders and orientations."""
    colours = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    picture = Image.fromarray(colours)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture.save(folder / "turned.jpg", exif=exif)
    turned = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="6"/>'
    picture.save(folder / "plain.jpg")
    plain = (folder / "plain.jpg").read_bytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(turned) + 2) + turned
    (folder / "turned by XMP.jpg").write_bytes(plain[:2] + segment + plain[2:])
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.convert("P").save(folder / "palette.png")
    picture.convert("RGBA").save(folder / "alpha.png")
    picture.convert("L").save(folder / "grey.png")
    Image.fromarray(colours[:, :, 0].astype(np.uint16) * 200).save(folder / "deep.png")
    picture.save(folder / "moving.gif", save_all=True, append_images=[picture.rotate(180)])
    picture.save(folder / "picture.webp", lossless=True)
    return sorted(folder.iterdir())


def sound_pictures(folder: Path) -> list[str]:
    """Pictures of hard kinds that every job has to take; their names."""
    folder.mkdir()
    odd_images(folder)
    for name, size in {
        "1 high.png": (96, 1),
        "3 high.png": (96, 3),
        "1 wide.png": (1, 96),
        "long.png": (60_000, 1),
        "tall.png": (1, 60_000),
        "one pixel.png": (1, 1),
        "large.png": (5_000, 4_000),
    }.items():
        write_image(folder / name, size)
    write_image(folder / "EXIF is text.png", exif=b"Exif\0\0no TIFF at all")
    write_image(folder / "EXIF is cut.webp", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    write_image(folder / "a bit.tiff", colour="white").rename(folder / "a bit.jpg")
    write_image(folder / "große 日本 %20 'name'.png")
    Image.new("1", (24, 16)).save(folder / "bilevel.png")
    Image.new("LA", (24, 16)).save(folder / "grey with alpha.png")
    Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(folder / "no numbers.tiff")
    write_image(folder / "bitmap.bmp")
    return sorted(path.name for path in folder.iterdir())


def unusable_pictures(folder: Path) -> dict[str, ImageReason]:
    """Pictures that nothing can open, or that lie where nothing may be read; why, by path."""
    folder.mkdir()
    (folder / "empty.jpg").touch()
    (folder / "page.jpg").write_text("<html>404</html>")
    (folder / "folder.jpg").mkdir()
    (folder / "out.png").symlink_to("/etc/hostname")
    whole = write_image(folder / "cut.jpg", (640, 480)).read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    bomb(folder / "bomb.png", 50_000, 50_000)
    return {
        "empty.jpg": ImageReason.HEADER,
        "page.jpg": ImageReason.FORMAT,
        "folder.jpg": ImageReason.MISSING,
        "absent.jpg": ImageReason.MISSING,
        "out.png": ImageReason.PATH,
        "../../secret.png": ImageReason.PATH,
        "cut.jpg": ImageReason.UNREADABLE,
        "bomb.png": ImageReason.TOO_LARGE,
    }


CAPTIONS = [
    "x",
    "...",
    "null",
    "007",
    "a",
    "紅色的船在水上",
    "قارب أحمر على الماء",
    "👩‍👩‍👧 🚤",
    "a\u200bred\u00a0boat",
    "a\x01\x07 boat",
    "two\nlines\r\nand\ta tab",
    "<b>bold</b> &amp; {braces} %s $HOME `ls`",
    "\"quoted\" 'twice'",
    "w" * 5_000,
    "a red boat . " * 1_500,
]


def add_hard_pairs(data: Path, name: str) -> tuple[set[str], Counter[str]]:
    """Append one of every kind to the pool file `name` below `data`, and what to ask of it to its restore file.

    Returns the ids that have to come through, and how many of each reason have to be refused.
    """
    good = [
        pair(f"picture {file}", "a red boat", f"{name}-hard/{file}") for file in sound_pictures(data / f"{name}-hard")
    ]
    good += [pair(f"caption {number}", caption, good[0]["images"][0]) for number, caption in enumerate(CAPTIONS)]
    refused = unusable_pictures(data / f"{name}-unusable")
    bad = [pair(f"bad {path}", "a red boat", f"{name}-unusable/{path}") for path in refused]
    first, second = (record["images"] for record in good[:2])
    both = {"id": "two pictures", "text": IMAGE_TOKEN + text_of("both"), "images": first + second}
    bad += [pair("without a question", image=first[0]), pair("long", "x" * 100_001, first[0]), good[0], both]
    reasons = Counter(str(reason) for reason in [*refused.values(), *(reason for _, reason in FAULTS.values())])
    reasons.update(map(str, [Reason.NO_QUESTION, Reason.LONG_CAPTION, Reason.DUPLICATE_ID, Reason.SEVERAL_IMAGES]))
    with (data / f"mgm_pretrain_{name}.jsonl").open("ab") as file:
        file.write(b"".join(json.dumps(record).encode() + b"\n" for record in [*good, *bad]))
        file.write(b"".join(raw + b"\n" for raw, _ in FAULTS.values()))
    restore = data / f"{name}.json"
    asked = [llava_pair(record["id"], "x") for record in [*good, *bad] if record["id"] != "without a question"]
    restore.write_text(json.dumps(json.loads(restore.read_text()) + asked))
    return {record["id"] for record in good}, reasons

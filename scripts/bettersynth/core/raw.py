"""Raw files: JSON lines in Data-Juicer's form or one JSON list in LLaVA's form; plain, gzip or Zstandard.

Light enough for the moment when the graph is built: a raw file's digests are taken with this module too.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import zstandard

from bettersynth.core.records import IMAGE_TOKEN, Record, caption_of, text_of

PLAIN_IMAGE_TOKEN = "<image>"  # LLaVA's; the training tokenizer would put an image in its place
GEMMA_TOKENS = ("<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>")
"""Strings that Gemma's tokenizer takes for its own tokens."""
CONTROL_STRINGS = (PLAIN_IMAGE_TOKEN, *GEMMA_TOKENS, "<__dj__audio>", "<__dj__video>")
"""Strings that a tokenizer or Data-Juicer takes for a command (Gemma's special tokens, modality tokens)."""

DERIVED_ID = "sha256-"
"""How the id of a record begins that came without one."""

FORMS = "JSON lines (Data-Juicer's form or LLaVA's) or one JSON list (LLaVA's), in UTF-8; plain, .gz or .zst"
"""What a raw file may be."""
_KINDS = (
    (0, b"PAR1", "a Parquet file", "write its rows as JSON lines, or, in `pool.files`, let its name end in .parquet"),
    (0, b"ARROW1", "an Arrow file", "write its rows as JSON lines"),
    (
        0,
        b"PK\x03\x04",
        "a zip archive",
        "name the JSON beside it; a zip of pictures belongs in `pool.images`",
    ),
    (
        0,
        b"PK\x05\x06",
        "a zip archive",
        "name the JSON beside it; a zip of pictures belongs in `pool.images`",
    ),
    (
        257,
        b"ustar\0",
        "a tar archive",
        "unpack it, or, in `pool.files`, let its name end in .tar",
    ),
    (
        257,
        b"ustar  \0",
        "a tar archive",
        "unpack it, or, in `pool.files`, let its name end in .tar",
    ),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it and name the file in it"),
    (0, b"\x1f\x8b", "compressed by gzip", "end its name in .gz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by Zstandard", "end its name in .zst"),
    (0, b"BZh", "compressed by bzip2", "compress it with gzip or zstd instead"),
    (0, b"\xfd7zXZ\0", "compressed by xz", "compress it with gzip or zstd instead"),
    (0, codecs.BOM_UTF16_LE, "text in UTF-16 or UTF-32", "convert it: iconv -f UTF-16 -t UTF-8"),
    (0, codecs.BOM_UTF16_BE, "text in UTF-16", "convert it: iconv -f UTF-16 -t UTF-8"),
    (0, codecs.BOM_UTF32_BE, "text in UTF-32", "convert it: iconv -f UTF-32 -t UTF-8"),
)
"""Where in a file which bytes say that it is of another kind, and what to do then."""
_LOOKED_AT = 4096
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\f\r"))

_CONTROL = re.compile("|".join(map(re.escape, CONTROL_STRINGS)))
_BOM = codecs.BOM_UTF8
_CHUNK = 1 << 20


class Reason(StrEnum):
    """Why a raw line is no record."""

    TORN = "torn JSON"
    ENCODING = "encoding"
    NUL = "NUL character"
    NOT_OBJECT = "not an object"
    ODD_ID = "odd id"
    DUPLICATE_ID = "duplicate id"
    NO_TEXT = "no text"
    NO_IMAGES = "no image list"
    NOT_ONE_TURN = "not one question and answer"
    NO_IMAGE_TOKEN = "no image token"
    PLAIN_TOKEN = "plain image token"
    IMAGE_COUNT = "image count"
    EMPTY_CAPTION = "empty caption"
    CONTROL_STRING = "control string"
    LONG_CAPTION = "caption too long"
    SEVERAL_IMAGES = "several images"
    QUESTION = "question"
    NO_QUESTION = "no question"
    MEMBER = "archive member"


class RecordProblem(Exception):  # noqa: N818 - a finding about the data, not a failure of the program
    """A raw line that is no record: `reason` is short and fixed, `detail` says what was found."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class OtherKindError(ValueError):
    """A file that is none of the kinds that raw files may be of."""


class RawLine(NamedTuple):
    """A line of a raw file (or an entry of a list, a sample of an archive, a row): `number` counts from 1."""

    number: int
    raw: bytes
    problem: RecordProblem | None = None
    """Why it is no record, where that was seen before its text was read."""

    def record(self) -> Record:
        """The record in it. Raises RecordProblem."""
        if self.problem is not None:
            raise self.problem
        return parse_record(self.raw)


# --- reading -------------------------------------------------------------------------------------


def raw_lines(path: str | Path) -> Iterator[RawLine]:
    """The lines of a JSONL file, blank ones too, or the entries of a JSON list, with bounded memory.

    Only a line feed ends a line (U+2028 does not). A byte order mark at the file's start is skipped. A list is
    recognised by its first character, unless the file's name says `.jsonl`. Raises OtherKindError for a file of another
    kind, and ValueError when the compressed stream or the list breaks off: how many records are lost cannot be known
    then.
    """
    path = Path(path)
    try:
        with _open(path) as stream:
            start = stream.read(_CHUNK)
            _refuse_other_kinds(path, start)
            text = start.removeprefix(_BOM)
            if ".jsonl" not in path.suffixes and text.lstrip().startswith(b"["):
                yield from _list_entries(stream, text, path)
            else:
                yield from _lines(stream, text)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: the list is not in UTF-8 ({error.reason}: {error.object[error.start : error.end]!r})"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise ValueError(f"{path}: damaged compressed file ({error}); copy it again, compare its checksum") from error


def other_kind(path: str | Path) -> str | None:
    """What is wrong with a raw file's kind, from its first bytes; None when nothing is, or it cannot be opened."""
    path = Path(path)
    try:
        if path.is_dir():
            raise OtherKindError(f"{path}: a folder; a raw file is {FORMS}")
        with _open(path) as stream:
            _refuse_other_kinds(path, stream.read(_LOOKED_AT))
    except OtherKindError as error:
        return str(error)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError):
        return None  # for the reader to say
    return None


def _refuse_other_kinds(path: Path, start: bytes) -> None:
    for offset, signature, kind, remedy in _KINDS:
        if start[offset:].startswith(signature):
            raise OtherKindError(f"{path}: {kind}; a raw file is {FORMS}: {remedy}")
    looked_at = start[:_LOOKED_AT]
    controls = len(looked_at) - len(looked_at.translate(None, _CONTROLS))
    if controls > max(8, len(looked_at) // 20):  # a line may be damaged, and is quarantined
        raise OtherKindError(f"{path}: binary, or text in UTF-16; a raw file is {FORMS}")


def _open(path: Path) -> io.BufferedIOBase:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    if path.suffix == ".zst":
        return io.BufferedReader(_WholeZstd(path), _CHUNK)
    return path.open("rb")


class _WholeZstd(io.RawIOBase):
    """A Zstandard file whose end is checked: the library's reader takes a file cut short for a whole one."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._ready = b""
        self._inside = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._inside = zstandard.ZstdDecompressor().decompressobj(), False
            data = data or self._file.read(_CHUNK)
            if not data:
                if self._inside:
                    raise EOFError("the file ends within a frame")
                return 0
            self._inside = True
            self._ready = self._frame.decompress(data)
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _lines(stream: io.BufferedIOBase, start: bytes) -> Iterator[RawLine]:
    number, rest = 1, start
    while start:
        *lines, rest = rest.split(b"\n")
        for line in lines:
            yield RawLine(number, line)
            number += 1
        start = stream.read(_CHUNK)
        rest += start
    if rest:
        yield RawLine(number, rest)


def _list_entries(stream: io.BufferedIOBase, start: bytes, path: Path) -> Iterator[RawLine]:
    """Entries of a JSON list, each cut out of a sliding window as the bytes of one JSON value."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    scan = json.JSONDecoder().raw_decode
    number, position, ended = 1, 1, False
    window = decode(start).lstrip()
    while True:
        position = _skip(window, position, " \t\r\n," if number > 1 else " \t\r\n")
        if window[position : position + 1] == "]":
            return
        try:
            _, end = scan(window, position)
            following = _skip(window, end, " \t\r\n")
            complete = window[following : following + 1] in ("]", ",")
        except json.JSONDecodeError as error:
            problem, complete = str(error), False
        except RecursionError:
            raise ValueError(f"{path}: entry {number} of the list is nested too deep") from None
        else:
            problem = "no comma or bracket after it"
        if complete:
            yield RawLine(number, window[position:end].encode("utf-8", "surrogatepass"))
            number, position = number + 1, end
            continue
        if ended:
            raise ValueError(f"{path}: the list breaks off or is damaged at entry {number} ({problem}); copy it again")
        chunk = stream.read(_CHUNK)
        window, position, ended = window[position:] + decode(chunk, not chunk), 0, not chunk


def _skip(text: str, position: int, characters: str) -> int:
    while text[position : position + 1] and text[position] in characters:
        position += 1
    return position


# --- understanding -------------------------------------------------------------------------------


def parse_json(raw: bytes) -> Any:
    """The JSON value of a raw line, strictly UTF-8; raises RecordProblem."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RecordProblem(_why_not_json(raw, str(error)), str(error)) from None


def _why_not_json(raw: bytes, message: str) -> Reason:
    if b"\0" in raw:
        return Reason.NUL
    if raw.startswith(_BOM) or "surrogate" in message:
        return Reason.ENCODING
    try:
        raw.decode()
    except UnicodeDecodeError:
        return Reason.ENCODING
    return Reason.TORN


def parse_record(raw: bytes) -> Record:
    """The record in a raw line, of Data-Juicer's or LLaVA's form; its image files are not looked at.

    A number as id becomes a string; a record without id gets one from its content. Keys other than the form's are
    not kept. Raises RecordProblem.
    """
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise RecordProblem(Reason.NOT_OBJECT, f"found {type(value).__name__}")
    text, images = _from_llava(value) if "conversations" in value else _from_data_juicer(value)
    record = Record(_id_of(value.get("id"), text, images), text, images)
    _check(record)
    return record


def question_of(raw: bytes) -> str | None:
    """The question that a raw line of LLaVA's form asks, image token included; None in Data-Juicer's form."""
    if b'"conversations"' not in raw:
        return None
    value = parse_json(raw)
    return value["conversations"][0]["value"] if "conversations" in value else None


def question_problem(question: str) -> str | None:
    """Why a question cannot be trained on, or None."""
    if question.count(PLAIN_IMAGE_TOKEN) != 1:
        return f"not exactly one `{PLAIN_IMAGE_TOKEN}` in its question"
    token = next((token for token in GEMMA_TOKENS if token in question), None)
    return f"`{token}` in its question" if token else None


def _id_of(value: Any, text: str, images: list[str]) -> str:
    match value:
        case None:
            return DERIVED_ID + hashlib.sha256(orjson.dumps([text, images])).hexdigest()[:32]
        case bool():
            pass
        case int():
            return str(value)
        case str() if value.strip():
            return value
    raise RecordProblem(Reason.ODD_ID, f"found {value!r}; an id is a string or a whole number")


def _from_data_juicer(value: dict[str, Any]) -> tuple[str, list[str]]:
    text, images = value.get("text"), value.get("images")
    if not isinstance(text, str):
        raise RecordProblem(Reason.NO_TEXT, f"`text` is {type(text).__name__}, not a string")
    return text, _image_list(images, "images")


def _from_llava(value: dict[str, Any]) -> tuple[str, list[str]]:
    """Caption and image of a one-turn conversation, as the kit's `llava_to_dj.py --only_keep_caption` takes them."""
    turns = value["conversations"]
    pair = isinstance(turns, list) and [turn.get("from") if isinstance(turn, dict) else None for turn in turns]
    if pair != ["human", "gpt"]:
        raise RecordProblem(Reason.NOT_ONE_TURN, f"turns: {pair}; a pair is one of human and one of gpt")
    question, caption = (turn.get("value") for turn in turns)
    if not isinstance(question, str) or not isinstance(caption, str):
        raise RecordProblem(Reason.NO_TEXT, "a turn's `value` is not a string")
    if not value.get("image"):
        raise RecordProblem(Reason.NO_IMAGES, "text only: `image` is missing or empty")
    if not (question.startswith(PLAIN_IMAGE_TOKEN) or question.endswith(PLAIN_IMAGE_TOKEN)):
        raise RecordProblem(Reason.NO_IMAGE_TOKEN, "the question neither begins nor ends with `<image>`")
    image = value["image"]
    return text_of(caption.strip()), _image_list([image] if isinstance(image, str) else image, "image")


def _image_list(value: Any, key: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(path, str) and path for path in value):
        raise RecordProblem(Reason.NO_IMAGES, f"`{key}` is no list of one path or more: {value!r}"[:300])
    return value


def _check(record: Record) -> None:
    if "\0" in record.text or "\0" in record.id or any("\0" in path for path in record.images):
        raise RecordProblem(Reason.NUL, "a NUL character in id, text or path")
    tokens = record.text.count(IMAGE_TOKEN)
    if not tokens and PLAIN_IMAGE_TOKEN in record.text:
        raise RecordProblem(Reason.PLAIN_TOKEN, f"`{PLAIN_IMAGE_TOKEN}` where Data-Juicer's `{IMAGE_TOKEN}` belongs")
    if not tokens:
        raise RecordProblem(Reason.NO_IMAGE_TOKEN, f"no `{IMAGE_TOKEN}` in the text")
    if tokens != len(record.images):
        raise RecordProblem(Reason.IMAGE_COUNT, f"{tokens} image tokens, {len(record.images)} images")
    if problem := caption_problem(caption_of(record.text)):
        raise RecordProblem(*problem)


def caption_problem(caption: str) -> tuple[Reason, str] | None:
    """Why a caption cannot be trained on (empty, or a control string in it), or None."""
    if not caption:
        return Reason.EMPTY_CAPTION, "nothing but special tokens"
    if "<" in caption and (found := _CONTROL.search(caption)):
        return Reason.CONTROL_STRING, f"`{found[0]}` in the caption"
    return None

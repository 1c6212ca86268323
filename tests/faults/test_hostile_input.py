"""Readers of what others wrote: a sentence that names the file, or what stands there, whatever the bytes are."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
import zstandard
from fuzzing import GUARD, changed, fuzz, inputs_wanted
from hypothesis import given, settings
from hypothesis import strategies as st
from light import light_configuration
from PIL import Image
from workflow import CONFIGURATION

from bettersynth.configuration import ConfigurationError, configure, read_yaml
from bettersynth.configuration.instructions import instruction_sets
from bettersynth.configuration.pool import Reading
from bettersynth.core.image_paths import ImageProblem, resolve
from bettersynth.core.layout import Layout
from bettersynth.core.publish import json_lines, read_json
from bettersynth.core.raw import RecordProblem, parse_record, question_of, raw_lines
from bettersynth.core.records import caption_of
from bettersynth.core.remedy import DamagedError
from bettersynth.core.tables import read_table, write_table
from bettersynth.deploy.archive import ArchiveError, pack, read_manifest, unpack
from bettersynth.evaluation.answers import AnswersError, read_answers, require_all_answered
from bettersynth.evaluation.preflight import check_questions
from bettersynth.pool.images import check_image, open_image, open_pixels
from bettersynth.sources.journal import Journal, read_line
from bettersynth.training.mgm.conversations import rounds
from bettersynth.training.mgm.instructions import _findings, _rows
from bettersynth.training.preflight import PreflightError

RECORD = {"id": "7", "text": "<__dj__image>\na red dog <|__dj__eoc|>", "images": ["images/7.png"]}
TURNS = [{"from": "human", "value": "What is it?\n<image>"}, {"from": "gpt", "value": "a red dog"}]
ENTRY = {"id": "8", "image": "images/8.png", "conversations": TURNS}
LINES = [json.dumps(line).encode() for line in (RECORD, RECORD | {"id": 9}, ENTRY, ENTRY | {"id": None})]
READING = Reading(max_pixels=1_000_000)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["<image>", "human"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ENTRY, *RECORD, "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture
def count(record_property) -> Callable[[int], None]:
    """Note how many inputs a reader was given."""

    def note(inputs: int) -> None:
        print(f"{inputs} inputs")
        record_property("fuzzed_inputs", inputs)

    return note


def test_raw_files(place, count):
    """Lines, and whole files of every form and compression."""

    def line(data: bytes) -> None:
        try:
            record = parse_record(data)
        except RecordProblem as problem:
            assert problem.detail
            return
        assert record.id.strip() and record.images and caption_of(record.text)
        "".join([record.id, record.text, *record.images]).encode()  # no half of a surrogate pair came through
        question_of(data)

    path, chance = place / "raw.jsonl", random.Random(0)

    def file(data: bytes) -> None:
        named = path.with_name(chance.choice(("raw.jsonl", "raw.json", "raw.json.gz", "raw.jsonl.zst")))
        packed = {".gz": gzip.compress, ".zst": zstandard.compress}.get(named.suffix)
        content = packed(data) if packed and chance.random() < 0.7 else data
        named.write_bytes(content)
        try:
            for each in raw_lines(named):
                line(each.raw)
        except ValueError as error:
            assert str(error).startswith(str(named)), error

    files = [b"\n".join(LINES) + b"\n", b"[" + b",\n".join(LINES) + b"]", gzip.compress(LINES[0])]
    total = fuzz("raw_lines", LINES, line, place, share=0.4, quick=10_000)
    count(total + fuzz("raw_files", files, file, place, share=0.06, quick=1000))


@settings(max_examples=inputs_wanted(0.002, 50), derandomize=True)
@given(value=JSON)
def test_records_of_any_shape(value):
    data = json.dumps(value).encode()
    try:
        parse_record(data)
        question_of(data)
    except RecordProblem as problem:
        assert problem.reason


def _pictures() -> list[bytes]:
    made = []
    plain = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    kinds = [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16")]
    kinds += [("WEBP", "RGB"), ("GIF", "P"), ("BMP", "RGB"), ("TIFF", "RGB"), ("TIFF", "I;16")]
    for form, mode in kinds:
        file = io.BytesIO()
        picture = plain.convert("L").convert("I").convert("I;16") if mode == "I;16" else plain.convert(mode)
        picture.save(file, form, **({"exif": exif} if form == "JPEG" and mode == "RGB" else {}))
        made.append(file.getvalue())
    return made


@pytest.mark.filterwarnings("ignore")
def test_pictures(place, count):
    """What ingest takes, scoring, captions, training and pages take, and see the same."""

    def read(data: bytes) -> None:
        found = []
        for use in (lambda: check_image(data, READING, decode=True), lambda: open_image(data, READING)):
            try:
                found.append(use())
            except ImageProblem as problem:
                found.append(problem)
        try:
            pixels = open_pixels(data, READING)
        except ImageProblem as problem:
            pixels = problem
        refused = [isinstance(each, ImageProblem) for each in (*found, pixels)]
        assert len(set(refused)) == 1, (
            f"taken by some and refused by others: {found}, {pixels if refused[2] else 'taken'}"
        )
        if not refused[0]:
            assert np.array_equal(np.asarray(found[1]), pixels), "other pixels"

    count(fuzz("pictures", _pictures(), read, place, share=0.1, quick=600))


def test_image_paths(place, count):
    """Whatever is named lies below the folder."""
    root = place / "root"
    (root / "inside").mkdir(parents=True)
    (root / "link").symlink_to("/etc")
    real = root.resolve()

    def read(data: bytes) -> None:
        try:
            found = resolve(root, data.decode("utf-8", "surrogateescape"))
        except ImageProblem as problem:
            assert problem.detail
        else:
            assert found.is_relative_to(real)

    seeds = [b"inside/a.png", b"link/passwd", b"../root/a.png", b"inside/../../x", b"a/./b//c.png", b"https://x/y.png"]
    seeds += [b"inside\\..\\x", b"file:a.png", "ä/ö.png".encode()]
    count(fuzz("image_paths", seeds, read, place, share=0.33, quick=4000))


def test_instruction_sets(place, count):
    """A row is trained on in rounds, or there is a finding."""
    (place / "pictures").mkdir()
    content = CONFIGURATION["training"]["finetune"] | {
        "instructions": str(place / "i.json"),
        "images": str(place / "pictures"),
    }
    configuration = configure(
        CONFIGURATION | {"name": "x", "training": CONFIGURATION["training"] | {"finetune": content}}, "x"
    )
    [stage] = instruction_sets(configuration).values()

    def read(data: bytes) -> None:
        (place / "i.json").write_bytes(data)
        try:
            for row in _rows(stage):
                if not list(_findings(row, stage, {})):
                    list(rounds(row.entry["conversations"], "image" in row.entry))
        except ValueError as error:
            assert str(error).startswith(str(place / "i.json")), error

    rows = [
        ENTRY,
        ENTRY | {"conversations": TURNS * 2},
        {"id": 3, "conversations": [*TURNS, "x"]},
        {"conversations": TURNS[1:]},
    ]
    count(fuzz("instructions", [json.dumps(rows).encode(), b"\n".join(LINES)], read, place, share=0.03, quick=600))


def _evaluation(place: Path) -> dict[str, dict[str, object]]:
    (place / "asked").mkdir()
    Image.new("RGB", (8, 8)).save(place / "asked" / "a.jpg")
    names = {"questions": "q.jsonl", "annotations": "a.json", "images": "asked"}
    textvqa = {key: str(place / name) for key, name in names.items()}
    return {"textvqa": textvqa, "mmbench": {"questions": str(place / "m.tsv")}}


def test_benchmarks(place, count, monkeypatch):
    """Questions, annotations and tables: every finding at once, or they can be asked."""
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    sections = _evaluation(place)
    configuration = configure(CONFIGURATION | {"name": "x", "evaluation": sections}, "x")
    layout = Layout(place / "results" / "x")
    question = {"question_id": "a", "image": "a.jpg", "text": "What is it?\nReference OCR token: x\nAnswer briefly."}
    answers = [{"answer": "red", "answer_id": number} for number in range(10)]
    annotation = {"data": [{"question_id": 1, "image_id": "a", "question": "What is it?", "answers": ["red"] * 10}]}
    annotation["data"][0]["answer_objects"] = answers
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    cell = base64.b64encode(file.getvalue()).decode()
    table = "index\tquestion\thint\tA\tB\tanswer\tcategory\timage\n" + "".join(
        f"{index}\tWhat?\tnan\tred\tblue\tA\tcolour\t{cell}\n" for index in (1, 1_000_001)
    )
    files = {
        "q.jsonl": json.dumps(question).encode() + b"\n",
        "a.json": json.dumps(annotation).encode(),
        "m.tsv": table.encode(),
    }
    for name, content in files.items():
        (place / name).write_bytes(content)

    def reads(name: str, benchmark: str) -> Callable[[bytes], None]:
        def read(data: bytes) -> None:
            (place / name).write_bytes(data)
            try:
                check_questions(benchmark, configuration, layout)
            except PreflightError as error:
                assert str(place) in str(error)
            finally:
                (place / name).write_bytes(files[name])

        return read

    total = 0
    for name, benchmark in (("q.jsonl", "textvqa"), ("a.json", "textvqa"), ("m.tsv", "mmbench")):
        total += fuzz(f"benchmarks_{name}", [files[name]], reads(name, benchmark), place, share=0.002, quick=50)
    count(total)


def test_answers(place, count):
    """Lines that are no answers, or not to each question once, are refused by their number or their question."""
    lines = [{"question_id": name, "prompt": f"What is {name}?", "text": "red", "model_id": "m"} for name in "ab"]
    path = place / "answers.jsonl"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            answers = read_answers(path)
            require_all_answered(path, "ab", [str(answer.get("question_id")) for answer in answers])
        except AnswersError as error:
            assert str(path) in str(error)
        else:
            assert sorted(answer["question_id"] for answer in answers) == ["a", "b"]

    seeds = [b"".join(json.dumps(line).encode() + b"\n" for line in lines)]
    count(fuzz("answers", seeds, read, place, share=0.02, quick=500))


def test_configurations(place, count):
    """Refused with its file's name, or loaded."""
    path = place / "small.yaml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            configure(read_yaml(path), path)
        except ConfigurationError as error:
            assert str(path) in str(error), error

    seeds = [yaml.safe_dump(content, sort_keys=False).encode() for content in (light_configuration(), CONFIGURATION)]
    count(fuzz("configurations", seeds, read, place, share=0.005, quick=100))


def test_bundles(place, count):
    """Nothing is written outside the folder, and no more than was listed."""
    source = place / "source"
    source.mkdir()
    for name in ("a.json", "b.json"):
        (source / name).write_text(f'{{"file": "{name}"}}' * 20)
    target, folder = place / "made.tar.zst", place / "unpacked"
    pack(
        target, {f"results/x/{path.name}": path for path in source.iterdir()}, {"kind": "results", "configuration": "x"}
    )
    packed = target.read_bytes()
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    chance = random.Random(0)

    def read(data: bytes) -> None:
        target.write_bytes(data if chance.random() < 0.3 else zstandard.compress(data))
        folder.mkdir(exist_ok=True)
        try:
            manifest = read_manifest(target)
            unpack(target, manifest, folder, manifest["files"])
        except ArchiveError as error:
            assert str(target) in str(error) or str(folder) in str(error), error
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 1 << 20
        shutil.rmtree(folder)

    count(fuzz("bundles", [plain, packed], read, place, share=0.015, quick=250))


def test_our_own_files(place, count):
    """Tables, journals, lines and cards with other bytes: an error that names them, and never other data."""
    table = pa.table({"id": ["a", "b"], "n": [1.5, 2.5], "l": [["x"], []]})
    write_table(place / "t.parquet", table)
    journal = Journal(place / "j.jsonl")
    journal.append({key: {"text": f"a {key} dog"} for key in "abc"})
    line = (place / "j.jsonl").read_bytes().splitlines()[0]

    def read_a_table(data: bytes) -> None:
        (place / "t.parquet").write_bytes(data)
        try:
            assert read_table(place / "t.parquet").equals(table)
        except DamagedError as error:
            assert str(place) in str(error)

    def read_a_line(data: bytes) -> None:
        found = read_line(data)
        assert found is None or "key" in found
        (place / "c.json").write_bytes(data)
        for read in (read_json, lambda path: list(json_lines(path))):
            try:
                read(place / "c.json")
            except DamagedError as error:
                assert str(place / "c.json") in str(error)

    total = fuzz("tables", [(place / "t.parquet").read_bytes()], read_a_table, place, share=0.005, quick=150)
    count(total + fuzz("lines", [line], read_a_line, place, share=0.03, quick=1000))


def test_the_guard_sees_what_is_forbidden(place):
    import socket

    with pytest.raises(AssertionError, match=r"socket\.connect"), GUARD.watching(place), socket.socket() as found:
        found.settimeout(0.1)
        found.connect_ex(("127.0.0.1", 9))
    with pytest.raises(AssertionError, match="wrote"), GUARD.watching(place / "elsewhere"):
        (place / "x").write_bytes(b"")
    assert len({changed(b"abcdef", [b"xyz"], random.Random(seed)) for seed in range(100)}) > 50

"""Stage 2's instruction set: every row and picture is looked at before anything is spent, and nothing is silent."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard
from PIL import Image

from bettersynth.configuration.instructions import instruction_set, instruction_sets
from bettersynth.configuration.recipes import recipe_training
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, sha256_file
from bettersynth.training.mgm.instructions import check_instructions, used_instructions
from bettersynth.training.preflight import PreflightError

MISSHAPEN = {
    "absolute path": ({"image": "/pictures/1.png"}, "image path"),
    "two pictures": ({"image": ["1.png", "2.png"]}, "image path"),
    "empty path": ({"image": ""}, "image path"),
    "folder as picture": ({"image": "folder"}, "image missing"),
    "missing picture": ({"image": "gone.png"}, "image missing"),
    "damaged picture": ({"image": "cut.png"}, "image unreadable"),
    "no conversation": ({"conversations": None, "text": "hello"}, "no conversation"),
    "turn is a string": ({"conversations": ["<image>\nwhat?", "red"]}, "turns"),
    "null value": ({"turns": ["<image>\nwhat?", None]}, "no text"),
    "number value": ({"turns": ["<image>\nwhat?", 3]}, "no text"),
    "no answer": ({"turns": ["<image>\nwhat?"]}, "turns"),
    "pictures in two turns": ({"turns": ["<image> what?", "red", "<image> and?", "blue"]}, "image count"),
    "row is a string": ("hello", "not an object"),
    "lone surrogate": ({"turns": ["<image>\nwhat?", "red \ud83d"]}, "encoding"),
}
PUBLISHED = {
    "empty answer": ({"turns": ["<image>\nwhat?", ""]}, "empty answer"),
    "blank answer": ({"turns": ["<image>\nwhat?", "  "]}, "empty answer"),
    "eos in an answer": ({"turns": ["<image>\nwhat?", "end with <eos>"]}, "control string"),
    "picture without token": ({"turns": ["what?", "red"]}, "image count"),
    "token without picture": ({"image": None}, "image count"),
    "token twice": ({"turns": ["<image>\nis <image> red?", "yes"]}, "image count"),
    "token in an answer": ({"turns": ["what?", "<image> red"]}, "image in an answer"),
}
FINE = {
    "list of one picture": {"image": ["1.png"]},
    "null picture": {"image": None, "turns": ["hello", "hi"]},
    "number as id": {"id": 9},
    "answer first": {"turns": ["", "hi", "<image>a?", "b"], "skip": 1},
}


def row_of(change, row_id: str = "odd"):
    """A good row, changed; `turns` are the texts of its conversation."""
    if isinstance(change, str):
        return change
    turns = change.get("turns") or ["<image>\nwhat?", "red"]
    roles = ("human", "gpt")
    conversation = [{"from": roles[number % 2], "value": value} for number, value in enumerate(turns)]
    row = {"id": row_id, "image": "1.png", "conversations": conversation[change.get("skip", 0) :], **change}
    for key in ("turns", "skip"):
        row.pop(key, None)
    return {key: value for key, value in row.items() if key != "conversations" or value is not None}


def make(folder: Path, rows, *, write=None, recipes=None, **finetune) -> tuple[Configuration, Layout]:
    """A configuration whose stage 2 trains on these rows, in batches of two."""
    (folder / "folder").mkdir(parents=True)
    for name in ("1.png", "2.png", "cut.png"):
        Image.effect_noise((40, 30), 90).convert("RGB").save(folder / name)
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:-200])
    path = folder / "set.json"
    (write or (lambda rows: path.write_text(json.dumps(rows))))(rows)
    stage = {"instructions": str(path), "images": str(folder), "global_batch": 2, "device_batch": 1, **finetune}
    configuration = Configuration.model_validate(
        {
            "name": "set",
            "pool": {"files": [{"name": "none", "path": "none.jsonl"}], "images": str(folder)},
            "models": {name: {"path": name} for name in ("gemma", "clip", "convnext")},
            "training": {
                "architecture": {"language_model": "gemma", "vision_tower": "clip", "vision_tower_aux": "convnext"},
                "finetune": stage,
            },
            "recipes": recipes or {"tiny": {"dataset": "pool"}},
        }
    )
    return configuration, Layout(folder / "results")


def check(configuration: Configuration, layout: Layout):
    """Card and used rows of the one set."""
    (name,) = instruction_sets(configuration)
    card = check_instructions(name, configuration, layout)
    assert card == read_json(layout.instructions_card(name))
    rows = read_json(layout.instructions(name))
    assert card["rows"] == len(rows) and card["sha256"] == sha256_file(layout.instructions(name))
    return card, rows


def findings(configuration: Configuration, layout: Layout) -> list[dict]:
    (name,) = instruction_sets(configuration)
    return [json.loads(line) for line in layout.findings(layout.instructions(name)).read_text().splitlines()]


GOOD = [row_of({}, "good-1"), row_of({}, "good-2"), row_of({"image": "2.png"}, "good-3")]


@pytest.mark.parametrize("kind", MISSHAPEN | PUBLISHED)
def test_a_row_that_cannot_be_used_is_refused_with_its_place_and_reason_or_dropped_on_record(tmp_path, kind):
    change, reason = (MISSHAPEN | PUBLISHED)[kind]
    odd = row_of(change)
    rows = [*GOOD[:2], odd, GOOD[2]]
    world = make(tmp_path / "refuse", rows)
    with pytest.raises(PreflightError, match="1 × " + reason) as caught:
        check(*world)
    message = str(caught.value)
    row_id = "odd" if isinstance(odd, dict) and kind != "lone surrogate" else "2"
    assert (
        f"  {row_id}: {reason}: " in message
        and "of row 3)" in message
        and "training.finetune.unusable: drop" in message
    )
    assert ("published_forms: accept" in message) == (reason in {reason for _, reason in PUBLISHED.values()})
    (found,) = findings(*world)
    assert (found["row"], found["id"], found["reason"]) == (3, row_id, reason)
    (name,) = instruction_sets(world[0])
    assert not world[1].instructions(name).exists()

    card, used = check(*make(tmp_path / "drop", rows, unusable="drop", unusable_share=0.25))
    assert [row["id"] for row in used] == ["good-1", "good-2", "good-3"]
    assert (card["dropped"], card["findings"]) == (1, {reason: 1}) and card["data_sha256"] == card["sha256"]
    with pytest.raises(PreflightError, match=r"1 of 4 rows are 25.0%, more than training.finetune.unusable_share 0.01"):
        check(*make(tmp_path / "share", rows, unusable="drop"))


@pytest.mark.parametrize("kind", PUBLISHED)
def test_forms_that_the_published_program_trains_on_can_be_accepted(tmp_path, kind):
    card, used = check(*make(tmp_path / "set", [*GOOD, row_of(PUBLISHED[kind][0])], published_forms="accept"))
    assert (card["rows"], card["accepted"], card["dropped"]) == (4, 1, 0) and used[3]["id"] == "odd"


@pytest.mark.parametrize("kind", FINE)
def test_forms_that_lose_nothing_are_taken(tmp_path, kind):
    card, used = check(*make(tmp_path / "set", [*GOOD, row_of(FINE[kind])]))
    assert card["rows"] == 4 and isinstance(used[3]["id"], str)
    assert used[3].get("image", "1.png") == "1.png"


def test_all_findings_come_at_once(tmp_path):
    rows = [row_of(change, f"odd-{number}") for number, (change, _) in enumerate((MISSHAPEN | PUBLISHED).values())]
    world = make(tmp_path / "set", [*GOOD, *rows])
    with pytest.raises(PreflightError, match=f"{len(rows)} findings in {len(rows) + 3} rows"):
        check(*world)
    assert sorted(found["reason"] for found in findings(*world)) == sorted(
        reason for _, reason in (MISSHAPEN | PUBLISHED).values()
    )


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "json.zst", "bom"])
def test_a_set_may_have_every_form_that_a_pools_file_may(tmp_path, form):
    folder = tmp_path / "set"
    path = folder / f"set.{'json' if form == 'bom' else form}"

    def write(rows):
        text = json.dumps(rows) if "jsonl" not in form else "".join(json.dumps(row) + "\n\n" for row in rows)
        data = (b"\xef\xbb\xbf" if form == "bom" else b"") + text.encode()
        compress = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(path.suffix, bytes)
        path.write_bytes(compress(data))

    card, used = check(*make(folder, GOOD, write=write, instructions=str(path)))
    assert used == GOOD and card["data_sha256"] == sha256_file(path), "training that was done with the file stays"


def test_published_paths_are_rewritten_where_that_is_asked_for(tmp_path):
    rows = [
        row_of({"image": image})
        for image in ("vg/VG_100K/1.jpg", "vg/VG_100K_2/2.jpg", "ocr_vqa/images/3.jpg", "1.png")
    ]
    folder = tmp_path / "published"
    for name in ("vg/images/1.jpg", "vg/images/2.jpg", "ocr_vqa/images/3.gif"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)
    card, used = check(*make(folder, rows, image_paths="published"))
    assert [row["image"] for row in used] == ["vg/images/1.jpg", "vg/images/2.jpg", "ocr_vqa/images/3.gif", "1.png"]
    assert card["other_paths"] == 3 and card["data_sha256"] == card["sha256"]
    with pytest.raises(PreflightError, match="3 × image missing"):
        check(*make(tmp_path / "as_written", rows))


def test_fewer_rows_than_a_step_are_refused_here(tmp_path):
    with pytest.raises(PreflightError, match=r"3 usable rows are fewer than one global batch of 4.*`tiny`"):
        check(*make(tmp_path / "set", GOOD, global_batch=4))


def test_recipes_that_use_a_set_alike_share_it_and_a_changed_file_is_looked_at_again(tmp_path):
    recipes = {
        "one": {"dataset": "pool"},
        "other": {"dataset": "pool", "training": {"finetune": {"learning_rate": 1.0}}},
        "strict": {"dataset": "pool", "training": {"finetune": {"unusable": "drop"}}},
    }
    configuration, layout = make(tmp_path / "set", GOOD, recipes=recipes)
    stages = {recipe: recipe_training(configuration, recipe).finetune for recipe in recipes}
    names = {recipe: instruction_set(stage, configuration) for recipe, stage in stages.items()}
    assert names["one"] == names["other"] != names["strict"]
    first = used_instructions(stages["one"], configuration, layout)
    assert first == used_instructions(stages["other"], configuration, layout)
    Path(stages["one"].instructions).write_text(json.dumps(GOOD[:2]))
    again = used_instructions(stages["one"], configuration, layout)
    assert again.sha256 != first.sha256
    assert [row["id"] for row in read_json(again.path)] == ["good-1", "good-2"]
    assert again.path == Path(stages["one"].instructions), "all of it is used as it is"

"""A small, plausible results folder in the layout of `docs/files.md`, made without models or training.

`python tests/support/fake_results.py FOLDER` writes one with its report, to look at the page while changing it.
"""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image, ImageDraw

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, sha256_file, sha256_json, write_json
from bettersynth.core.records import FAILED, POOL, Record, caption_of, read_records, text_of, write_records
from bettersynth.core.tables import write_table
from bettersynth.datasets.analysis import build_analysis
from bettersynth.datasets.build import build_dataset
from bettersynth.pool.rows import load_records, read_rows
from bettersynth.workflow.plan import Plan

COLOURS = {"red": "#c8452f", "blue": "#3a66b0", "green": "#3c8a57", "yellow": "#d9a92b", "purple": "#7b4f9d"}
SHAPES = ("circle", "square", "triangle")
QUESTIONS = {"textvqa": 240, "mmbench": 200}
VERSIONS = {"python": "3.11.2", "torch": "2.13.0", "transformers": "4.57.1", "py-data-juicer": "1.6.1"}
BASELINE_ACCURACY = {"textvqa": 0.31, "mmbench": 0.24}
# How much better than the baseline each dataset's model is, and seeds that never aligned.
EFFECTS = {"everything": 0.0, "grounded": 0.02, "matched": 0.07, "best": 0.16, "bright": -0.01, "spliced": 0.08}
UNLUCKY = {("matched", 3)}


def fake_configuration(folder: Path, *, training: bool = True, extra_recipes: int = 0) -> Configuration:
    """A contest-like configuration whose inputs lie below `folder`."""
    filters = {
        "grounded": ("pool", {"phrase_grounding": {"min": 0.5}}),
        "matched": ("grounded", {"image_text_matching": {"min": 0.6}}),
        "weak": ("matched", {"image_text_similarity": {"min": 0.01, "max": 0.22}}),
        "better": ("rewritten", {"image_text_similarity": {"min": 0.22}}),
    }
    datasets: dict[str, Any] = {name: {"from": parent, "filter": verb} for name, (parent, verb) in filters.items()}
    datasets |= {
        "everything": {"from": "pool", "sample": {"fraction": 1.0}},
        "bright": {"from": "pool", "rank": {"by": "image_aesthetics", "top": 240}},
        "rewritten": {"from": "weak", "recaption": {"captioner": "blip2"}},
        "spliced": {"from": "matched", "splice": "better"},
        "best": {"from": "spliced", "repeat": 2},
    }
    recipes: dict[str, Any] = {
        "baseline": {"dataset": "everything", "seeds": [1, 2, 3], "note": "The pool as it is."},
        "grounded": {"dataset": "grounded", "seeds": [1, 2, 3]},
        "matched": {"dataset": "matched", "seeds": [1, 2, 3], "published": {"rows": 123037, "source": "write-up"}},
        "best": {
            "dataset": "best",
            "seeds": [1, 2, 3],
            "published": {"rows": 246074, "mmbench": 2.9804, "textvqa": 1.0995, "source": "write-up"},
        },
        "one_seed": {"dataset": "spliced", "seeds": [1]},
        "abandoned": {"dataset": "bright", "seeds": [1, 2]},
        "not_run_yet": {"dataset": "bright", "seeds": [1, 2, 3]},
    }
    for number in range(extra_recipes):
        recipes[f"variant_{number:02d}"] = {"dataset": "grounded", "seeds": [1, 2, 3]}
    operators = {
        "phrase_grounding": "phrase_grounding_recall_filter",
        "image_text_matching": "image_text_matching_filter",
        "image_text_similarity": "image_text_similarity_filter",
        "image_aesthetics": "image_aesthetics_filter",
        "words_num": "words_num_filter",
    }
    inputs = folder / "inputs"
    content: dict[str, Any] = {
        "name": "fake",
        "pool": {
            "files": [
                {"path": str(inputs / "first.jsonl"), "name": "first", "shards": 2},
                {"path": str(inputs / "second.jsonl"), "name": "second", "shards": 1},
            ],
            "images": str(inputs / "images"),
        },
        "models": {
            "clip": {"path": "models/clip"},
            "blip2": {"path": "models/blip2", "hub": "Salesforce/blip2-opt-2.7b"},
        },
        "operators": {name: {"op": op} for name, op in operators.items()},
        "captioners": {"blip2": {"model": "blip2"}},
        "datasets": datasets,
        "analyses": {
            "quartiles": {
                "dataset": "better",
                "operators": ["image_text_similarity", "words_num"],
                "row": "Q3",
                "published": {"image_text_similarity": {"quartiles": [0.291, 0.318, 0.344]}},
            }
        },
        "report": {"truth": str(inputs / "truth.parquet"), "title": "Which pairs make the better model?"},
    }
    if training:
        content |= {
            "recipes": recipes,
            "training": {
                "architecture": {"language_model": "clip", "vision_tower": "clip", "vision_tower_aux": "clip"},
                "finetune": {"instructions": "instructions.json", "images": "images"},
                "probe": {"steps": 10, "keep": 2},
            },
            "evaluation": {
                "textvqa": {"questions": "q.jsonl", "annotations": "a.json", "images": "images"},
                "mmbench": {"questions": "q.tsv"},
            },
        }
    return Configuration.model_validate(content)


def write_fake_results(folder: Path, *, rows: int = 600, **options: Any) -> tuple[Configuration, Layout, Plan]:
    """Write inputs and results of `fake_configuration(folder, **options)` and return what describes them."""
    configuration = fake_configuration(folder, **options)
    layout, plan = Layout(folder / "results" / "fake"), Plan(configuration)
    _write_pool(configuration, layout, plan, rows)
    for name in dict.fromkeys(name for last in configuration.datasets for name in plan.lineage(last)):
        if name in plan.generators:
            _write_captions(configuration, layout, plan, name)
        build_dataset(name, configuration, layout, plan)
    for name in configuration.analyses:
        build_analysis(name, configuration, layout, plan)
    for recipe in configuration.recipes:
        if recipe != "not_run_yet":
            _write_runs(configuration, layout, recipe)
    return configuration, layout, plan


# --- pool ----------------------------------------------------------------------------------------


def _write_pool(configuration: Configuration, layout: Layout, plan: Plan, rows: int) -> None:
    chance = random.Random("pool")
    images = Path(configuration.pool.images)
    truth, index = [], []
    shards = plan.shards(POOL)
    for shard_number, shard in enumerate(shards):
        records = []
        for number in range(shard_number, rows, len(shards)):
            record, facts = _pair(images, f"{number:06d}", chance)
            records.append(record)
            truth.append({"id": record.id, **facts})
            index.append({"id": record.id, "shard": shard})
        write_records(layout.records(POOL, shard), records)
    write_table(configuration.report.truth, pa.Table.from_pylist(truth))
    write_table(layout.index, pa.Table.from_pylist(index))
    _write_scores(configuration, layout, POOL, shards, {row["id"]: row for row in truth})
    for file, quarantined in (("first", {"no image": 4, "not JSON": 1}), ("second", {"image unreadable": 2})):
        count = sum(row["shard"].startswith(file) for row in index)
        ledger = {"lines": count + sum(quarantined.values()), "rows": count, "quarantined": quarantined}
        of_file = [shard for shard in shards if shard.startswith(file)]
        ledger["shards"] = {shard: {"sha256": sha256_file(layout.records(POOL, shard))} for shard in of_file}
        write_json(layout.file_ledger(file), _card(**ledger))
        lines = [
            {"file": f"{file}.jsonl", "line": line, "reason": reason, "detail": "…", "raw": "{}"}
            for reason, number in quarantined.items()
            for line in range(number)
        ]
        layout.quarantine(file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    by_file = {file.name: sum(row["shard"].startswith(file.name) for row in index) for file in configuration.pool.files}
    digest = sha256_file(layout.index)
    write_json(layout.index_card, _card(rows=rows, rows_by_file=by_file, duplicate_across_files=0, sha256=digest))


def _pair(images: Path, name: str, chance: random.Random) -> tuple[Record, dict[str, bool]]:
    colour, shape = chance.choice(list(COLOURS)), chance.choice(SHAPES)
    right, watermark = chance.random() < 0.7, chance.random() < 0.1
    path = Path(name[:3]) / f"{name}.jpg"
    _draw(images / path, COLOURS[colour], shape)
    said = colour if right else chance.choice([other for other in COLOURS if other != colour])
    text = text_of(f"a {said} {shape} on a pale ground" + (" stock photo" if watermark else ""))
    facts = {"caption_right": right, "wrong_colour": not right, "stock_suffix": watermark}
    return Record(name, text, [path.as_posix()]), facts


def _draw(path: Path, colour: str, shape: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (96, 96), "#ece7dc")
    draw = ImageDraw.Draw(image)
    if shape == "circle":
        draw.ellipse((24, 24, 72, 72), fill=colour)
    elif shape == "square":
        draw.rectangle((26, 26, 70, 70), fill=colour)
    else:
        draw.polygon(((48, 22), (74, 70), (22, 70)), fill=colour)
    image.save(path, quality=85)


def _write_scores(
    configuration: Configuration, layout: Layout, source: str, shards: list[str], truth: dict[str, Any]
) -> None:
    paths = [layout.records(source, shard) for shard in shards]
    ids = [record.id for path in paths for record in read_records(path)]
    for operator in configuration.operators:
        values = []
        for name in ids:
            chance = random.Random(f"{source} {operator} {name}")
            right = source != POOL or truth[name]["caption_right"]
            values.append(_score(operator, right, chance))
        key, column = _column(operator, values)
        write_table(layout.scores(source, operator), pa.table({"id": ids, key: column}))
        model = {"inputs": {"model": sha256_json(operator)}}
        for path in paths:
            shard_path = layout.score_shard(source, operator, path.stem, "made-up")
            write_json(shard_path.with_suffix(".json"), _card(rate=123.4, **model))
        scored = {path.stem: {"records": sha256_file(path), "key": "made-up"} for path in paths}
        write_json(layout.scores_card(source, operator), _card(shards=scored, **model))


def _score(operator: str, right: bool, chance: random.Random) -> float:
    match operator:
        case "phrase_grounding":
            return chance.choice([0.0, 0.5, 0.5, 1.0, 1.0] if right else [0.0, 0.0, 0.5, 0.5, 1.0])
        case "image_text_matching":
            return 1 / (1 + math.exp(-chance.gauss(2.2 if right else -1.6, 1.6)))
        case "image_text_similarity":
            return chance.gauss(0.245 if right else 0.17, 0.035)
        case "image_aesthetics":
            return chance.gauss(0.42, 0.08)
        case _:
            return float(chance.randint(6, 12))


def _column(operator: str, values: list[float]) -> tuple[str, pa.Array]:
    match operator:
        case "phrase_grounding":
            return "phrase_grounding_recall", pa.array([[value] for value in values])
        case "image_text_matching":
            return "image_text_matching_score", pa.array([[value] for value in values])
        case "image_text_similarity":
            return "image_text_similarity", pa.array([[value] for value in values])
        case "image_aesthetics":
            return "image_aesthetics_scores", pa.array([[value] for value in values])
        case _:
            return "num_words", pa.array([int(value) for value in values])


# --- generators ----------------------------------------------------------------------------------


def _write_captions(configuration: Configuration, layout: Layout, plan: Plan, name: str) -> None:
    """Recaption the parent's rows; every ninth fails."""
    asked = load_records(read_rows(plan.dataset(name).from_, layout), layout, plan).to_pylist()
    made, failed = [], []
    for number, row in enumerate(asked):
        if number % 9:
            text = text_of(f"a drawing of {caption_of(row['text'])}")
            made.append(Record(row["id"], text, row["images"], row["image_root"]))
        else:
            failed.append({"id": row["id"], "source": row["source"], "reason": "empty caption"})
    shard = plan.shards(name)[0]
    write_records(layout.records(name, shard), made)
    write_table(layout.failed(name, shard), pa.Table.from_pylist(failed, FAILED))
    card = _card(asked=len(asked), made=len(made), failures={"empty caption": len(failed)}, seed=0)
    card |= {"inputs": {"model": sha256_json(name)}, "sha256": sha256_file(layout.records(name, shard))}
    write_json(layout.records_card(name, shard), card)
    _write_scores(configuration, layout, name, [shard], {})


# --- runs ----------------------------------------------------------------------------------------


def _write_runs(configuration: Configuration, layout: Layout, recipe: str) -> None:
    definition = configuration.recipes[recipe]
    rows = read_json(layout.dataset_card(definition.dataset))["rows"]
    write_json(
        layout.trainset_card(recipe), _card(rows=min(rows, 500), cut=max(0, rows - 500), sha256=sha256_json(recipe))
    )
    verdicts = []
    for seed in definition.seeds:
        stopped = recipe == "abandoned" or (recipe, seed) == ("grounded", 3)
        why = "probe loss number 3 of 3, lowest first; the first 2 go on"
        verdicts.append({"seed": seed, "loss": 7.1, "verdict": "stopped" if stopped else "go", "why": why})
        _write_stage(layout.probe(recipe, seed), recipe, seed, 10, "done")
        for folder, steps in ((layout.pretrain(recipe, seed), 60), (layout.finetune(recipe, seed), 90)):
            _write_stage(folder, recipe, seed, steps, "stopped" if stopped else "done")
        for benchmark in configuration.benchmarks:
            _write_result(layout, recipe, definition.dataset, seed, benchmark, stopped)
    write_json(layout.seeds(recipe), {"recipe": recipe, "keep": 2, "seeds": verdicts})


def _write_stage(folder: Path, recipe: str, seed: int, steps: int, status: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(f"{recipe} {seed} {folder.name}")
    floor = 3.6 if (recipe, seed) in UNLUCKY else 1.4
    if status == "done":
        lines = [
            {
                "step": step,
                "loss": round(floor + 5 * math.exp(-step / 12) + chance.gauss(0, 0.08), 4),
                "learning_rate": 1e-3,
            }
            for step in range(1, steps + 1)
        ]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    loss = round(floor + chance.gauss(0, 0.1), 4)
    facts: dict[str, Any] = {
        "steps": steps,
        "held_out": [{"step": 10, "loss": loss + 1}, {"step": steps, "loss": loss}],
    }
    if status == "stopped":
        facts = {"steps": 10, "held_out": facts["held_out"][:1], "fate": "stopped", "why": "the training loss was high"}
    write_json(folder / "card.json", _card(status=status, seed=seed, **facts))


def _write_result(layout: Layout, recipe: str, dataset: str, seed: int, benchmark: str, stopped: bool) -> None:
    result: dict[str, Any] = {"benchmark": benchmark, "status": "stopped" if stopped else "done"}
    if not stopped:
        luck = random.Random(f"{recipe} {seed}").gauss(0, 0.012) - (0.06 if (recipe, seed) in UNLUCKY else 0)
        level = BASELINE_ACCURACY[benchmark] + EFFECTS[dataset] + luck
        scores = []
        for question in range(QUESTIONS[benchmark]):
            hardness = random.Random(f"{benchmark} {question}").random()
            own = random.Random(f"{recipe} {seed} {benchmark} {question}").random()
            scores.append(int(0.7 * hardness + 0.3 * own < 0.2 + 0.75 * level))
        result |= {
            "questions": len(scores),
            "accuracy": sum(scores) / len(scores),
            "per_question": [{"id": str(number), "score": score} for number, score in enumerate(scores)],
        }
        if benchmark == "mmbench":
            exact = result["accuracy"]
            metrics = {"circular_exact": exact, "circular_infer": exact, "vanilla": min(1.0, exact + 0.1)}
            categories = {name: {"questions": 100, **metrics} for name in ("ocr", "attribute_recognition")}
            result |= {"rows": 4 * len(scores), **metrics, "by_category": {"category": categories, "l2-category": {}}}
    write_json(layout.result(recipe, seed, benchmark), result)


def _card(**facts: Any) -> dict[str, Any]:
    return {**facts, "versions": VERSIONS, "device": "cpu", "seconds": 1.25}


if __name__ == "__main__":
    from bettersynth.report.early_loss import build_early_loss
    from bettersynth.report.leaderboard import build_leaderboard
    from bettersynth.report.page import build_report

    made = write_fake_results(Path(sys.argv[1]))
    build_leaderboard(made[0], made[1])
    build_early_loss(made[0], made[1])
    print(build_report(*made))

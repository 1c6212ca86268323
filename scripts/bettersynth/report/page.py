"""The report: one self-contained page, made from the files of a run and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import CARD, Layout
from bettersynth.core.publish import Card, publish, read_json
from bettersynth.core.records import POOL
from bettersynth.report import charts
from bettersynth.report.distributions import QUANTILES, Scores, distributions
from bettersynth.report.early_loss import picture
from bettersynth.report.examples import MOST_SHEETS, examples
from bettersynth.report.flow import flow
from bettersynth.report.history import remember
from bettersynth.report.leaderboard_view import further_marks, leaderboard_view
from bettersynth.report.provenance import provenance
from bettersynth.report.runs import read_log
from bettersynth.report.truth import filter_quality
from bettersynth.workflow.plan import Plan

STAGES = ("probe", "pretrain", "finetune")
MOST_FUNNELS = 3
MOST_CURVES = 8
"""Funnels and loss curves of more recipes than these are folded."""


def build_report(configuration: Configuration, layout: Layout, plan: Plan) -> Path:
    """Write `report/index.html` from whatever results are there, and return its path.

    What is missing is named on the page. The leaderboard is read, not made: run `build_leaderboard` before.
    """
    card, scores = Card(), Scores(layout)
    script = (Path(__file__).parent / "download.js").read_text(encoding="utf-8")
    page = (
        _environment()
        .get_template("template.html.j2")
        .render(
            configuration=configuration,
            script=Markup(script),
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            leaderboard=leaderboard_view(_read(layout.leaderboard), list(configuration.benchmarks)),
            missing=list(_missing(configuration, layout, plan)),
            marks=list(further_marks(configuration, layout)),
            pool=_pool(configuration, layout),
            graph=flow(configuration, layout, plan),
            datasets={name: _step(name, configuration, layout) for name in configuration.datasets},
            funnels=[_funnel(name, configuration, layout, plan) for name in configuration.recipes],
            distributions=distributions(configuration, plan, scores),
            quantiles=QUANTILES,
            analyses=list(_analyses(configuration, layout)),
            curves=list(_curves(configuration, layout)),
            early_losses=_early_losses(layout),
            truth=filter_quality(configuration, layout),
            examples=examples(configuration, layout, plan, scores),
            provenance=provenance(configuration, layout, plan),
            history=remember(configuration, layout),
            benchmarks={name: benchmark.title for name, benchmark in configuration.benchmarks.items()},
            most_funnels=MOST_FUNNELS,
            most_curves=MOST_CURVES,
            most_sheets=MOST_SHEETS,
        )
    )
    with publish(layout.report) as temporary:
        temporary.write_text(page, encoding="utf-8")
    card.write(layout.report_card, beside=_written(layout))
    return layout.report


def _written(layout: Layout) -> list[Path]:
    """What the report's card tells of: the page, what was remembered with it, and the leaderboard as tables."""
    tables = [path for path in (layout.leaderboard_csv, layout.leaderboard_markdown) if path.exists()]
    return [layout.report, layout.history, layout.configuration, *tables]


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: "–" if value is None else f"{value:,}",
        "fixed": lambda value, digits=3: "–" if value is None else f"{value:.{digits}f}",
        "percent": lambda value, digits=1: "–" if value is None else f"{100 * value:.{digits}f}",
        "signed": lambda value, digits=3: "–" if value is None else f"{value:+.{digits}f}".replace("-", "−"),
        "short": charts.number,
        "number": lambda value: "–" if value is None else charts.number(value),
        "duration": duration,
        "breakable": breakable,
        "json": _json,
    }
    return environment


def breakable(text: str) -> Markup:
    """A long name that may be broken after its dots and underscores."""
    return Markup(re.sub(r"([._])(?=\w)", r"\1<wbr>", str(escape(text))))


def _json(value: Any) -> Markup:
    """JSON for a data block: no text in it can end the block."""
    return Markup(json.dumps(value, ensure_ascii=False).replace("<", "\\u003c"))


def duration(seconds: float) -> str:
    """Seconds as a person says them: `12 s`, `3.4 min`, `1.2 h`."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _read(path: Path) -> Any:
    return read_json(path) if path.exists() else None


def _missing(configuration: Configuration, layout: Layout, plan: Plan) -> Iterator[str]:
    """What the configuration asks for and is not there yet, in words."""
    for operator in configuration.operators:
        if not layout.scores(POOL, operator).exists():
            yield f"{operator} has not scored the pool"
    analyses = [name for name in configuration.analyses if not layout.analysis(name).exists()]
    if analyses:
        yield f"analyses not made: {', '.join(analyses)}"
    datasets = [name for name in configuration.datasets if not layout.dataset_card(name).exists()]
    if datasets:
        yield f"datasets not made: {', '.join(datasets)}"
    for recipe, definition in configuration.recipes.items():
        results = [layout.result(recipe, seed, name) for seed in definition.seeds for name in configuration.benchmarks]
        there = sum(path.exists() for path in results)
        if there < len(results):
            yield f"{recipe} has {there} of {len(results)} evaluations"


# --- pool and datasets ---------------------------------------------------------------------------


def _pool(configuration: Configuration, layout: Layout) -> dict[str, Any]:
    files = []
    for file in configuration.pool.files:
        ledger = _read(layout.file_ledger(file.name))
        if ledger is not None:
            files.append(
                {"name": file.name, "path": file.path, **{k: ledger[k] for k in ("lines", "rows", "quarantined")}}
            )
    return {"files": files, "index": _read(layout.index_card)}


def _step(name: str, configuration: Configuration, layout: Layout) -> dict[str, Any]:
    """A dataset's definition in words, with its ledger if it was made."""
    node = configuration.datasets[name]
    card = _read(layout.dataset_card(name))
    return {
        "name": name,
        "from": node.from_,
        "verb": node.verb.name,
        "does": "; ".join(node.verb.brief().splitlines()),
        "note": node.note,
        "published_rows": node.published_rows,
        "ledger": card and card["ledger"],
    }


def _analyses(configuration: Configuration, layout: Layout) -> Iterator[dict[str, Any]]:
    """The analyses, a line of our figures for each score and below it one of the published, if there are any."""
    for name, definition in configuration.analyses.items():
        card = _read(layout.analysis(name))
        lines = []
        for key in definition.operators:
            lines.append({"score": key, "figures": card and card["stats"][key], "published": False})
            if published := definition.published.get(key):
                lines.append({"score": "", "figures": {"values": None, **published.model_dump()}, "published": True})
        yield {
            "name": name,
            "dataset": definition.dataset,
            "row": definition.row,
            "note": definition.note,
            "lines": lines,
        }


def _funnel(recipe: str, configuration: Configuration, layout: Layout, plan: Plan) -> dict[str, Any]:
    """Every step from the pool to the recipe's training file."""
    dataset = configuration.recipes[recipe].dataset
    index, trainset = _read(layout.index_card), _read(layout.trainset_card(recipe))
    steps = [_step(name, configuration, layout) for name in plan.lineage(dataset)]
    rows = [index["rows"]] if index else []
    rows += [step["ledger"][side] for step in steps if step["ledger"] for side in ("in", "out")]
    last = steps[-1]["ledger"]["out"] if steps and steps[-1]["ledger"] else (index and index["rows"])
    return {
        "recipe": recipe,
        "dataset": dataset,
        "pool": index and index["rows"],
        "steps": steps,
        "most": max(rows, default=1) or 1,
        "out": last,
        "trained": trainset and trainset["rows"],
    }


# --- training ------------------------------------------------------------------------------------


def _curves(configuration: Configuration, layout: Layout) -> Iterator[dict[str, Any]]:
    """Loss curves of each recipe, one chart per stage; charts of a stage share their scales."""
    lines: dict[tuple[str, str], dict[str, list[charts.Point]]] = {
        (stage, recipe): {
            f"seed {seed}": charts.thin(read_log(getattr(layout, stage)(recipe, seed) / "log.jsonl"))
            for seed in definition.seeds
        }
        for recipe, definition in configuration.recipes.items()
        for stage in STAGES
    }
    scales = {}
    for stage in STAGES:
        points = [point for (of, _), group in lines.items() if of == stage for log in group.values() for point in log]
        if points:
            steps, losses = zip(*points, strict=True)
            scales[stage] = max(steps), (min(losses), max(losses))
    for recipe in configuration.recipes:
        seeds = [(seed, _stopped(layout, recipe, seed)) for seed in configuration.recipes[recipe].seeds]
        stopped = [f"seed {seed}" for seed, why in seeds if why]
        stages = {
            stage: {
                "chart": charts.curves(
                    f"Loss of {recipe} by step, {stage}", lines[stage, recipe], *scales[stage], stopped
                ),
                "numbers": _by_step(lines[stage, recipe]),
            }
            for stage in STAGES
            if any(lines[stage, recipe].values())
        }
        yield {"recipe": recipe, "stages": stages, "seeds": seeds}


def _by_step(lines: Mapping[str, list[charts.Point]]) -> list[list[Any]]:
    """The points of several lines as a table: a line for each step, its head first."""
    drawn = {label: dict(points) for label, points in lines.items() if points}
    steps = sorted({step for points in drawn.values() for step in points})
    losses = ([points.get(step) for points in drawn.values()] for step in steps)
    return [
        ["step", *drawn],
        *([step, *(loss and round(loss, 4) for loss in line)] for step, line in zip(steps, losses, strict=True)),
    ]


def _stopped(layout: Layout, recipe: str, seed: int) -> str | None:
    """Why a seed went no further, in words; None for one that did."""
    for folder in (layout.pretrain(recipe, seed), layout.finetune(recipe, seed)):
        if (card := _read(folder / CARD)) and card["status"] == "stopped":
            return f"{card.get('fate', 'stopped')}: {card.get('why', 'after the probe')}"
    return None


def _early_losses(layout: Layout) -> list[dict[str, Any]]:
    """What each rung's loss tells of the scores: of the loss on held-out pairs where there is one."""
    rungs = (_read(layout.early_loss) or {"rungs": []})["rungs"]
    measured = {rung["rung"] for rung in rungs if rung["by"] == "held_out"}
    shown = [rung for rung in rungs if rung["by"] == "held_out" or rung["rung"] not in measured]
    head = ["recipe", "seed", "loss", "score"]
    return [
        {
            "sentence": rung["sentence"],
            "chart": picture(rung),
            "name": f"early-loss-{number}",
            "numbers": [list(rung["points"][0]) if rung["points"] else head, *map(_values, rung["points"])],
        }
        for number, rung in enumerate(shown, 1)
    ]


def _values(point: Mapping[str, Any]) -> list[Any]:
    return list(point.values())

"""The explorer over 410,000 records and 13 operators in Chromium: size, seconds to open, milliseconds to drag.

Scores and captions are drawn as those of `data-plane`, pictures are noisy JPEGs. uPlot, which npm fetches, draws as
many points and bars as our own drawing.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from bench import ROOT
from bettersynth.configuration import load, read_yaml

OPENINGS = 5
"""Times that the page is opened; the fastest counts, which other work disturbs least."""
UPLOT_PACKAGE = "uplot@1.6.32"
PICTURES = 2_000
"""Different pictures; records share them."""
DATASETS: dict[str, Any] = {
    "grounded": {"from": "pool", "filter": {"phrase_grounding": {"min": 0.5}}},
    "matched": {"from": "grounded", "filter": {"image_text_matching": {"min": 0.9984}}},
    "weak": {"from": "matched", "filter": {"image_text_similarity": {"min": 0.01, "max": 0.28}}},
    "similar": {"from": "pool", "filter": {"image_text_similarity": {"min": 0.32}}},
    "twice": {"from": "matched", "repeat": 2},
}
DRAG = """async ([score, side]) => {
  const handle = document.querySelector(`[data-score="${score}"] .handle.${side}`);
  const area = handle.parentElement.getBoundingClientRect();
  const send = (type, x) => handle.dispatchEvent(new PointerEvent(type, {
    bubbles: true, pointerId: 1, clientX: area.left + x * area.width, clientY: area.top + 90}));
  handle.setPointerCapture = () => {};
  send("pointerdown", 0);
  const frames = [], scripts = [];
  for (let step = 1; step <= 40; step++) {
    const begun = performance.now();
    send("pointermove", step / 50);
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    frames.push(performance.now() - begun);
    scripts.push(Number(document.documentElement.dataset.took));
  }
  send("pointerup", 0.8);
  return {frames, scripts};
}"""
UPLOT = """async ([points, rounds]) => {
  const chart = (data, series, options = {}) => new uPlot(
    {width: 460, height: 460, series: [{}, series], scales: {x: {time: false}}, ...options}, data, document.body);
  const x = Float64Array.from({length: points}, (_, place) => place);
  const y = Float64Array.from({length: points}, () => Math.random());
  const dots = chart([x, y], {paths: () => null, points: {show: true, size: 2}});
  const bars = chart([x.slice(0, 64), y.slice(0, 64)], {paths: uPlot.paths.bars()}, {width: 320, height: 96});
  const timed = async (plot, data) => {
    const took = [];
    for (let round = 0; round < rounds; round++) {
      const begun = performance.now();
      plot.setData(data.map((column) => column.slice()));
      await new Promise((done) => queueMicrotask(() => queueMicrotask(done)));
      took.push(performance.now() - begun);
    }
    return took.sort((a, b) => a - b)[rounds >> 1];
  };
  return [await timed(dots, [x, y]), await timed(bars, [x.slice(0, 64), y.slice(0, 64)])];
}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--records", type=int, default=410_000, help="records of the pool (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="folder for everything that is made; kept if given")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="(default: %(default)s)")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Draw the results, write the page, open it and drag a bound."""
    options.out = options.out.resolve()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(contextlib.chdir(folder))
        path, figures = _build(options.records)
        return figures | _looked_at(path.resolve(), options.chromium, _uplot(), options.records)


def _uplot() -> Path:
    """uPlot's file in the present folder, as the pinned package holds it; npm compares its digest."""
    name = subprocess.run(["npm", "pack", "--silent", UPLOT_PACKAGE], check=True, capture_output=True, text=True).stdout
    path = Path("uPlot.iife.min.js")
    with tarfile.open(name.strip()) as package, path.open("wb") as file:
        member = package.extractfile(f"package/dist/{path}")
        assert member is not None
        shutil.copyfileobj(member, file)
    return path.resolve()


def configuration(folder: Path) -> Path:
    """The miniature's 13 operators over a pool of the contest's size, as a file."""
    content = read_yaml(ROOT / "config" / "miniature.yaml")
    files = [{"name": "stage_1", "path": "a.jsonl", "shards": 40}, {"name": "stage_2", "path": "b.jsonl"}]
    kept = {"operators": content["operators"], "models": content["models"], "datasets": DATASETS}
    path = folder / "explorer.yaml"
    path.write_text(yaml.safe_dump({"pool": {"files": files, "images": "images"}, **kept}, sort_keys=False))
    return path


def _build(records: int) -> tuple[Path, dict[str, float]]:
    from bench import _results
    from bettersynth.report.explorer.page import Explorer
    from bettersynth.workflow.run import Run

    run = Run.of(load(configuration(Path())), "explorer.yaml")
    if not run.layout.index_card.exists():
        _results.write(run, records, PICTURES)
    begun, cpu = time.monotonic(), time.process_time()
    explorer = Explorer(run)
    path, contents = explorer.write(), explorer.contents
    return path, {
        "rows": contents.records.num_rows,
        "operators": len(run.configuration.operators),
        "scores": len(contents.scores),
        "pictures": len(contents.sample),
        "build_seconds": round(time.monotonic() - begun, 1),
        "build_cpu_seconds": round(time.process_time() - cpu, 1),
        "file_mb": round(path.stat().st_size / 1e6, 1),
    }


def _looked_at(path: Path, chromium: str, uplot: Path, records: int) -> dict[str, float]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened, computed = [], []
        for _ in range(OPENINGS):  # each in a process of its own
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            busy, begun = _thread_seconds(page), time.monotonic()
            page.goto(path.as_uri())
            page.wait_for_function("() => document.documentElement.dataset.ready")
            opened.append(time.monotonic() - begun)
            computed.append(busy())
        before = busy()
        drags = [page.evaluate(DRAG, one) for one in (["image_text_similarity", "min"], ["image_text_matching", "min"])]
        frames = sorted(frame for drag in drags for frame in drag["frames"])
        scripts = [script for drag in drags for script in drag["scripts"]]
        figures = {
            "open_seconds": round(min(opened), 2),
            "open_cpu_seconds": round(min(computed), 2),
            "drag_ms": round(statistics.median(frames), 1),
            "drag_cpu_ms": round(1000 * (busy() - before) / len(frames), 1),
            "drag_slowest_of_20_ms": round(frames[int(0.95 * len(frames))], 1),
            "drag_script_ms": round(statistics.median(scripts), 1),
            "scatter_ms": round(page.evaluate(_times("explorer.scatter.draw(explorer.rows.bounds)")), 2),
            "histogram_ms": round(page.evaluate(_times("explorer.charts[0].draw()")), 2),
        }
        beside = browser.new_page()
        beside.add_script_tag(path=uplot)
        points, bars = beside.evaluate(UPLOT, [records, 15])
        figures |= {"uplot_kb": round(uplot.stat().st_size / 1e3, 1)}
        figures |= {"uplot_scatter_ms": round(points, 1), "uplot_histogram_ms": round(bars, 2)}
        browser.close()
        return figures


def _thread_seconds(page: Any) -> Callable[[], float]:
    """What tells the processor seconds that the page's main thread has computed: others' work does not count."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def seconds() -> float:
        metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        return float(metrics["ThreadTime"])

    return seconds


def _times(call: str) -> str:
    """Milliseconds that a call takes, the mean of 20."""
    loop = f"for (let round = 0; round < 20; round++) {call};"
    return f"() => {{ const begun = performance.now(); {loop} return (performance.now() - begun) / 20; }}"

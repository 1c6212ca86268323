"""Every job of a configuration in one process: what `scripts/` does, without Snakemake and without starting Python.

For tests that look at files: a whole run takes half a minute of one core. That Snakemake calls the same scripts in the
same order is for the tests of the workflow.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from workflow import CONFIGURATION, MODELS, ROOT

from bettersynth.configuration import load
from bettersynth.core.layout import Layout
from bettersynth.core.publish import sha256_file, sha256_json
from bettersynth.runtime import driver
from bettersynth.workflow.jobs import Job, Jobs
from bettersynth.workflow.jobs.generate import Generate
from bettersynth.workflow.jobs.score import Score
from bettersynth.workflow.jobs.specification import _paths
from bettersynth.workflow.plan import Plan
from miniature.render import render_world

STARTED_BY = "job = RunningJob(snakemake)\n"


def whole_configuration() -> dict[str, Any]:
    """A configuration with a file of every kind: captions, drawings, cleaned captions, held-out pairs, picked seeds."""
    content = copy.deepcopy(CONFIGURATION) | {"name": "small", "held_out": "held"}
    content["models"]["diffusion"] = {"path": str(MODELS / "diffusion")}
    content["redrawers"] = {"small": {"model": "diffusion", "size": 32, "steps": 2}}
    content["datasets"] |= {
        "few": {"from": "wordy", "sample": {"rows": 2}},
        "redrawn": {"from": "few", "redraw": {"redrawer": "small", "seed": 0, "shards": 1}},
        "held": {"from": "pool", "sample": {"rows": 3, "seed": 9}},
    }
    content["datasets"]["rewritten"]["recaption"]["shards"] = 2
    content["exports"]["redrawn"] = ["parquet"]
    return content


class InProcess:
    """A folder with data and a configuration, whose jobs are done here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.config_file = self.folder / "small.yaml"
        self.results = self.folder / "results" / "small"

    def configure(self, content: Mapping[str, Any]) -> InProcess:
        """Write the configuration."""
        self.config_file.write_text(yaml.safe_dump(dict(content), sort_keys=False), encoding="utf-8")
        return self

    @classmethod
    def rendered(cls, folder: Path, content: Mapping[str, Any] | None = None) -> InProcess:
        """One with a small world of its own."""
        folder.mkdir(parents=True, exist_ok=True)
        render_world(folder / "data", records=30, second_records=6, textvqa=4, mmbench=3, instructions=16, faults=True)
        content = whole_configuration() if content is None else dict(content)
        content["pool"]["max_quarantined"] = 0.8
        return cls(folder).configure(content)

    def jobs(self) -> Jobs:
        """The jobs; to be asked for in the folder."""
        configuration = load(self.config_file.name)
        return Jobs(configuration, Layout("results/small"), Plan(configuration), looks=True)

    def finish(self) -> InProcess:
        """Do every job that is not done."""
        with chdir(self.folder):
            for job in self.due():
                do(job)
        return self

    def due(self) -> Iterator[Job]:
        """Each job after those that make its inputs, in an order that Snakemake might choose.

        Passed over are those that are done, unless an input has other bytes since one of the jobs before.
        """
        jobs = self.jobs()
        jobs.fingerprints.check_inputs(self.config_file.name)
        driver.claim(jobs.layout.claim, self.config_file.name, named=True)
        pending, changed = list(every_job(jobs)), set[Path]()
        while pending:
            to_come = {path for job in pending for path in _paths(job.outputs)}
            ready = [job for job in pending if to_come.isdisjoint(_inputs(job))]
            assert ready, f"no job can start of {[(job.rule.name, *job.wildcards.values()) for job in pending]}"
            for job in ready:
                pending.remove(job)
                job.rule.parameters(**job.wildcards)  # which Snakemake asks for, and notes what they are of
                outputs = _paths(job.outputs)
                if all(path.exists() for path in outputs) and changed.isdisjoint(_inputs(job)):
                    continue
                before = {path: _contents(path) for path in outputs if path.exists()}
                yield job
                changed.update(path for path in outputs if before.get(path) != _contents(path))


def _contents(path: Path) -> str:
    """The digest of a file, or of all files of a folder."""
    if path.is_dir():
        return sha256_json({str(file): sha256_file(file) for file in sorted(path.rglob("*")) if file.is_file()})
    return sha256_file(path)


def do(job: Job) -> None:
    """Run the script of a job's rule, from where it has its job."""
    rule = job.rule
    script = "score" if isinstance(rule, Score) else "generate" if isinstance(rule, Generate) else rule.name
    _, _, code = (ROOT / "scripts" / f"{script}.py").read_text(encoding="utf-8").partition(STARTED_BY)
    assert code, f"{script}: does not begin as the others"
    outputs = [str(path) for path in _paths(job.outputs)]
    running = SimpleNamespace(
        wildcards=SimpleNamespace(**job.wildcards),
        params=SimpleNamespace(**job.wildcards),
        input=list(map(str, _inputs(job))),
        output=outputs,
        threads=1,
        nodes=1,
        configuration=rule.configuration,
        config_file="small.yaml",
        layout=rule.layout,
        plan=rule.plan,
    )
    exec(compile(code, script, "exec"), {"job": running, "__name__": script})


def every_job(jobs: Jobs) -> Iterator[Job]:
    """All jobs of a run, passes too."""
    yield from jobs.ingest.jobs()
    yield from jobs.pool_index.jobs()
    for source, operator in sorted(jobs.plan.wanted_scores(["all"])):
        for chunk in jobs.passes.chunks(source, operator):
            rule = jobs.score_neural if chunk.scoring.startswith("gpu-") else jobs.score_plain
            yield rule.job(source, *chunk)
    for rule in jobs:
        if not isinstance(rule, Score) and rule.name not in ("ingest", "pool_index"):
            yield from rule.jobs()


def _inputs(job: Job) -> list[Path]:
    return _paths(job.rule.inputs(**job.wildcards))


def prepare() -> None:
    """What every job does first, once for this process."""
    from bettersynth.sources.base import prepare_offline

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    prepare_offline()


if __name__ == "__main__":
    prepare()
    place = Path(sys.argv[1])
    made = InProcess(place) if (place / "data").exists() else InProcess.rendered(place)
    made.finish()
    print(made.results)

"""What each rule asks of SLURM: the very lines that reach `sbatch`, against those that were agreed on."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflow import CONFIGURATION, MODELS, ROOT

from bettersynth.core.tables import write_table
from bettersynth.workflow.pictures import IMAGES
from miniature.render import render_world

AGREED = Path(__file__).with_name("submissions.txt")
GPU_RULES = {"score_neural", "recaption", "redraw", "probe", "pretrain", "finetune", "answer"}

# sbatch writes down what it is given and answers with a number; sacct says that every job failed.
FAKES = {
    # locked: Snakemake submits several jobs at one time
    "sbatch": 'exec 9>> "$SUBMITTED"; flock 9; printf "%q " "$@" >&9; echo >&9; wc -l < "$SUBMITTED"',
    "sacct": '[[ $* != *--name* ]] || seq $(wc -l < "$SUBMITTED") | sed "s/$/|FAILED/"',
    "scontrol": "echo 'MinJobAge = 30 sec'",
    "squeue": ":",
    "sinfo": ":",
    "scancel": ":",
}

# Datasets and recipes whose jobs do not wait for each other, so that one call submits a job of every rule.
INDEPENDENT: dict[str, Any] = {
    "datasets": {
        "some": {"from": "pool", "sample": {"rows": 9}},
        "rewritten": {"from": "some", "recaption": {"captioner": "blip2", "seed": 0}},
        "drawn": {"from": "some", "redraw": {"redrawer": "diffusion", "seed": 0}},
        "tidy": {"from": "some", "clean": {}},
    },
    "recipes": {"all": {"dataset": "pool", "seeds": [1, 2, 3, 4]}, "some": {"dataset": "some", "seeds": [1]}},
    "exports": {"some": ["parquet"]},
    "redrawers": {"diffusion": {"model": "diffusion"}},
    "models": {**CONFIGURATION["models"], "diffusion": {"path": str(MODELS / "diffusion")}},
}
ASKED = [
    "scores/pool/passes/{gpu}/stage_1-0000-0002.json",
    "scores/pool/passes/{cpu}/stage_1-0000-0002.json",
    "sources/rewritten/records/rewritten-0000.json",
    "sources/drawn/records/drawn-0000.json",
    "sources/tidy/records/tidy-0000.json",
    "trainsets/some.json",
    "runs/all/seed-1/probe/card.json",
    "runs/all/seed-2/pretrain/card.json",
    "runs/all/seed-3/finetune/card.json",
    "runs/all/seed-4/evaluation/mmbench/card.json",
    "exports/some/parquet/card.json",
]
CARD = '{"shards": {}, "parameters": {"images": "data"}}'
"""What stands for every card: enough for those that are read while the graph is built."""
TRAINED = ["runs/all/seed-1/finetune/card.json"]
LONGER = ["runs/all/seed-4/finetune/card.json"]
"""Asked for more time, and by a call that reads the profile of SLURM in the place of profiles/default."""
INGESTED = ["pool/files/stage_1.json"]


def shown(rule: str) -> list[str]:
    """What `profiles/slurm` shows, as a comment, that a rule may ask for; as arguments of --set-resources."""
    text = (ROOT / "profiles" / "slurm" / "config.yaml").read_text()
    line = re.search(rf"^  # ({rule}: {{.*}})$", text, re.MULTILINE)[1]
    return [f"{rule}:{key}={value}" for key, value in yaml.safe_load(line)[rule].items()]


@pytest.fixture(scope="module")
def submitted(tmp_path_factory) -> list[list[str]]:
    """The arguments of every call of `sbatch`; jobs fail, so most rules ask twice."""
    folder = tmp_path_factory.mktemp("submitted")
    render_world(folder / "data", records=9, second_records=3, textvqa=2, mmbench=2, instructions=4)
    kept = ("pool", "operators", "captioners", "trainset", "training", "evaluation")
    configuration = {key: CONFIGURATION[key] for key in kept} | INDEPENDENT
    (folder / "small.yaml").write_text(yaml.safe_dump(configuration))
    fakes = folder / "bin"
    fakes.mkdir()
    for name, body in FAKES.items():
        (fakes / name).write_text(f"#!/bin/bash\n{body}\n")
        (fakes / name).chmod(0o755)
    (folder / "submitted").touch()
    path = f"{fakes}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "SUBMITTED": str(folder / "submitted")}

    command = ["snakemake", "--profile", "slurm", "--snakefile", ROOT / "Snakefile", "--directory", folder]
    command += ["--configfile", folder / "small.yaml", "--slurm-logdir", folder / "logs", "--latency-wait", "0"]
    command += ["--slurm-init-seconds-before-status-checks", "1", "--max-status-checks-per-second", "9"]
    command += ["--nolock", "--retries", "1"]
    call = partial(subprocess.Popen, cwd=ROOT, env=environment, text=True, stderr=subprocess.STDOUT)

    probe = next(target for target in ASKED if "/probe/" in target)
    summary = call([*command, "--summary", "all", "scores", f"results/small/{probe}"], stdout=subprocess.PIPE)
    for line in summary.communicate()[0].splitlines()[1:]:
        output = folder / line.split("\t")[0]
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(CARD if output.suffix == ".json" else "")
        if output.name.endswith(".images.parquet"):  # which is read while the graph is built
            write_table(output, IMAGES.empty_table())
        os.utime(output, (0, 0))  # none is newer than what is made from it
    passes = {path.name[:3]: path.stem for path in (folder / "results/small/scores/passes").iterdir()}

    lines: list[str] = []
    over_nodes = ["--set-resources", *shown("finetune")]
    longer = ["--workflow-profile", ROOT / "profiles" / "slurm", "--set-resources", "finetune:runtime=600"]
    longer += ["--keep-incomplete", "--rerun-incomplete", "--rerun-triggers", "mtime"]
    calls = ((ASKED, 2, []), (TRAINED, 1, over_nodes), (LONGER, 1, longer), (INGESTED, 1, []))
    for targets, attempts, options in calls:
        files = [f"results/small/{target.format(**passes)}" for target in targets]
        expected = len(lines) + attempts * len(targets)
        snakemake = call([*command, "--force", *options, "--", *files], stdout=(folder / "out").open("w"))
        while len(lines := _lines(folder / "submitted")) < expected and snakemake.poll() is None:
            time.sleep(0.2)
        snakemake.kill()
        snakemake.wait()
    return [shlex.split(line) for line in lines]


def _lines(path: Path) -> list[str]:
    """Lines that are whole."""
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def request(arguments: list[str]) -> str:
    """What is asked of SLURM: without the run's id, its folders and the command that a job runs."""
    elsewhere = {"--job-name", "--output", "-D"}
    kept = [
        word
        for before, word in zip(["", *arguments], arguments, strict=False)
        if before not in elsewhere and word not in elsewhere and not word.startswith("--wrap=")
    ]
    return re.sub(r"[gc]pu-[0-9a-f]{12}", "PASS", " ".join(kept))  # it names the miniature's models


def test_every_rule_asks_for_what_was_agreed(submitted):
    asked = sorted(map(request, submitted))
    if asked != AGREED.read_text().splitlines():
        AGREED.with_suffix(".new").write_text("\n".join(asked) + "\n")
    assert asked == AGREED.read_text().splitlines(), (
        "if this is meant: mv tests/submissions.new tests/slurm/submissions.txt"
    )


def test_gpu_rules_and_no_others_ask_for_gpus(submitted):
    for arguments in submitted:
        rule = arguments[arguments.index("--comment") + 1].removeprefix("rule_").partition("_wildcards")[0]
        assert any(re.fullmatch("--gpus=[18]", argument) for argument in arguments) == (rule in GPU_RULES)


def test_a_job_runs_one_rule_in_the_folder_of_the_run(submitted):
    for arguments in submitted:
        (wrapped,) = [word for word in arguments if word.startswith("--wrap=")]
        rule = arguments[arguments.index("--comment") + 1].removeprefix("rule_").partition("_wildcards")[0]
        assert f"--allowed-rules {rule} " in wrapped and "--keep-incomplete" in wrapped

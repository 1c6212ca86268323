"""What to change in `profiles/slurm` for the cluster at hand (`make doctor`)."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from snakemake.resources import Resource

from bettersynth.slurm.queue import SlurmError, slurm
from bettersynth.slurm.site import Request, Site, chosen_from, describe, look

ROOT = Path(__file__).resolve().parents[3]
PROFILES = ROOT / "profiles"
OTHERS = "other rules"
WAIT_S = 30
"""How long the look at a node may wait for one that is free."""

LOOK = """
import json, os, platform, sys
found = {"host": platform.node(), "python": platform.python_version(), "folder": os.path.isdir(sys.argv[1])}
try:
    import torch
    found["torch"], found["cuda"] = torch.__version__, torch.cuda.is_available()
except ImportError as error:
    found["torch"] = str(error)
print(json.dumps(found))
"""


class Finding(NamedTuple):
    """One thing that was looked at."""

    ok: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok     ' if self.ok else 'CHANGE '} {self.text}"


def examine(folder: Path, shards_per_job: int) -> Iterator[Finding]:
    """Look at the cluster, at what the rules ask of it, and at a node of it."""
    if shutil.which("sinfo") is None:
        yield Finding(False, "no SLURM on this machine: run here with `make run`, with GPUS=… for the GPUs there are")
        return
    try:
        site = look()
    except SlurmError as error:
        yield Finding(False, f"SLURM does not answer: {error}")
        return
    profile = yaml.safe_load((PROFILES / "slurm" / "config.yaml").read_text())
    for partition in site.partitions.values():
        nodes = "; ".join(map(describe, partition.nodes))
        limit = f"{partition.minutes} min" if partition.minutes < 10**9 else "no limit"
        yield Finding(True, f"partition {partition.name}{' (default)' * partition.is_default}: {limit}; {nodes}")
    yield from _accounting(site, profile)
    yield from _requests(site, profile, shards_per_job)
    yield _node(site, profile, folder)


def _accounting(site: Site, profile: dict[str, Any]) -> Iterator[Finding]:
    asks = profile["slurm-status-command"]
    if asks == "sacct" and not site.has_accounting:
        yield Finding(
            False, "no accounting database: write `slurm-status-command: squeue`, or Snakemake waits for ever"
        )
    else:
        yield Finding(True, f"states of jobs come from `{asks}`")
    if asks == "squeue":
        kept = int(site.settings.get("MinJobAge", "0").split()[0])
        needed = 3 * profile["slurm-init-seconds-before-status-checks"]
        if kept < needed:
            yield Finding(
                False,
                f"`squeue` forgets jobs after {kept} s: write `slurm-init-seconds-before-status-checks: {kept // 3}`",
            )
    enforced = site.settings.get("AccountingStorageEnforce", "none")
    if "associations" in enforced and "slurm_account" not in profile["default-resources"]:
        yield Finding(False, "jobs need an account here: write `slurm_account`; yours: sacctmgr show associations")


def rule_requests(profile: dict[str, Any], shards_per_job: int, attempt: int) -> dict[str, Request]:
    """What a job of each rule of `profiles/default` asks for at an attempt; `OTHERS` have the defaults.

    Expressions are those of our own profiles, with `attempt` and `input` as Snakemake gives them. Sizes and times may
    be written as Snakemake takes them (`mem: 16GB`, `runtime: 12h`).
    """
    rules = yaml.safe_load((PROFILES / "default" / "config.yaml").read_text())["set-resources"]
    known = {"attempt": attempt, "input": range(shards_per_job), "len": len, "max": max, "min": min}

    def value(resources: dict[str, Any], key: str, default: int = 0) -> int:
        written = resources.get(key, default)
        if isinstance(written, str):
            with contextlib.suppress(NameError, SyntaxError):  # then it is no expression
                written = eval(written, {"__builtins__": {}}, known)
        return int(Resource.parse_human_friendly(key, written))  # type: ignore[arg-type]

    found = {}
    for rule, own in {**rules, OTHERS: {}}.items():
        both = (*profile["default-resources"].items(), *own.items())
        resources = {"mem" if key == "mem_mb" else key: written for key, written in both}
        found[rule] = Request(
            cpus=value(resources, "cpus_per_task", 1),
            memory_mb=value(resources, "mem"),
            minutes=value(resources, "runtime"),
            gpus=value(resources, "gpu"),
            gpu_model=resources.get("gpu_model"),
            partition=resources.get("slurm_partition"),
            nodes=value(resources, "nodes", 1),
            mpi=resources.get("mpi"),
        )
    listed = profile.get("slurm-partition-config")
    return chosen_from(ROOT / listed, found) if listed else found


def _requests(site: Site, profile: dict[str, Any], shards_per_job: int) -> Iterator[Finding]:
    said: set[str] = set()
    for attempt in (1, 1 + profile["retries"]):
        refusals = site.refusals(rule_requests(profile, shards_per_job, attempt))
        if not refusals:
            yield Finding(True, f"what every rule asks for at attempt {attempt} can be had")
        for why, rules in refusals.items():
            where = "profiles/slurm" if OTHERS in rules else "profiles/default"
            if why not in said:
                yield Finding(False, f"attempt {attempt} of {rules}: {why}; change it in {where}")
        said |= refusals.keys()


def _node(site: Site, profile: dict[str, Any], folder: Path) -> Finding:
    """Start a Python with one GPU on a node and see what it finds there."""
    named = profile["default-resources"].get("slurm_partition") or (site.default.name if site.default else "")
    partitions = [site.partitions[name] for name in named.split(",") if name in site.partitions]
    gpu = ["--gpus=1"] if any(node.gpus for partition in partitions for node in partition.nodes) else []
    where = [f"--partition={named}"] if named else []
    command = ["srun", "--quiet", f"--immediate={WAIT_S}", "--time=5", "--mem=4000", "--ntasks=1", *gpu, *where]
    try:
        found = json.loads(slurm(*command, sys.executable, "-c", LOOK, str(folder)).splitlines()[-1])
    except (SlurmError, subprocess.SubprocessError, IndexError) as error:
        return Finding(False, f"no look at a node was possible ({error}); try: {shlex.join(command)} hostname")
    if not found["folder"]:
        return Finding(False, f"{found['host']} does not see {folder}: work in a folder that all nodes share")
    if "cuda" not in found:
        return Finding(False, f"{found['host']}: {found['torch']}; run `make setup TORCH=cuda` in a shared folder")
    if gpu and not found["cuda"]:
        return Finding(False, f"{found['host']}: torch {found['torch']} sees no GPU; make setup TORCH=cuda")
    return Finding(True, f"{found['host']}: Python {found['python']}, torch {found['torch']}, CUDA {found['cuda']}")

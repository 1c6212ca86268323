"""What to change in `profiles/slurm` for the cluster at hand (`make doctor`)."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from snakemake.resources import Resource, Resources

from bettersynth.slurm.queue import SlurmError, slurm
from bettersynth.slurm.site import Request, Site, chosen_from, describe, look, without_gpu

ROOT = Path(__file__).resolve().parents[3]
PROFILES = ROOT / "profiles"
OTHERS = "other rules"
TWICE = "keys of both profiles"
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


def examine(
    folder: Path, rules: Mapping[str, Mapping[str, Any]], on_gpu: Collection[str], shards_per_job: int
) -> Iterator[Finding]:
    """Look at the cluster, at what the rules ask of it, and at a node of it.

    `rules` is what each rule asks for by itself, in Snakemake's form; `on_gpu` are those that need a GPU.
    """
    if shutil.which("sinfo") is None:
        yield Finding(False, "no SLURM on this machine: run here with `make run`, with GPUS=… for the GPUs there are")
        return
    try:
        site = look()
    except SlurmError as error:
        yield Finding(False, f"SLURM does not answer: {error}")
        return
    profile = read_profiles()
    for partition in site.partitions.values():
        nodes = "; ".join(map(describe, partition.nodes))
        limit = f"{partition.minutes} min" if partition.minutes < 10**9 else "no limit"
        yield Finding(True, f"partition {partition.name}{' (default)' * partition.is_default}: {limit}; {nodes}")
    yield from _accounting(site, profile)
    yield from _profiles(profile, rules)
    yield from _requests(site, profile, rules, on_gpu, shards_per_job)
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
    if "associations" in enforced and "slurm_account" not in profile.get("default-resources", {}):
        yield Finding(False, "jobs need an account here: write `slurm_account`; yours: sacctmgr show associations")


def read_profiles() -> dict[str, Any]:
    """What `snakemake --profile slurm` reads: both profiles, `profiles/default` winning key by key."""
    slurm, default = (yaml.safe_load((PROFILES / name / "config.yaml").read_text()) for name in ("slurm", "default"))
    return {**slurm, **default, TWICE: sorted(slurm.keys() & default.keys())}


def _profiles(profile: dict[str, Any], rules: Mapping[str, Any]) -> Iterator[Finding]:
    """What of the profiles Snakemake would not read, or would pass over in silence."""
    for key in profile[TWICE]:
        yield Finding(False, f"`{key}` of profiles/slurm is not read, for profiles/default has it too: keep one")
    for rule in sorted(profile.get("set-resources", {}).keys() - rules.keys()):
        yield Finding(False, f"`set-resources` names {rule}, and no rule is called so; there are: {', '.join(rules)}")


def rule_requests(
    rules: Mapping[str, Mapping[str, Any]], profile: Mapping[str, Any], shards_per_job: int, attempt: int
) -> dict[str, Request]:
    """What a job of each rule would ask for at an attempt, as Snakemake works it out; `OTHERS` have the defaults.

    That is the profile's `default-resources`, what the rule says itself, and the profile's `set-resources`, each key
    in the place of the one before.
    """
    found = {}
    for rule, own in {**rules, OTHERS: {}}.items():
        resources = _parsed(profile.get("default-resources", {}))
        resources.update(Resources.from_mapping(own))
        resources.update(_parsed(profile.get("set-resources", {}).get(rule, {})))
        values = dict(resources.expand_items(constraints={}, evaluate=partial(_evaluated, shards_per_job, attempt)))
        found[rule] = Request.of(values.get)
    listed = profile.get("slurm-partition-config")
    return chosen_from(ROOT / listed, found) if listed else found


def _parsed(written: Mapping[str, Any]) -> Resources:
    return Resources.parse([f"{key}={value}" for key, value in written.items()], allow_expressions=True)


def _evaluated(shards_per_job: int, attempt: int, resource: Resource) -> Resource:
    inputs = [f"{number}" for number in range(shards_per_job)]
    return resource.evaluate({}, input=inputs, attempt=attempt, threads=1, rulename="", async_run=None)


def _requests(
    site: Site,
    profile: dict[str, Any],
    rules: Mapping[str, Mapping[str, Any]],
    on_gpu: Collection[str],
    shards_per_job: int,
) -> Iterator[Finding]:
    said: set[str] = set()
    for attempt in (1, 1 + profile["retries"]):
        requests = rule_requests(rules, profile, shards_per_job, attempt)
        refusals = site.refusals(requests) | without_gpu(requests, on_gpu)
        if not refusals:
            yield Finding(True, f"what every rule asks for at attempt {attempt} can be had")
        for why, names in refusals.items():
            key = "default-resources" if OTHERS in names else "set-resources"
            if why not in said:
                yield Finding(False, f"attempt {attempt} of {names}: {why}; change it by `{key}` in profiles/slurm")
        said |= refusals.keys()


def _node(site: Site, profile: dict[str, Any], folder: Path) -> Finding:
    """Start a Python with one GPU on a node and see what it finds there."""
    named = profile.get("default-resources", {}).get("slurm_partition") or (site.default.name if site.default else "")
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

"""What a cluster has: its partitions, nodes, GPUs and accounting; and whether it can ever run what a job asks for."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bettersynth.slurm.queue import SlurmError, slurm

GPUS = re.compile(r"gpu:(?:(?P<model>[^:(,]+):)?(?P<count>\d+)")
UNLIMITED = 10**9
NO_ACCOUNTING = "no accounting database: write `slurm-status-command: squeue`, or Snakemake waits for ever"


class Request(NamedTuple):
    """What a job asks for.

    `gpus` are those of all its nodes together, `cpus` and `memory_mb` those of one. `partition` None is the default
    one; of several, with commas between them, SLURM takes the first that is free.
    """

    cpus: int = 1
    memory_mb: int = 0
    minutes: int = 0
    gpus: int = 0
    gpu_model: str | None = None
    partition: str | None = None
    nodes: int = 1
    mpi: str | None = None
    """What starts processes on several nodes: the job itself, by `srun`."""

    @classmethod
    def of(cls, ask: Callable[[str], Any], cpus: int = 1) -> Request:
        """What a job's resources ask for, by name; `cpus` without `cpus_per_task`."""
        return cls(
            cpus=ask("cpus_per_task") or cpus,
            memory_mb=ask("mem_mb") or 0,
            minutes=ask("runtime") or 0,
            gpus=ask("gpu") or sum(gpus(ask("gres") or "").values()),
            gpu_model=ask("gpu_model"),
            partition=ask("slurm_partition"),
            nodes=ask("nodes") or 1,
            mpi=ask("mpi"),
        )


class Node(NamedTuple):
    """Nodes of one kind: how many there are, and the largest job that one can take."""

    cpus: int
    memory_mb: int
    gpus: dict[str, int]
    """Model → number; the model is `gpu` where the site names none."""
    number: int = 1


class Partition(NamedTuple):
    """A partition and its limits."""

    name: str
    is_default: bool
    is_up: bool
    minutes: int
    nodes: tuple[Node, ...]


class Site(NamedTuple):
    """A cluster as SLURM describes it."""

    partitions: dict[str, Partition]
    settings: dict[str, str]
    """What `scontrol show config` says."""

    @property
    def default(self) -> Partition | None:
        """The partition of jobs that name none."""
        return next((partition for partition in self.partitions.values() if partition.is_default), None)

    @property
    def has_accounting(self) -> bool:
        """Whether `sacct` knows finished jobs."""
        return self.settings.get("AccountingStorageType", "").endswith("slurmdbd")

    def refusal(self, request: Request) -> str:
        """Why no node will ever run the request, and the nearest that there is; empty when some node can."""
        if not self.partitions:
            return ""  # nothing is known of them
        if request.partition:
            refusals = [self._refusal_of(name, request) for name in request.partition.split(",")]
            return "" if "" in refusals else refusals[0]
        if self.default:
            return self._refusal_of(self.default.name, request)
        return f"no partition, and there is no default one: name one of {', '.join(self.partitions)}"

    def refusals(self, requests: dict[str, Request]) -> dict[str, str]:
        """Why requests will never run → the names of those, in order and with commas between them."""
        found: dict[str, list[str]] = {}
        for name in sorted(requests):
            if why := self.refusal(requests[name]):
                found.setdefault(why, []).append(name)
        return {why: ", ".join(names) for why, names in found.items()}

    def _refusal_of(self, name: str, request: Request) -> str:
        partition = self.partitions.get(name)
        if partition is None:
            return f"partition `{name}`, which there is not; there are: {', '.join(self.partitions)}"
        if not partition.is_up:
            return f"partition `{partition.name}` takes no jobs"
        if request.minutes > partition.minutes:
            return f"{request.minutes} min; partition `{partition.name}` ends jobs after {partition.minutes} min"
        if request.nodes > 1 and request.mpi != "srun":
            return f"{request.nodes} nodes without `mpi: srun`; docs/slurm.md shows what several nodes need"
        if sum(node.number for node in partition.nodes if _fits(request, node)) >= request.nodes:
            return ""
        asked = f"{request.cpus} CPUs, {request.memory_mb} MB, {_gpus_of_one(request)} GPUs"
        there = "; ".join(map(describe, partition.nodes))
        model = f" of model {request.gpu_model}" if request.gpu_model else ""
        where = "on one node" if request.nodes == 1 else f"on each of {request.nodes} nodes"
        return f"{asked}{model} {where}; partition `{partition.name}` has {there or 'no nodes'}"


def refuse_impossible(
    requests: dict[str, Request],
    status_command: str,
    partition_config: Path | None = None,
    on_gpu: Collection[str] = (),
) -> None:
    """Raise SlurmError when a run would wait for ever: for a node that does not exist, or for states of its jobs.

    Also where a job that needs a GPU would go without. `requests` are by rule, `status_command` is how Snakemake asks
    for states, `partition_config` lists the partitions that it chooses from, `on_gpu` are rules that need a GPU.
    """
    site = look()
    if partition_config is not None:
        requests = chosen_from(partition_config, requests)
    refused = [f"{rules}: {why}" for why, rules in (site.refusals(requests) | without_gpu(requests, on_gpu)).items()]
    if status_command == "sacct" and site.settings.get("AccountingStorageType") == "accounting_storage/none":
        refused.append(NO_ACCOUNTING)
    if refused:
        raise SlurmError(
            "SLURM would never run this, so nothing was submitted:\n  "
            + "\n  ".join(refused)
            + "\nWhat a rule asks for is changed by `set-resources` in profiles/slurm; to look at it: make doctor"
        )


def without_gpu(requests: dict[str, Request], on_gpu: Collection[str]) -> dict[str, str]:
    """Why requests would run for days on a CPU → the names of those; empty when each has the GPU that it needs."""
    rules = sorted(name for name, request in requests.items() if name in on_gpu and not request.gpus)
    return {"needs a GPU and asks for none: something sets its `gpu` to 0": ", ".join(rules)} if rules else {}


def chosen_from(partition_config: Path, requests: dict[str, Request]) -> dict[str, Request]:
    """Requests that name no partition may have any of those that the plugin's file lists."""
    listed = ",".join(yaml.safe_load(Path(partition_config).read_text(encoding="utf-8"))["partitions"])
    return {rule: request._replace(partition=request.partition or listed) for rule, request in requests.items()}


def look() -> Site:
    """Ask SLURM what there is. Raises SlurmError when it does not answer."""
    settings = dict(re.findall(r"^(\w+)\s*= (.*?)\s*$", slurm("scontrol", "show", "config"), re.MULTILINE))
    table = slurm("sinfo", "--noheader", "--exact", "--format=%R|%a|%l|%c|%m|%G|%D|%P").splitlines()
    partitions: dict[str, Partition] = {}
    for line in table:
        name, state, limit, cpus, memory, gres, number, starred = line.split("|")
        node = Node(int(cpus), int(memory), gpus(gres), int(number))
        before = partitions.get(name)
        kinds = (*(before.nodes if before else ()), node)
        partitions[name] = Partition(name, starred.endswith("*"), state == "up", minutes(limit), kinds)
    return Site(partitions, settings)


def _fits(request: Request, node: Node) -> bool:
    there = node.gpus.get(request.gpu_model, 0) if request.gpu_model else sum(node.gpus.values())
    return request.cpus <= node.cpus and request.memory_mb <= node.memory_mb and _gpus_of_one(request) <= there


def _gpus_of_one(request: Request) -> int:
    return -(-request.gpus // request.nodes)


def describe(node: Node) -> str:
    """Nodes of one kind in words."""
    devices = ", ".join(f"{count} GPUs ({model})" for model, count in node.gpus.items()) or "no GPU"
    return f"{node.number} × {node.cpus} CPUs, {node.memory_mb} MB, {devices}"


def gpus(gres: str) -> dict[str, int]:
    """GPUs in SLURM's words (`gpu:a100:4(S:0-1),gpu:2`): model → number."""
    found: dict[str, int] = {}
    for match in GPUS.finditer(gres):
        model = match["model"] or "gpu"
        found[model] = found.get(model, 0) + int(match["count"])
    return found


def minutes(limit: str) -> int:
    """SLURM's time (`30:00`, `12:00:00`, `2-00:00:00`, `infinite`) in whole minutes."""
    days, _, clock = limit.rpartition("-")
    if not clock[:1].isdigit():
        return UNLIMITED
    parts = [int(part) for part in clock.split(":")]
    hours, mins = (parts[0], parts[1]) if len(parts) == 3 else (0, parts[0])
    return int(days or 0) * 1440 + hours * 60 + mins

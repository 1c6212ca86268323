"""One process for each GPU of a job: starting them, and what they tell each other.

A job that has one GPU, or none, does its work itself. With several, `run` starts torchrun on this module; over several
nodes of a SLURM job, one torchrun on each.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import platform
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from bettersynth.configuration import read_yaml
from bettersynth.configuration.load import recipe_training
from bettersynth.configuration.types import Configuration
from bettersynth.layout import Layout
from bettersynth.network import forbid_network

logger = logging.getLogger(__name__)

WORK = {
    "probe": ("bettersynth.mgm.training", "probe"),
    "pretrain": ("bettersynth.mgm.training", "pretrain"),
    "finetune": ("bettersynth.mgm.training", "finetune"),
    "answer": ("bettersynth.mgm.generation", "write_answers"),
}
"""What can be done in several processes: module and function."""

OURS = "bettersynth| "
"""Begins those lines of a process that are for people."""


def run(
    work: str,
    recipe: str,
    seed: int,
    configuration: Configuration,
    layout: Layout,
    *before: str,
    processes: int | None = None,
    nodes: int = 1,
) -> None:
    """Do one of `WORK`: here, or in as many processes as there are GPUs (or as `processes` says), on each of `nodes`.

    `before` goes before the recipe: the benchmark that `answer` asks for. The kit's program (`training.kit`) starts its
    own processes. Raises `RuntimeError` when a process fails, and `ValueError` for several nodes outside a job of SLURM
    or for the kit.
    """
    if work != "answer" and recipe_training(configuration, recipe).kit:
        if nodes > 1:
            raise ValueError(f"training.kit trains on one node, and {work} asks for {nodes}: change `nodes`")
        _function(work)(recipe, seed, configuration, layout)
        return
    count = processes or max(1, torch.cuda.device_count())
    if count == nodes == 1:
        _function(work)(*before, recipe, seed, configuration, layout)
        return
    layout.root.mkdir(parents=True, exist_ok=True)
    # in the folder of results, which every node sees
    with tempfile.NamedTemporaryFile("w", dir=layout.root, prefix=".", suffix=".tmp", encoding="utf-8") as file:
        file.write(configuration.model_dump_json(by_alias=True))
        file.flush()
        torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}"]
        start = [*_on_nodes(nodes), *torchrun, *_meeting(nodes)]
        module = ["--module", __name__, "--config", file.name, "--results", str(layout.root)]
        what = f"{work} in {count} processes" + (f" on each of {nodes} nodes" if nodes > 1 else "")
        _relay([*start, *module, work, *before, recipe, str(seed)], what)


def _on_nodes(nodes: int) -> list[str]:
    """The beginning of a command that runs once on each node of this SLURM job; nothing for one node."""
    if nodes == 1:
        return []
    if "SLURM_JOB_ID" not in os.environ:
        raise ValueError(f"the job asks for {nodes} nodes, which only SLURM has: change `nodes` in profiles/default")
    return ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--cpu-bind=none", "--kill-on-bad-exit=1"]


def _meeting(nodes: int) -> list[str]:
    """Where the nodes' torchruns find each other: at a free port of this host, the first of the job's."""
    if nodes == 1:
        return ["--standalone"]
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    endpoint = f"--rdzv-endpoint={platform.node()}:{port}"
    return [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-id={os.environ['SLURM_JOB_ID']}", endpoint]


def _relay(command: list[str], what: str) -> None:
    """Run the command; log its lines for people, and print the others, which a job's log collects."""
    here = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            for line in process.stdout or ():
                if line.startswith(OURS):
                    logger.info("%s", line.removeprefix(OURS).rstrip("\n"))
                else:
                    print(line, end="", flush=True)
        finally:
            process.terminate()
    if process.returncode:
        raise RuntimeError(
            f"{what} ended with code {process.returncode}; the reason is printed above, in the job's log"
        )


def is_main_process() -> bool:
    """Whether this process is the one that writes results."""
    return os.environ.get("RANK", "0") == "0"


def gathered(found: dict[Any, Any]) -> dict[Any, Any]:
    """What all processes found."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return found
    distributed.init_process_group("gloo")
    parts: list[dict[Any, Any]] = [{}] * distributed.get_world_size()
    distributed.all_gather_object(parts, found)
    return {key: value for part in parts for key, value in part.items()}


def _function(work: str) -> Any:
    module, name = WORK[work]
    return getattr(importlib.import_module(module), name)


def main() -> None:
    """One of torchrun's processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True, help="folder of the configuration's results")
    parser.add_argument("work", choices=WORK)
    parser.add_argument("names", nargs="+", help="recipe and seed; for `answer`, the benchmark first")
    options = parser.parse_args()
    *names, seed = options.names
    logging.basicConfig(level=logging.ERROR, format=f"{OURS}%(message)s")
    forbid_network(" ".join([options.work, *options.names]))
    if is_main_process():
        logging.getLogger("bettersynth").setLevel(logging.INFO)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        configuration = Configuration.model_validate(read_yaml(options.config))
        _function(options.work)(*names, int(seed), configuration, Layout(options.results))
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


if __name__ == "__main__":
    main()

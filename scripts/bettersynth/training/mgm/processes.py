"""One process for each GPU of a job: starting them, and what they tell each other.

A job that has one GPU, or none, does its work itself. With several, `run` starts torchrun on this module; over several
nodes of a SLURM job, one torchrun on each.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import logging
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import distributed

from bettersynth.configuration import read_yaml
from bettersynth.configuration.recipes import recipe_training
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.runtime.network import forbid_network
from bettersynth.runtime.patches.model_code import forbid_model_code

logger = logging.getLogger(__name__)

STAGES = ("probe", "pretrain", "finetune")
"""Work by its short name (that of a further probe has a number, `probe-2`): functions of
`bettersynth.training.mgm.training`, which the kit's program can do as well."""

OURS = "bettersynth| "
"""Begins those lines of a process that are for people."""
BEGUN, MET = "bettersynth-begun| ", "bettersynth-met| "
"""Begin the lines by which each process says that it runs, and the first one that it has spoken with all."""

MEETING_MINUTES = 10.0
"""How long processes may take from their start until all have met: whoever is not here by then does not come."""
SILENCE_MINUTES = 30
"""How long one may then be silent: the first writes a checkpoint while the others wait for it."""
PORTS = range(10_000, 30_000)
"""Where nodes meet: below those that Linux (from 32768) gives to connections, which come and go."""


def run(
    work: str,
    recipe: str,
    seed: int,
    configuration: Configuration,
    layout: Layout,
    *,
    processes: int | None = None,
    nodes: int = 1,
) -> None:
    """Do the work here, or in as many processes as there are GPUs (or as `processes` says), on each of `nodes`.

    The work is one of `STAGES` or any `module:function` that takes recipe, seed, configuration and layout. The kit's
    program (`training.kit`) starts its own processes. Raises `RuntimeError` when a process fails, and `ValueError` for
    several nodes outside a job of SLURM or for the kit.
    """
    if work.partition("-")[0] in STAGES and recipe_training(configuration, recipe).kit:
        if nodes > 1:
            raise ValueError(f"training.kit trains on one node, and {work} asks for {nodes}: change `nodes`")
        _function(work)(recipe, seed, configuration, layout)
        return
    count = processes or max(1, torch.cuda.device_count())
    if count == nodes == 1:
        _function(work)(recipe, seed, configuration, layout)
        return
    layout.root.mkdir(parents=True, exist_ok=True)
    # in the folder of results, which every node sees
    with tempfile.NamedTemporaryFile("w", dir=layout.root, prefix=".", suffix=".tmp", encoding="utf-8") as file:
        file.write(configuration.model_dump_json(by_alias=True))
        file.flush()
        torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}"]
        start = [*_on_nodes(nodes), *torchrun, *_meeting_place(nodes)]
        module = ["--module", __name__, "--config", file.name, "--results", str(layout.root)]
        what = f"{work.rpartition(':')[2]} in {count} processes" + (f" on each of {nodes} nodes" if nodes > 1 else "")
        _relay([*start, *module, work, recipe, str(seed)], what, count * nodes)


def _on_nodes(nodes: int) -> list[str]:
    """The beginning of a command that runs once on each node of this SLURM job; nothing for one node."""
    if nodes == 1:
        return []
    if "SLURM_JOB_ID" not in os.environ:
        raise ValueError(f"the job asks for {nodes} nodes, which only SLURM has: change `nodes` in its `set-resources`")
    return ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--cpu-bind=none", "--kill-on-bad-exit=1"]


def _meeting_place(nodes: int) -> list[str]:
    """Where the nodes' torchruns find each other: at a port of this host, the first of the job's, that nothing uses."""
    if nodes == 1:
        return ["--standalone"]
    job = int(os.environ["SLURM_JOB_ID"])
    port = next(filter(_is_free, (PORTS[(job + further) % len(PORTS)] for further in range(len(PORTS)))))
    endpoint = f"--rdzv-endpoint={platform.node()}:{port}"
    return [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-id={job}", endpoint]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


def _relay(command: list[str], what: str, processes: int) -> None:
    """Run the command; log its lines for people, and print the others, which a job's log collects.

    Its processes are ended, and `RuntimeError` says who was missing, when they have not all met within
    `MEETING_MINUTES`: torch would wait for half an hour or, for a step that SLURM never starts, for good.
    """
    here = str(Path(__file__).resolve().parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])}
    begun: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        in_vain = threading.Event()

        def give_up() -> None:
            in_vain.set()
            _end(process)

        patience = threading.Timer(60 * MEETING_MINUTES, give_up)
        patience.daemon = True
        patience.start()
        try:
            for line in process.stdout or ():
                if line.startswith(OURS):
                    logger.info("%s", line.removeprefix(OURS).rstrip("\n"))
                elif line.startswith(BEGUN):
                    begun.append(line.removeprefix(BEGUN).rstrip("\n"))
                elif line.startswith(MET):
                    patience.cancel()
                else:
                    print(line, end="", flush=True)
        finally:
            patience.cancel()
            process.terminate()
    if in_vain.is_set():
        raise RuntimeError(_missed(what, begun, processes))
    if process.returncode:
        raise RuntimeError(
            f"{what} ended with code {process.returncode}; the reason is printed above, in the job's log"
        )


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and all that it started: what it leaves behind would keep its output open."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for how, seconds in ((psutil.Process.terminate, 30), (psutil.Process.kill, 0)):
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                how(member)
        family = psutil.wait_procs(family, timeout=seconds)[1]


def _missed(what: str, begun: list[str], processes: int) -> str:
    """The message of processes that waited for each other in vain."""
    nodes = os.environ.get("SLURM_JOB_NODELIST", platform.node())
    came = f"{len(begun)} of {processes} began" + (f" ({', '.join(sorted(begun))})" if begun else "")
    return (
        f"{what}: within {MEETING_MINUTES:g} minutes not all processes had met, so all were ended. Of the job on "
        f"{nodes}, {came}. If none began on a node, look at it (`scontrol show node`, slurmd's log) and leave it out "
        "(`slurm_extra: --exclude=NODE`); if all began, they cannot reach each other: set NCCL_SOCKET_IFNAME and "
        "GLOO_SOCKET_IFNAME to the network of the nodes. The next attempt starts anew."
    )


def is_main_process() -> bool:
    """Whether this process is the one that writes results."""
    return os.environ.get("RANK", "0") == "0"


def gathered(found: dict[Any, Any]) -> dict[Any, Any]:
    """What all processes found."""
    if not distributed.is_initialized():
        return found
    parts: list[dict[Any, Any]] = [{}] * distributed.get_world_size()
    distributed.all_gather_object(parts, found)
    return {key: value for part in parts for key, value in part.items()}


def _meet() -> None:
    """Form the group of all processes, and see one sum go round."""
    print(f"{BEGUN}process {os.environ['RANK']} on {platform.node()}", flush=True)
    backend, device = ("nccl", "cuda") if torch.cuda.is_available() else ("gloo", "cpu")
    distributed.init_process_group(backend, timeout=timedelta(minutes=SILENCE_MINUTES))
    processes = torch.ones((), device=device)
    distributed.all_reduce(processes)
    if is_main_process():
        print(f"{MET}{processes.item():.0f}", flush=True)


def _function(work: str) -> Any:
    module, _, name = work.rpartition(":")
    stage, numbered, _ = name.partition("-")
    function = getattr(importlib.import_module(module or "bettersynth.training.mgm.training"), stage)
    return functools.partial(function, rung=name) if numbered else function


def main() -> None:
    """One of torchrun's processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True, help="folder of the configuration's results")
    parser.add_argument("work", help=f"{', '.join(STAGES)}, or module:function")
    parser.add_argument("recipe")
    parser.add_argument("seed", type=int)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format=f"{OURS}%(message)s")
    forbid_model_code()
    forbid_network(f"{options.work} {options.recipe} {options.seed}")
    if is_main_process():
        logging.getLogger("bettersynth").setLevel(logging.INFO)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if distributed.is_torchelastic_launched():
        _meet()
    try:
        configuration = Configuration.model_validate(read_yaml(options.config))
        _function(options.work)(options.recipe, options.seed, configuration, Layout(options.results))
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


if __name__ == "__main__":
    main()

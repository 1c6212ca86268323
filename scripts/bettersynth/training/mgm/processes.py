"""One process for each GPU of a job: starting them, and what they tell each other.

A job that has one GPU, or none, does its work itself. With several, `run` starts this module, over several nodes of a
SLURM job once on each, which starts a process for each GPU and ends all of them when one fails.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import distributed

from bettersynth.configuration import read_yaml
from bettersynth.configuration.recipes import recipe_training
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import temporary_name
from bettersynth.runtime.network import forbid_network
from bettersynth.runtime.patches.model_code import forbid_model_code
from bettersynth.training.mgm.meeting import PLACE, all_bytes, forget_ranks, meet, meeting_place

logger = logging.getLogger(__name__)

STAGES = ("probe", "pretrain", "finetune")
"""Work by its short name (that of a further probe has a number, `probe-2`): functions of
`bettersynth.training.mgm.training`, which the kit's program can do as well."""

OURS = "bettersynth| "
"""Begins those lines of a process that are for people."""
BEGUN, MET = "bettersynth-begun| ", "bettersynth-met| "
"""Begin the lines by which each process says that it runs, and the first one that it has spoken with all."""

MODULE = (sys.executable, "-m", "bettersynth.training.mgm.processes")
"""The command of one process, or of a node's, without its arguments."""

MEETING_MINUTES = 10.0
"""How long processes may take from their start until all have met: whoever is not here by then does not come."""
SILENCE_MINUTES = 30
"""How long one may then be silent: the first writes a checkpoint while the others wait for it."""


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
    forget_ranks()
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
    file = temporary_name(layout.root / "configuration")  # in the folder of results, which every node sees
    try:
        file.write_text(configuration.model_dump_json(by_alias=True), encoding="utf-8")
        start = [*_on_nodes(nodes), *MODULE, f"--processes={count}", f"--nodes={nodes}"]
        options = ["--config", str(file), "--results", str(layout.root)]
        what = f"{work.rpartition(':')[2]} in {count} processes" + (f" on each of {nodes} nodes" if nodes > 1 else "")
        with meeting_place(nodes) as place:
            _relay([*start, *options, work, recipe, str(seed)], place, what, count * nodes)
    finally:
        file.unlink(missing_ok=True)


def _on_nodes(nodes: int) -> list[str]:
    """The beginning of a command that runs once on each node of this SLURM job; nothing for one node."""
    if nodes == 1:
        return []
    if "SLURM_JOB_ID" not in os.environ:
        raise ValueError(f"the job asks for {nodes} nodes, which only SLURM has: change `nodes` in its `set-resources`")
    return ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--cpu-bind=none", "--kill-on-bad-exit=1"]


def _start_here(count: int, nodes: int, arguments: list[str]) -> int:
    """Start this node's processes, and return when all have ended: 0, or the code of the first that failed.

    The others are ended then: they would wait for it.
    """
    first = count * (int(os.environ["SLURM_NODEID"]) if nodes > 1 else 0)
    started = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        for number in range(count):
            ranks = {
                "RANK": first + number,
                "LOCAL_RANK": number,
                "WORLD_SIZE": count * nodes,
                "LOCAL_WORLD_SIZE": count,
            }
            environment = os.environ | {name: str(value) for name, value in ranks.items()}
            environment["MASTER_ADDR"] = platform.node()  # asked for by accelerate, and not used: they have met
            started.append(psutil.Popen([*MODULE, *arguments], env=environment))
        waiting = started
        while waiting:
            gone, waiting = psutil.wait_procs(waiting, timeout=0.5)
            if failed := next((process.returncode for process in gone if process.returncode), 0):
                return abs(failed)
        return 0
    finally:
        _end_all(started)


def _relay(command: list[str], place: dict[str, str], what: str, processes: int) -> None:
    """Run the command; log its lines for people, and print the others, which a job's log collects.

    Its processes are ended, and `RuntimeError` says who was missing, when they have not all met within
    `MEETING_MINUTES`: torch would wait for half an hour or, for a step that SLURM never starts, for good.
    """
    here = str(Path(__file__).resolve().parents[3])
    environment = {
        **os.environ,
        **place,
        "PYTHONPATH": os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
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
    _end_all([psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)])


def _end_all(processes: list[psutil.Process]) -> None:
    for how, seconds in ((psutil.Process.terminate, 30), (psutil.Process.kill, 0)):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                how(process)
        processes = psutil.wait_procs(processes, timeout=seconds)[1]


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


def place_among_processes() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


def is_main_process() -> bool:
    """Whether this process is the one that writes results."""
    return place_among_processes()[0] == 0


def gathered(found: dict[Any, Any]) -> dict[Any, Any]:
    """What all processes found; numbers and texts."""
    if not distributed.is_initialized():
        return found
    parts = all_bytes(json.dumps(list(found.items())).encode())
    return {key: value for part in parts for key, value in json.loads(part)}


def _function(work: str) -> Any:
    module, _, name = work.rpartition(":")
    stage, numbered, _ = name.partition("-")
    function = getattr(importlib.import_module(module or "bettersynth.training.mgm.training"), stage)
    return functools.partial(function, rung=name) if numbered else function


def main() -> None:
    """A node's processes, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, help="start so many here, each for the same work")
    parser.add_argument("--nodes", type=int, default=1, help="on how many nodes this is started")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True, help="folder of the configuration's results")
    parser.add_argument("work", help=f"{', '.join(STAGES)}, or module:function")
    parser.add_argument("recipe")
    parser.add_argument("seed", type=int)
    options = parser.parse_args()
    if options.processes:
        files = [f"--config={options.config}", f"--results={options.results}"]
        arguments = [*files, options.work, options.recipe, str(options.seed)]
        sys.exit(_start_here(options.processes, options.nodes, arguments))
    logging.basicConfig(level=logging.ERROR, format=f"{OURS}%(message)s")
    forbid_model_code()
    forbid_network(f"{options.work} {options.recipe} {options.seed}")
    forget_ranks()
    if PLACE in os.environ:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        print(f"{BEGUN}process {os.environ['RANK']} on {platform.node()}", flush=True)
        processes = meet(SILENCE_MINUTES)
        if is_main_process():
            print(f"{MET}{processes}", flush=True)
    if is_main_process():
        logging.getLogger("bettersynth").setLevel(logging.INFO)
    try:
        configuration = Configuration.model_validate(read_yaml(options.config))
        _function(options.work)(options.recipe, options.seed, configuration, Layout(options.results))
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


if __name__ == "__main__":
    main()

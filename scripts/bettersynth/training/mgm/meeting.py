"""Where the processes of a job find each other, out of reach for other people on the same machines.

torch's own rendezvous listens on every address and unpickles what it is given: whoever reaches it runs programs as the
one who trains. Here one node's processes meet in a folder that its owner alone may open. Those of several meet at an
address of the first node, under keys that begin with a secret, and go on when all have proved that they know it. What
comes from another process is never unpickled.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import platform
import secrets
import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed import distributed_c10d

from bettersynth.core.own import scratch_folder

PLACE = "BETTERSYNTH_MEETING"
"""Environment variable by which a process of ours knows where to meet; others' programs set ranks, too."""
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables that transformers believes; a platform may have set them for a program that is not this one."""
OWN_INTERFACE = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""What processes of one node listen on, unless it is set already."""


@contextlib.contextmanager
def meeting_place(nodes: int) -> Iterator[dict[str, str]]:
    """Variables for the processes of a job that is to meet, while it lasts."""
    if nodes == 1:
        with scratch_folder() as folder:  # for its owner alone
            own = {name: os.environ.get(name, value) for name, value in OWN_INTERFACE.items()}
            yield {**own, PLACE: json.dumps({"file": str(folder / "store")})}
        return
    listener, secret = _listener(), secrets.token_hex(32)
    port = listener.getsockname()[1]
    options: dict[str, Any] = {"wait_for_workers": False, "master_listen_fd": listener.detach()}
    store = distributed.TCPStore(platform.node(), port, is_master=True, **options)
    try:
        yield {PLACE: json.dumps({"host": platform.node(), "port": port, "secret": secret})}
    finally:
        del store


def _listener() -> socket.socket:
    """A socket at this host's address; at all of them where its name stands for itself alone, as Debian has it."""
    family, *_, address = socket.getaddrinfo(platform.node(), 0, type=socket.SOCK_STREAM)[0]
    host = str(address[0])
    everywhere = host.startswith("127.") or host == "::1"
    return socket.create_server(("" if everywhere else host, 0), family=family)


def forget_ranks() -> None:
    """Take back what a platform says of processes that no launcher of ours started."""
    if PLACE not in os.environ:
        for name in RANKS:
            os.environ.pop(name, None)


def meet(minutes: float) -> int:
    """Form the group of all processes, and see each prove that it was sent; return how many there are.

    Raises RuntimeError when one was not.
    """
    place, rank, processes = json.loads(os.environ[PLACE]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed_c10d._unpickler = _refuse  # type: ignore[assignment]
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    group: dict[str, Any] = {"rank": rank, "world_size": processes, "timeout": timedelta(minutes=minutes)}
    distributed.init_process_group(backend, store=_store(place, group["timeout"]), **group)
    secret = place.get("secret", "").encode()
    proofs = all_bytes(hmac.digest(secret, str(rank).encode(), "sha256"))
    for number, proof in enumerate(proofs):
        if not hmac.compare_digest(proof, hmac.digest(secret, str(number).encode(), "sha256")):
            raise RuntimeError(f"process {number} is none of this job: another program on these nodes took its place")
    return len(proofs)


def _store(place: dict[str, Any], timeout: timedelta) -> distributed.Store:
    if "file" in place:
        return distributed.FileStore(place["file"], int(os.environ["WORLD_SIZE"]))
    store = distributed.TCPStore(place["host"], place["port"], is_master=False, timeout=timeout)
    return distributed.PrefixStore(place["secret"], store)


def _refuse(*_: Any) -> Any:
    raise RuntimeError("what other processes send is not unpickled: send bytes (`all_bytes`)")


def all_bytes(mine: bytes) -> list[bytes]:
    """What every process of the group sent, in their order."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = _all(torch.tensor([len(mine)], dtype=torch.int64, device=device))
    longest = max(int(size) for size in sizes)
    padded = torch.frombuffer(bytearray(mine.ljust(longest, b"\0")), dtype=torch.uint8).to(device)
    parts = _all(padded)
    return [part.cpu().numpy().tobytes()[: int(size)] for part, size in zip(parts, sizes, strict=True)]


def _all(mine: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, mine)
    return parts

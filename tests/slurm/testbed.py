"""A real SLURM on this machine, for tests and benchmarks: munge, slurmdbd on MariaDB, slurmctld and some slurmd.

Needs root and Debian's `slurm-wlm munge slurmdbd mariadb-server`, whose slurmd may run several times on one host. No
systemd and no cgroups: everything lives in one folder and every daemon is ended by its pid. GPUs are made up: device
files that nothing opens, so that SLURM allocates them and sets CUDA_VISIBLE_DEVICES as it does for real ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "mariadb-install-db", "sbatch", "sacct")
SYSTEM_CONFIGURATION = Path("/etc/slurm")
"""Snakemake's job step drops every SLURM_* variable, SLURM_CONF too: the configuration must be where SLURM looks."""
CONFIGURATION_FILES = ("slurm.conf", "gres.conf", "cgroup.conf")
LOCK = Path("/tmp/bettersynth-testbed.lock")


class TestbedError(RuntimeError):
    """The cluster cannot be started here, or a daemon did not come up; the message says which and why."""

    __test__ = False  # not a test, whatever its name looks like to pytest


def missing() -> str:
    """Why no cluster can be started on this machine; empty when one can."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (apt-get install slurm-wlm munge slurmdbd mariadb-server)"
    if os.geteuid() != 0:
        return "a cluster of one's own needs root"
    configuration = SYSTEM_CONFIGURATION / "slurm.conf"
    if configuration.exists() and not configuration.is_symlink():
        return f"{configuration} exists: this machine belongs to a cluster"
    return ""


class Testbed:
    """A running cluster; use it as a context manager. One at a time on a machine, a second one waits."""

    __test__ = False

    def __init__(self, nodes: int = 2, cpus: int = 16, gpus: int = 2, memory_mb: int = 200_000) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.folder.chmod(0o755)  # munge insists
        self.nodes = [f"n{number + 1}" for number in range(nodes)]
        self._cpus = cpus
        self._gpus = gpus
        self._memory_mb = memory_mb
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._lock: IO[str] | None = None

    def __enter__(self) -> Testbed:
        if reason := missing():
            raise TestbedError(reason)
        self._lock = LOCK.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self._end_jobs()
        for name in ("slurmctld", *[name for name in self._daemons if name.startswith("slurmd-")]):
            self._end(name)
        for pid in self._stray_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for name in ("slurmdbd", "mariadbd", "munged"):
            self._end(name)
        for name in CONFIGURATION_FILES:
            link = SYSTEM_CONFIGURATION / name
            if link.is_symlink() and link.readlink() == self.folder / name:
                link.unlink()
        shutil.rmtree(self.folder)
        if self._lock is not None:
            self._lock.close()

    # what a test does to it
    def command(self, *words: str, timeout: float = 30) -> str:
        """What a SLURM command prints. Raises subprocess.CalledProcessError, with its stderr, when it fails."""
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=timeout).stdout

    def crash_node(self, node: str) -> None:
        """Lose a node: its daemon and the jobs on it are killed at once."""
        self._daemons.pop(f"slurmd-{node}").kill()
        # those that watch jobs first, or they would still tell the controller how the jobs ended
        for pid in sorted(set(self._stray_pids(node)), key=lambda pid: not _is_watcher(pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def start_node(self, node: str) -> None:
        """Start a node's daemon (again)."""
        self._daemon(f"slurmd-{node}", "slurmd", "-D", "-N", node)

    def stop_controller(self) -> None:
        """End slurmctld; jobs run on, and nothing can be asked or submitted."""
        self._partition("down")  # see `start_controller`
        self._end("slurmctld")

    def start_controller(self) -> None:
        """Start slurmctld again; it takes jobs at once, and starts them as soon as the nodes have registered.

        Before, it does not know their GPUs: SLURM 22.05 gives a job none then, if another has just ended on its node.
        """
        self._daemon("slurmctld", "slurmctld", "-D", "-R")
        self._wait("slurmctld", self._succeeds("scontrol", "ping"))
        nodes = [node for node in self.nodes if f"slurmd-{node}" in self._daemons]
        self._wait("slurmd", lambda: all("Version=" in self.command("scontrol", "show", "node", n) for n in nodes))
        self._partition("up")

    def _partition(self, state: str) -> None:
        self.command("scontrol", "update", "partitionname=main", f"state={state}")

    # starting
    def _start(self) -> None:
        (self.folder / "state").mkdir()
        (self.folder / "munge").mkdir(mode=0o755)
        base = _free_ports(len(self.nodes) + 3)
        self._write_configuration(base)
        self._start_munge()
        self._start_accounting(base + len(self.nodes) + 1)
        self._daemon("slurmctld", "slurmctld", "-D", "-i")
        for node in self.nodes:
            self.start_node(node)
        self._wait("slurmctld", self._succeeds("scontrol", "ping"))
        self._wait("slurmd", lambda: self._idle() == len(self.nodes))

    def _write_configuration(self, port: int) -> None:
        host = platform.node().partition(".")[0]
        nodes = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port + 1 + number} CPUs={self._cpus} "
            f"CoresPerSocket={self._cpus} RealMemory={self._memory_mb} Gres=gpu:h100:{self._gpus} State=UNKNOWN"
            for number, node in enumerate(self.nodes)
        ]
        settings = {
            "ClusterName": "testbed",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": port,
            "SlurmUser": "root",
            "SlurmdUser": "root",
            "AuthInfo": f"socket={self._munge_socket}",
            "StateSaveLocation": self.folder / "state",
            "SlurmdSpoolDir": self.folder / "spool-%n",
            "SlurmctldPidFile": self.folder / "slurmctld.pid",
            "SlurmdPidFile": self.folder / "slurmd-%n.pid",
            "SlurmctldLogFile": self.folder / "slurmctld.log",
            "SlurmdLogFile": self.folder / "slurmd-%n.log",
            # without cgroups and systemd
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/linux",
            "JobAcctGatherFrequency": "task=2",
            "JobAcctGatherParams": "OverMemoryKill",
            "MpiDefault": "none",
            "SwitchType": "switch/none",
            # more CPUs than there are, and quick decisions
            "SlurmdParameters": "config_overrides",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU_Memory",
            "SchedulerParameters": "sched_interval=2,sched_min_interval=0,bf_interval=2,batch_sched_delay=0",
            "ReturnToService": 2,
            "KillWait": 2,
            # a step that ends while the controller is away does not take its node out of service
            "UnkillableStepTimeout": 600,
            "SlurmdTimeout": 10,
            "MinJobAge": 3600,
            "GresTypes": "gpu",
            "AccountingStorageType": "accounting_storage/slurmdbd",
            "AccountingStorageHost": "127.0.0.1",
            "AccountingStoragePort": port + len(self.nodes) + 1,
            "AccountingStoragePass": self._munge_socket,
            "AccountingStorageTRES": "gres/gpu",
            "AccountingStoreFlags": "job_comment",
        }
        lines = [f"{key}={value}" for key, value in settings.items()]
        lines += [*nodes, "PartitionName=main Nodes=ALL Default=YES MaxTime=2-0 DefMemPerCPU=100 State=UP"]
        self._write("slurm.conf", lines)
        devices = [self.folder / f"gpu{number}" for number in range(self._gpus)]
        for device in devices:
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        self._write(
            "gres.conf",
            [f"NodeName={node} Name=gpu Type=h100 File={device}" for node in self.nodes for device in devices],
        )
        self._write("cgroup.conf", ["CgroupAutomount=no"])
        SYSTEM_CONFIGURATION.mkdir(exist_ok=True)
        for name in CONFIGURATION_FILES:
            (SYSTEM_CONFIGURATION / name).unlink(missing_ok=True)
            (SYSTEM_CONFIGURATION / name).symlink_to(self.folder / name)

    def _write(self, name: str, lines: list[str], mode: int = 0o644) -> None:
        path = self.folder / name
        path.write_text("\n".join(lines) + "\n")
        path.chmod(mode)

    @property
    def _munge_socket(self) -> Path:
        return self.folder / "munge" / "socket"

    def _start_munge(self) -> None:
        folder = self._munge_socket.parent
        key = folder / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        files = {"key-file": key, "socket": self._munge_socket, "pid-file": folder / "pid"}
        files |= {"log-file": folder / "log", "seed-file": folder / "seed"}
        self._daemon("munged", "munged", "--foreground", *(f"--{option}={path}" for option, path in files.items()))
        self._wait("munged", self._succeeds("munge", "-S", str(self._munge_socket), "-n"))

    def _start_accounting(self, port: int) -> None:
        data, database = self.folder / "mariadb", self.folder / "mariadb.socket"
        install = ["mariadb-install-db", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"]
        with (self.folder / "mariadb-install-db.out").open("w") as out:
            subprocess.run([*install, f"--datadir={data}"], stdout=out, stderr=out, check=True)
        options = {"datadir": data, "socket": database, "pid-file": self.folder / "mariadbd.pid"}
        self._daemon(
            "mariadbd",
            *("mariadbd", "--no-defaults", "--user=root", "--skip-networking", "--innodb-lock-wait-timeout=900"),
            *(f"--{option}={path}" for option, path in options.items()),
        )
        client = ["--no-defaults", "--user=root", f"--socket={database}"]
        self._wait("mariadbd", self._succeeds("mariadb-admin", *client, "ping"))
        self.command("mariadb", *client, "--execute", "create database slurm_acct_db")
        self._write(
            "slurmdbd.conf",
            [
                "AuthType=auth/munge",
                f"AuthInfo=socket={self._munge_socket}",
                "DbdHost=localhost",
                "DbdAddr=127.0.0.1",
                f"DbdPort={port}",
                "SlurmUser=root",
                "StorageType=accounting_storage/mysql",
                "StorageHost=localhost",
                "StorageUser=root",
                "StorageLoc=slurm_acct_db",
                f"LogFile={self.folder / 'slurmdbd.log'}",
                f"PidFile={self.folder / 'slurmdbd.pid'}",
            ],
            mode=0o600,
        )
        self._daemon("slurmdbd", "slurmdbd", "-D", MYSQL_UNIX_PORT=str(database))
        self._wait("slurmdbd", lambda: _listens(port))

    # daemons
    def _daemon(self, name: str, *command: str, **environment: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env={**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), **environment},
            )

    def _end(self, name: str) -> None:
        daemon = self._daemons.pop(name, None)
        if daemon is None:
            return
        daemon.terminate()
        try:
            daemon.wait(timeout=5)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _end_jobs(self) -> None:
        if "slurmctld" not in self._daemons:
            return
        self.command("scancel", "--user=root", timeout=5)
        deadline = time.monotonic() + 5
        while self.command("squeue", "--noheader", "--states=running,completing", timeout=5).strip():
            if time.monotonic() > deadline:
                return
            time.sleep(0.2)

    def _stray_pids(self, node: str | None = None) -> Iterator[int]:
        """Processes of jobs on this cluster's nodes (or one of them), and the slurmstepd that watch them."""
        ours = f"SLURM_CONF={self.folder / 'slurm.conf'}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                environment = (folder / "environ").read_bytes().split(b"\0")
                names = [name.encode() for name in ([node] if node else self.nodes)]
                if ours in environment and any(b"SLURMD_NODENAME=" + name in environment for name in names):
                    yield int(folder.name)
                    parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                    if _is_watcher(int(parent)):
                        yield int(parent)

    def _idle(self) -> int:
        return len(self.command("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N").split())

    @staticmethod
    def _succeeds(*command: str) -> Callable[[], bool]:
        return lambda: subprocess.run(command, capture_output=True, timeout=30).returncode == 0

    def _wait(self, name: str, ready: Callable[[], bool], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                out = "\n".join(path.read_text()[-2000:] for path in self.folder.glob(f"{name}*.[ol][uo][tg]"))
                raise TestbedError(f"{name} did not come up within {seconds:.0f} s:\n{out}")
            time.sleep(0.1)


def _is_watcher(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text() == "slurmstepd\n"
    return False  # it has ended


def _free_ports(count: int) -> int:
    """The first of so many neighbouring ports that nothing listens on."""
    for base in range(16_817, 60_000, count):
        if not any(_listens(port) for port in range(base, base + count)):
            return base
    raise TestbedError("no free ports")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0

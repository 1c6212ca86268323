"""A run that wanders: scored on three machines, trained on one without a network, evaluated at home.

Every machine is a folder with its own HOME and, where that is permitted, a network namespace with no interface but
loopback. What is carried is a bundle; nothing else is shared but the environment, which `make setup OFFLINE=1` makes
from staged wheels. The kernel counts what tries to leave a namespace.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from workflow import CONFIGURATION, MODELS, ROOT

from bettersynth.deploy.places import CODE_PARTS
from miniature.render import render_world

pytestmark = pytest.mark.workflow

TRAINED = "results/small/runs/wordy/seed-1/finetune/card.json"
CHECKS = {"preflight", "instructions", "questions"}
"""Rules that look at what stage 2 and the benchmarks read, before stage 1."""
IN_A_NAMESPACE = ["unshare", "--map-root-user", "--net"]
COUNTED = ["sh", "-c", '"$@"; status=$?; cat /proc/net/snmp /proc/net/snmp6 2>/dev/null > "$0"; exit $status']


def can_leave_the_network() -> bool:
    """Whether this machine lets us start a process without any network interface."""
    return shutil.which("unshare") is not None and subprocess.run([*IN_A_NAMESPACE, "true"]).returncode == 0


def attempts(counters: str) -> int:
    """Connections and datagrams, look-ups of names among them, for which a namespace had no route."""
    names, values = re.findall(r"^Ip: (.*)$", counters, re.MULTILINE)
    found = int(dict(zip(names.split(), values.split(), strict=True))["OutNoRoutes"])
    return found + sum(map(int, re.findall(r"^Ip6OutNoRoutes\s+(\d+)$", counters, re.MULTILINE)))


class Machine:
    """A folder, a HOME, and what ran there, without a network."""

    def __init__(self, folder: Path, python: Path = Path(sys.executable)) -> None:
        self.folder = folder
        self.python = python
        self.counters = folder / "network.txt"
        self.prefix = [*IN_A_NAMESPACE, *COUNTED, str(self.counters)] if can_leave_the_network() else []
        self.ran: Counter[str] = Counter()
        folder.mkdir(exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{self.python.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "scripts"),
            "HOME": str(self.folder / "home"),
            "XDG_CACHE_HOME": str(self.folder / "home" / "cache"),
            "USER": self.folder.name,
            "SLURM_CONF": os.devnull,  # Snakemake's plugin asks the machine's own SLURM, where there is one
        }

    def call(self, *command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [*self.prefix, *map(str, command)], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        self.ran.update(re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)$", result.stderr, re.MULTILINE))
        if check and result.returncode:
            raise AssertionError(f"{command} failed:\n{result.stdout}\n{result.stderr}")
        if self.prefix and (found := attempts(self.counters.read_text())):
            raise AssertionError(f"{command} tried {found} times to leave the machine:\n{result.stderr}")
        return result

    def stage(self) -> bool:
        """Stage everything, wheels too, before the network is left; False when pip finds no packages here."""
        pip = [sys.executable, "-m", "pip"]
        cache = subprocess.run([*pip, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
        command = [sys.executable, "-m", "bettersynth", "stage", "--config", "small.yaml", "--wheels", "cpu"]
        environment = {**self.environment, "PIP_CACHE_DIR": cache}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True).returncode == 0

    def snakemake(self, *arguments: str, check: bool = True) -> str:
        snakefile = self.folder / "Snakefile"  # of a bundle, with its own code
        command = ["snakemake", "--snakefile", snakefile if snakefile.exists() else ROOT / "Snakefile"]
        command += ["--workflow-profile", ROOT / "profiles" / "default", "--configfile", "small.yaml", "--cores", "2"]
        result = self.call(*command, *arguments, check=check)
        return result.stdout + result.stderr

    def script(self, name: str, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.call(self.python, "-m", "bettersynth", f"{name}", *arguments, check=check)

    def bundle(self, *arguments: object) -> str:
        return self.script("bundle", "--config", "small.yaml", *arguments).stdout

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


def shift_times(folder: Path, days: int) -> None:
    """Change the times of a run's files."""
    for path in [*folder.glob("results/**/*"), *folder.glob("data/**/*")]:
        times = path.stat()
        os.utime(path, (times.st_atime + days * 86_400, times.st_mtime + days * 86_400))


def configuration() -> dict:
    small = {key: copy.deepcopy(CONFIGURATION[key]) for key in ("pool", "trainset", "training", "evaluation")}
    small["models"] = {name: {"path": f"models/{name}"} for name in ("clip", "convnext", "gemma")}
    small["operators"] = {"words_num": {"op": "words_num_filter"}}
    small["scoring"] = {"shards_per_job": 1}
    small["datasets"] = {"wordy": {"from": "pool", "filter": {"words_num": {"min": 6}}}}
    small["recipes"] = {"wordy": {"dataset": "wordy", "seeds": [1]}}
    return small


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Iterator[Machine]:
    """A machine with everything, set up from staged wheels where there are any, on which the pool is taken in."""
    machine = Machine(tmp_path_factory.mktemp("home"))
    folder = machine.folder
    subprocess.run(["cp", "-r", *(ROOT / part for part in CODE_PARTS), folder], check=True)
    render_world(folder / "data", records=40, second_records=8, textvqa=6, mmbench=4, instructions=16, faults=True)
    for name in ("clip", "convnext", "gemma"):
        shutil.copytree(MODELS / name, folder / "models" / name)
    (folder / "small.yaml").write_text(yaml.safe_dump(configuration(), sort_keys=False))
    if machine.stage():
        base = Path(sys.base_prefix) / "bin" / Path(sys.executable).name
        machine.call("make", "setup", "OFFLINE=1", f"PYTHON={base}")
        machine.python = folder / ".venv" / "bin" / "python"
    else:
        machine.script("stage", "--config", "small.yaml")
    machine.snakemake("pool")
    yield machine
    for large in (".venv", "stage/wheels"):
        shutil.rmtree(folder / large, ignore_errors=True)


def test_a_machine_without_a_network_is_set_up_from_staged_wheels(home):
    if not home.prefix:
        pytest.skip("this machine does not permit network namespaces (unshare --net)")
    if home.python == Path(sys.executable):
        pytest.skip("pip finds no packages to stage here")
    assert "as stage/small.json lists it" in home.call("make", "verify", "CONFIG=small.yaml").stdout
    program = "import data_juicer, snakemake, torch, transformers; print(torch.__file__)"
    assert home.call(home.python, "-c", program).stdout.startswith(str(home.folder / ".venv"))


@pytest.mark.parametrize("attempt", ["socket.create_connection(('192.0.2.1', 443))", "socket.getaddrinfo('a.test', 1)"])
def test_an_attempt_to_leave_the_machine_is_counted(tmp_path, attempt):
    machine = Machine(tmp_path / "machine")
    if not machine.prefix:
        pytest.skip("this machine does not permit network namespaces (unshare --net)")
    swallowed = f"import socket\ntry: {attempt}\nexcept OSError: pass"
    with pytest.raises(AssertionError, match=r"tried \d+ times to leave the machine"):
        machine.call(sys.executable, "-c", swallowed)


@pytest.fixture(scope="module")
def scored(home, tmp_path_factory) -> Machine:
    """The same machine after its pool was scored on three others."""
    over = tmp_path_factory.mktemp("over")
    for number in (1, 2, 3):
        home.bundle("--until", "score_plain", "--part", f"{number}/3", "--to", over / f"{number}.tar.zst")
    for number in (1, 2, 3):
        scorer = Machine(tmp_path_factory.mktemp(f"scorer{number}"), home.python)
        output = scorer.script("unbundle", "--yes", "--from", over / f"{number}.tar.zst").stdout
        targets = re.search(r"next: snakemake .* -- (.*)", output)[1].split()
        assert len(targets) in (1, 2) and not (scorer.folder / "data" / "mgm_pretrain_stage_1.jsonl").exists()
        scorer.snakemake(*targets)
        assert set(scorer.ran) == {"score_plain"}
        scorer.bundle("--results", "--to", over / f"scores-{number}.tar.zst")
        home.script("unbundle", "--results", "--from", over / f"scores-{number}.tar.zst")
        home.ran += scorer.ran
    return home


@pytest.fixture(scope="module")
def wandered(scored, tmp_path_factory) -> tuple[Machine, Machine, Machine, Path]:
    """Home after training elsewhere; the other machine; a copy of home from before; and what was carried."""
    scored.snakemake("trainsets")
    alone = Machine(tmp_path_factory.mktemp("alone"), scored.python)
    large = shutil.ignore_patterns(".venv", "wheels")
    shutil.copytree(scored.folder, alone.folder, symlinks=True, ignore=large, dirs_exist_ok=True)
    alone.ran += scored.ran

    over = tmp_path_factory.mktemp("over")
    shift_times(scored.folder, days=3)  # as if this machine's clock were ahead
    scored.bundle("--recipe", "wordy", "--until", "finetune", "--models", "--split", "1M", "--to", over / "to.tar.zst")
    shift_times(scored.folder, days=-3)
    trainer = Machine(tmp_path_factory.mktemp("trainer"), scored.python)
    trainer.script("unbundle", "--yes", "--from", over / "to.tar.zst")
    return scored, trainer, alone, over


def test_an_altered_byte_is_found_before_any_training(wandered):
    _, trainer, _, _ = wandered
    weights = trainer.folder / "models" / "gemma" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    output = trainer.snakemake(TRAINED, check=False)
    assert "models/gemma/model.safetensors: altered: sha256" in output
    assert "make stage CONFIG=" in output
    assert trainer.ran.keys() <= CHECKS and not (trainer.folder / TRAINED).exists()
    assert "models/gemma/model.safetensors: altered" in (
        trainer.script("verify", "--config", "small.yaml", check=False).stdout
    )
    weights.write_bytes(whole)


def test_trained_elsewhere_evaluated_at_home(wandered):
    home, trainer, alone, over = wandered
    trainer.snakemake(TRAINED)
    assert trainer.ran == {"preflight": 1, "instructions": 1, "questions": 2, "pretrain": 1, "finetune": 1}
    logs = [path.read_text() for path in (trainer.folder / "logs").rglob("*.log")]
    assert logs and not any("tried to reach" in log for log in logs)
    shift_times(trainer.folder, days=-3)  # as if that machine's clock were behind
    trainer.bundle("--results", "--to", over / "back.tar.zst")
    marker = home.folder / ".snakemake" / "incomplete" / urlsafe_b64encode(TRAINED.encode()).decode()
    marker.touch()  # as if a training had been killed here before
    home.script("unbundle", "--results", "--from", over / "back.tar.zst")
    home.snakemake("all")
    assert "Nothing to be done" in home.snakemake("--dry-run", "all")
    once = {"ingest_stage_1": 1, "ingest_stage_2": 1, "pool_index": 1, "score_plain": 4, "scores_of": 1, "dataset": 1}
    once |= {
        "trainset": 1,
        "preflight": 1,
        "instructions": 1,
        "questions": 2,
        "pretrain": 1,
        "finetune": 1,
        "answer": 1,
        "score_answers": 2,
        "leaderboard": 1,
        "early_loss": 1,
        "report": 1,
    }
    ran = home.ran + trainer.ran
    assert {rule: count for rule, count in ran.items() if rule in once} == once
    assert not {rule for rule in ran if rule not in once} - {"pool", "trainsets", "all"}

    alone.snakemake("all")
    assert without_seconds(alone) == without_seconds(home)
    finetuned = "results/small/runs/wordy/seed-1/finetune/checkpoint/model.safetensors"
    assert alone.read(finetuned) == home.read(finetuned)


def without_seconds(machine: Machine) -> object:
    def strip(value):
        if isinstance(value, dict):
            return {key: strip(entry) for key, entry in value.items() if "seconds" not in key}
        return [strip(entry) for entry in value] if isinstance(value, list) else value

    return strip(json.loads(machine.read("results/small/report/leaderboard.json")))


def test_a_bundle_holds_what_its_jobs_need_and_nothing_else(wandered):
    _, trainer, _, _ = wandered
    folder = trainer.folder
    assert not (folder / "results" / "small" / "datasets").exists()
    assert not (folder / "data" / "stage_1.json").exists()
    assert (folder / "data" / "textvqa").exists(), "its questions are looked at before stage 1"
    trainset = json.loads(trainer.read("results/small/trainsets/wordy.json"))
    images = {path.relative_to(folder / "data").as_posix() for path in (folder / "data" / "images").rglob("*.*")}
    assert images == {entry["image"] for entry in trainset}


def test_opening_it_twice_changes_nothing(wandered):
    _, trainer, _, over = wandered
    assert trainer.script("unbundle", "--yes", "--from", over / "to.tar.zst").stdout.startswith("0 files unpacked")


def test_other_bytes_are_a_conflict(wandered, tmp_path):
    _, trainer, _, over = wandered
    other = Machine(tmp_path / "other")
    other.script("unbundle", "--yes", "--from", over / "to.tar.zst")
    (other.folder / "results/small/trainsets/wordy.json").write_text("[]")
    refused = other.script("unbundle", "--yes", "--from", over / "to.tar.zst", check=False)
    assert refused.returncode != 0
    assert "results/small/trainsets/wordy.json: here with other bytes" in refused.stderr
    assert other.read("results/small/trainsets/wordy.json") == b"[]"
    refused = other.script("unbundle", "--results", "--replace", "--from", over / "back.tar.zst", check=False)
    assert "results/small/trainsets/wordy.json: the results were made from another" in refused.stderr
    other.script("unbundle", "--yes", "--replace", "--from", over / "to.tar.zst")
    assert other.read("results/small/trainsets/wordy.json") == trainer.read("results/small/trainsets/wordy.json")
    mixed = other.script("unbundle", "--yes", "--from", over / "back.tar.zst", check=False)
    assert "make merge FROM=" in mixed.stderr

"""What `make doctor` finds in a cluster, and what is refused before it is submitted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bettersynth.configuration import load
from bettersynth.core.layout import Layout
from bettersynth.slurm import doctor, site
from bettersynth.slurm.queue import SlurmError
from bettersynth.slurm.site import Request
from bettersynth.workflow.jobs import Jobs
from bettersynth.workflow.jobs.specification import Kind

ROOT = Path(__file__).resolve().parents[2]

JOBS = Jobs(load(ROOT / "config" / "miniature.yaml"), Layout("results/miniature"))
RULES = {rule.name: rule.resources for rule in JOBS if rule.kind is not Kind.LIGHT}


def changes_to_make() -> str:
    """What the doctor finds amiss."""
    found = doctor.examine(ROOT, RULES, JOBS.on_gpu, 16)
    return "\n".join(finding.text for finding in found if not finding.ok)


# A small site: GPUs in a partition of their own, no database of jobs.
COMMANDS = {
    "sinfo": """cat <<'END'
cpu|up|2-00:00:00|64|256000|(null)|8|cpu*
gpu|up|12:00:00|32|500000|gpu:a100:4(S:0-1)|3|gpu
gpu|up|12:00:00|16|90000|gpu:2|1|gpu
old|down|infinite|4|8000|(null)|2|old
END""",
    "scontrol": """cat <<'END'
AccountingStorageType   = accounting_storage/none
AccountingStorageEnforce = none
MinJobAge               = 300 sec
END""",
    "srun": """echo '{"host": "g1", "python": "3.11.7", "folder": false, "torch": "2.13.0", "cuda": true}'""",
}


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Path:
    for name, body in COMMANDS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (Request(cpus=64, memory_mb=256_000, minutes=2880), ""),
        (Request(cpus=65), "65 CPUs"),
        (Request(gpus=1), "partition `cpu` has 8 × 64 CPUs, 256000 MB, no GPU"),
        (Request(gpus=4, partition="gpu"), ""),
        (Request(gpus=4, memory_mb=90_000, gpu_model="a100", partition="gpu"), ""),
        (Request(gpus=5, partition="gpu"), "5 GPUs on one node"),
        (Request(gpus=1, gpu_model="h100", partition="gpu"), "of model h100"),
        (Request(gpus=12, nodes=3, mpi="srun", partition="gpu"), ""),
        (Request(gpus=12, nodes=4, mpi="srun", partition="gpu"), "3 GPUs on each of 4 nodes"),
        (Request(gpus=8, nodes=2, partition="gpu"), "2 nodes without `mpi: srun`"),
        (Request(gpus=2, partition="cpu,gpu"), ""),
        (Request(gpus=5, partition="cpu,gpu"), "partition `cpu`"),
        (Request(minutes=721, partition="gpu"), "ends jobs after 720 min"),
        (Request(partition="fast"), "partition `fast`, which there is not; there are: cpu, gpu, old"),
        (Request(partition="old"), "takes no jobs"),
    ],
)
def test_a_request_is_refused_with_what_there_is(cluster, request_, why):
    refusal = site.look().refusal(request_)
    assert why in refusal and bool(refusal) == bool(why)


def test_what_would_wait_for_ever_is_refused_before_it_is_submitted(cluster):
    site.refuse_impossible({"score_plain": Request(cpus=4)}, "squeue")
    with pytest.raises(SlurmError, match=r"pretrain: .* 1 GPUs on one node(.|\n)*make doctor"):
        site.refuse_impossible({"pretrain": Request(gpus=1)}, "squeue")
    with pytest.raises(SlurmError, match="slurm-status-command: squeue"):
        site.refuse_impossible({}, "sacct")


def test_where_the_plugin_chooses_partitions_any_of_them_will_do(cluster):
    listed = cluster / "partitions.yaml"
    listed.write_text("partitions:\n  cpu: {max_runtime: 2880}\n  gpu: {max_gpu: 4}\n")
    site.refuse_impossible({"pretrain": Request(gpus=1)}, "squeue", listed)
    with pytest.raises(SlurmError, match="9 GPUs"):
        site.refuse_impossible({"pretrain": Request(gpus=9)}, "squeue", listed)


@pytest.mark.parametrize(("limit", "minutes"), [("30:00", 30), ("12:00:00", 720), ("2-01:30:00", 2970)])
def test_slurms_times_are_understood(limit, minutes):
    assert site.minutes(limit) == minutes
    assert site.minutes("infinite") == site.UNLIMITED


def test_the_doctor_says_what_to_change(cluster):
    changes = changes_to_make()
    assert "slurm-status-command: squeue" in changes
    assert (
        "attempt 1 of finetune, pretrain, probe: 8 CPUs" in changes and "`set-resources` in profiles/slurm" in changes
    )
    assert "g1 does not see" in changes


def test_the_doctor_works_out_what_snakemake_would_submit():
    profile = doctor.read_profiles()
    second = doctor.rule_requests(RULES, profile, 16, 2)
    assert second["score_neural"] == Request(cpus=8, memory_mb=32_000, minutes=190, gpus=1)
    assert second[doctor.OTHERS].memory_mb == second["export"].memory_mb == 8000
    changed = {"finetune": {"runtime": "2d", "mem": "64GB", "gres": "gpu:a100:2"}, "answer": {"runtime": "9 * attempt"}}
    asked = doctor.rule_requests(RULES, {**profile, "set-resources": changed}, 16, 2)
    assert asked["finetune"] == Request(cpus=8, memory_mb=64_000, minutes=2880, gpus=1)
    assert asked["answer"] == Request(cpus=4, memory_mb=48_000, minutes=18, gpus=1)


def test_the_doctor_finds_what_of_the_profiles_would_come_to_nothing(cluster, tmp_path, monkeypatch):
    changed = {"finetun": {"gpu": 4}, "finetune": {"gpu": 0}}
    for name, more in (("slurm", {"keep-going": False}), ("default", {"set-resources": changed})):
        profile = yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text()) | more
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(profile))
    monkeypatch.setattr(doctor, "PROFILES", tmp_path)
    changes = changes_to_make()
    assert "`keep-going` of profiles/slurm is not read" in changes
    assert "`set-resources` names finetun, and no rule is called so" in changes
    assert "attempt 1 of finetune: needs a GPU and asks for none" in changes


def test_a_rule_that_needs_a_gpu_is_not_submitted_without(cluster):
    site.refuse_impossible({"answer": Request.of({"gres": "gpu:a100:2", "slurm_partition": "gpu"}.get)}, "squeue")
    with pytest.raises(SlurmError, match="answer, probe: needs a GPU and asks for none"):
        site.refuse_impossible({name: Request() for name in ("probe", "answer", "export")}, "squeue", None, JOBS.on_gpu)


def test_without_slurm_the_doctor_says_how_to_run_here(tmp_path):
    command = [sys.executable, "-m", "bettersynth", "doctor"]
    environment = {"PATH": str(tmp_path), "PYTHONPATH": str(ROOT / "scripts")}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 1 and "make run" in result.stdout

"""What is published can be read by whom the umask lets, and gone on with by another person of the group."""

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bettersynth.core.publish import publish, publish_folder
from bettersynth.runtime.lease import Lease
from bettersynth.training.mgm import checkpoints

GROUP, FIRST, SECOND = 23_000, 23_001, 23_002
AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can be two other people")


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_published_files_have_the_mode_of_files_that_are_simply_opened(tmp_path, umask):
    before = os.umask(umask)
    try:
        with publish(tmp_path / "connector.safetensors") as temporary:
            save_file({"a": torch.ones(2)}, temporary)
        with publish_folder(tmp_path / "checkpoint") as temporary:
            save_file({"a": torch.ones(2)}, temporary / "model.safetensors")
            (temporary / "config.json").write_text("{}")
    finally:
        os.umask(before)
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask, file


def as_user(user, work, *arguments):
    """Do work in a process of another user of the group, who lets the group write."""
    process = os.fork()
    if not process:
        try:
            os.setgroups([])
            os.setgid(GROUP)
            os.setuid(user)
            os.umask(0o002)
            work(*arguments)
        except BaseException as error:
            print(f"user {user}: {type(error).__name__}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def train(folder, step):
    """Go on from the last checkpoint, where there is one, and leave the next."""
    lease = Lease.acquire(folder / "leases" / "pretrain.json")
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    if found := checkpoints.latest_checkpoint(folder / "stage", {"seed": 1}):
        checkpoints.load_weights(found, model)
        checkpoints.load_optimizer(found, optimizer, schedule)
        assert checkpoints.step_of(found) == step - 1
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = checkpoints.TrainerState(global_step=step)
    checkpoints.save_checkpoint(folder / "stage", {"seed": 1}, model, optimizer, schedule, state)
    with publish(folder / "connector.safetensors") as temporary:
        save_file({"weight": model.weight.detach()}, temporary)
    if step != 1:  # the first is killed: its lease stays
        lease.release()


@AS_ROOT
@pytest.mark.models
def test_two_people_go_on_with_each_others_runs_and_a_third_reads_them(tmp_path):
    train(tmp_path, 1)  # what is imported only now may be unreadable to others
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folders are root's alone
    try:
        os.chown(folder, FIRST, GROUP)
        folder.chmod(0o2775)
        for step, user in ((1, FIRST), (2, SECOND), (3, FIRST)):
            as_user(user, train, folder, step)
        assert [path.name for path in (folder / "stage").iterdir()] == ["checkpoint-3"]
        assert {path.stat().st_gid for path in folder.rglob("*")} == {GROUP}
        os.chown(folder, FIRST, GROUP)
        as_user(SECOND + 1, lambda: load_file(folder / "connector.safetensors"))
    finally:
        shutil.rmtree(folder)

"""`make stage` and `make verify` with the real hub client, against a hub on this machine."""

from __future__ import annotations

import copy
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
import warm
import yaml
from hub_server import HubServer, commit
from safetensors.numpy import load, load_file, save
from wheels import write_source_package, write_wheel
from workflow import CONFIGURATION, MODELS, ROOT, link_checkout, typed

from bettersynth.core.model_files import file_problem, folder_problems
from bettersynth.core.publish import sha256_bytes
from bettersynth.core.resources import StagingError
from bettersynth.deploy import pickles
from bettersynth.deploy.fetch import Step, require_space, write_commits
from bettersynth.deploy.hub import choose_files

THIS_PLATFORM = sysconfig.get_platform().replace("-", "_")
CLIP_WEIGHTS = "models/clip/model.safetensors"
SHIPPED = {"clip": MODELS / "clip", "look": MODELS / "aesthetics-predictor-v2-linear"}


class Machine:
    """A working directory with a configuration, its own HOME, and a hub (or none)."""

    def __init__(self, folder, endpoint):
        self.folder = folder
        self.checkout = ROOT
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PIP_"))},
            "HOME": str(folder / "home"),
            "XDG_CACHE_HOME": str(folder / "home" / "cache"),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }
        models = {
            name: {"path": f"models/{name}", "hub": f"tiny/{name}", "revision": commit(f"tiny/{name}")}
            for name in SHIPPED
        }
        self.configuration = {
            "pool": CONFIGURATION["pool"],
            "models": {**models, "unused": {"path": "models/unused", "hub": "tiny/unused"}},
            "operators": {
                "similarity": {"op": "image_text_similarity_filter", "model": "clip"},
                "beauty": {"op": "image_aesthetics_filter", "model": "look"},
            },
        }
        self._write([file["path"] for file in CONFIGURATION["pool"]["files"]] + CONFIGURATION["pool"]["restore"])

    def _write(self, names):
        for name in names:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)

    def train_with(self, **architecture):
        """In the place of operators, a recipe whose model is made of these parts."""
        parts = copy.deepcopy({name: CONFIGURATION[name] for name in ("training", "evaluation")})
        parts["training"]["architecture"] |= architecture
        del parts["evaluation"]["mmbench"]
        self.configuration |= parts | {"operators": {}, "recipes": {"all": {"dataset": "pool"}}}
        self._write([parts["training"]["finetune"]["instructions"]])
        self._write(parts["evaluation"]["textvqa"][name] for name in ("questions", "annotations"))

    def __call__(self, script, *arguments):
        (self.folder / "small.yaml").write_text(yaml.safe_dump(self.configuration))
        environment = self.environment | {"PYTHONPATH": str(self.checkout / "scripts")}
        command = [script, "--config", "small.yaml", *arguments]
        return warm.bettersynth(*command, folder=self.folder, environment=environment)

    def stage(self, *arguments):
        result = self("stage", *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    @property
    def manifest(self):
        return json.loads((self.folder / "stage" / "small.json").read_text())


@pytest.fixture
def hub():
    server = HubServer()
    for name, folder in SHIPPED.items():
        server.add(f"tiny/{name}", folder, **{"pytorch_model.bin": b"\x80\x02", "onnx/model.onnx": b"x"})
    yield server
    server.shutdown()


@pytest.fixture
def machine(tmp_path, hub):
    return Machine(tmp_path, hub.endpoint)


def test_stages_what_is_needed_and_nothing_else(machine):
    machine.stage()
    for name, folder in SHIPPED.items():
        staged = {path.name: path.read_bytes() for path in (machine.folder / "models" / name).iterdir()}
        shipped = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".md"}
        assert staged == shipped
    assert sorted(path.name for path in (machine.folder / "models").iterdir()) == sorted(SHIPPED)
    entry = machine.manifest["models"]["clip"]
    assert (entry["licence"], entry["source"], entry["revision"]) == ("apache-2.0", "hub", commit("tiny/clip"))
    assert machine("verify").returncode == 0


def test_a_second_call_asks_nobody(machine, hub):
    machine.stage()
    hub.shutdown()
    hub.server_close()
    assert "clip: staged" in machine.stage()


def test_a_dry_run_estimates_and_fetches_nothing(machine, hub):
    output = machine.stage("--dry-run")
    assert "clip: to fetch" in output and "MB" in output
    assert hub.served == [] and not (machine.folder / "models").exists()


def test_a_transfer_that_breaks_off_goes_on_where_it_was(machine, hub):
    large = save({"weight": np.arange(6_000_000, dtype=np.float32)})  # the client writes 10 MB at a time
    hub.repositories["tiny/clip"]["model.safetensors"] = large
    hub.faults["model.safetensors"] = ["cut"] * 20
    result = machine("stage")
    assert "broke off" in result.stderr and "`make stage CONFIG=small.yaml` goes on from there" in result.stderr
    assert not (machine.folder / "models" / "clip").exists(), "half a model is not at the model's path"
    hub.faults.clear()
    hub.served.clear()
    machine.stage()
    assert hub.served[0][0] == "model.safetensors" and hub.served[0][1] >= 10_000_000
    assert (machine.folder / CLIP_WEIGHTS).read_bytes() == large


def test_an_altered_transfer_is_fetched_again(machine, hub):
    hub.faults["model.safetensors"] = ["alter"]
    machine.stage()
    assert (machine.folder / CLIP_WEIGHTS).read_bytes() == (MODELS / "clip" / "model.safetensors").read_bytes()


def test_a_hub_that_always_alters_is_not_believed(machine, hub):
    hub.faults["config.json"] = ["alter"] * 20
    result = machine("stage")
    assert "tiny/clip: config.json: other bytes than the hub states" in result.stderr
    assert not (machine.folder / "models" / "clip").exists()


@pytest.mark.parametrize("name", ["../resources.json", "/etc/x.json", "a/../../x.json", "x\n.json", "./config.json"])
def test_a_hub_that_names_files_elsewhere_changes_nothing(machine, hub, name):
    """It would have them removed, to be fetched: a diffusers folder's files may lie in folders."""
    hub.repositories["tiny/clip"] |= {name: b"{}", "model_index.json": b"{}"}
    (machine.folder / "models").mkdir()
    (machine.folder / "models" / "resources.json").write_text("{}")
    result = machine("stage")
    assert result.returncode == 1 and "no name of a file in a folder" in result.stderr
    assert [path.name for path in (machine.folder / "models").iterdir()] == ["resources.json"]
    assert len(result.stderr.splitlines()) == 1, result.stderr


def test_a_hub_that_names_no_commit_is_refused(machine, hub, monkeypatch):
    monkeypatch.setattr("hub_server.commit", lambda name: "../../x")
    machine.configuration["models"] = {
        name: {**model, "revision": "main"} for name, model in machine.configuration["models"].items()
    }
    result = machine("stage", "--pin")
    assert result.returncode == 1 and "which is no commit" in result.stderr and not (machine.folder / "models").exists()


def test_local_copies_are_taken_without_a_hub(machine, hub, tmp_path):
    hub.shutdown()
    hub.server_close()
    copies = tmp_path / "copies"
    shutil.copytree(MODELS / "clip", copies / "tiny" / "clip")
    shutil.copytree(SHIPPED["look"], copies / "look")
    assert "copie: no such folder" in machine("stage", "--from", "copie").stderr
    machine.stage("--from", "copies")
    assert machine.manifest["models"]["clip"]["source"] == "copies/tiny/clip"
    assert machine("verify").returncode == 0


def test_a_pointer_is_not_taken_for_a_model(machine, tmp_path):
    shutil.copytree(MODELS / "clip", tmp_path / "copies" / "clip")
    (tmp_path / "copies" / "clip" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    result = machine("stage", "--from", "copies")
    assert "model.safetensors: a Git LFS pointer" in result.stderr


def pickled(content: dict) -> bytes:
    held = io.BytesIO()
    torch.save(content, held)
    return held.getvalue()


def test_a_repository_of_pickles_is_staged_as_safetensors(machine, hub):
    files = hub.repositories["tiny/clip"]
    weights = {name: torch.from_numpy(value) for name, value in load(files.pop("model.safetensors")).items()}
    files["pytorch_model.bin"] = pickled(weights)
    assert "models/clip" not in machine.stage("--dry-run") and hub.served == []
    said = machine.stage()
    staged = machine.folder / "models" / "clip"
    assert {name: value.tobytes() for name, value in load_file(staged / "model.safetensors").items()} == {
        name: value.numpy().tobytes() for name, value in weights.items()
    }
    assert not list(staged.glob("*.bin"))
    was = sha256_bytes(files["pytorch_model.bin"])
    facts = json.loads((staged / "converted.json").read_text())["model.safetensors"]
    assert facts["from"] == "pytorch_model.bin" and facts["from_sha256"] == was and was in said
    assert facts["sha256"] == machine.manifest["models"]["clip"]["files"]["model.safetensors"]["sha256"]
    assert machine("verify").returncode == 0
    assert "clip: staged" in machine.stage()
    (machine.folder / "stage" / "small.json").unlink()
    assert "clip: there" in machine.stage(), "what was converted is known for what the hub holds"


def test_pickled_parts_become_parts_with_an_index(tmp_path):
    names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    shared = torch.arange(4.0)
    torch.save({"a": shared, "b": shared}, tmp_path / names[0])
    torch.save({"c": torch.ones(2).t()}, tmp_path / names[1])
    index = {"metadata": {}, "weight_map": {"a": names[0], "b": names[0], "c": names[1]}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text("{}")
    chosen = choose_files("x", [path.name for path in tmp_path.iterdir()])
    assert chosen == ["config.json", *names, "pytorch_model.bin.index.json"]
    assert len(pickles.convert(tmp_path, "x")) == 2
    assert not list(folder_problems(tmp_path)) and not list(tmp_path.glob("*.bin*"))
    assert load_file(tmp_path / "model-00001-of-00002.safetensors").keys() == {"a", "b"}


class Runs:
    """A pickle that would run a command."""

    def __reduce__(self):
        return os.system, ("touch it_ran",)


def test_a_pickle_that_runs_something_is_not_opened(machine, hub):
    files = hub.repositories["tiny/clip"]
    del files["model.safetensors"]
    for content in ({"a": Runs()}, {"a": "no tensor"}):
        files["pytorch_model.bin"] = pickled(content)
        result = machine("stage")
        assert result.returncode and "tiny/clip" in result.stderr and "not converted" in result.stderr
        assert not (machine.folder / "models" / "clip").exists()
        shutil.rmtree(machine.folder / "models", ignore_errors=True)
    assert not list(machine.folder.rglob("it_ran"))
    files["flax_model.msgpack"] = files.pop("pytorch_model.bin")
    assert "nor a `pytorch_model.bin` that becomes such (it has flax_model.msgpack" in machine("stage").stderr


def test_weights_are_converted_without_a_network():
    """By the kernel where it lets us, by the interpreter anywhere; loopback is refused by the kernel alone."""
    code = (
        "import socket; from bettersynth.deploy.pickles import _leave_the_network as leave; leave()\n"
        "try: socket.create_connection(('192.0.2.1', 80), 2)\n"
        "except BaseException as error: print(type(error).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "NetworkError", done.stderr


def test_a_missing_revision_is_named(machine, hub):
    machine.configuration["models"]["clip"]["revision"] = None
    error = machine("stage").stderr
    assert f"models.clip: no commit; today's is `revision: {commit('tiny/clip')}`" in error and "PIN=1" in error
    assert hub.served == []
    output = machine.stage("--dry-run")
    assert "clip: to fetch" in output and "the configuration names no commit: PIN=1" in output


def test_open_clips_convnext_is_staged_as_transformers_opens_it(machine, hub):
    from bettersynth.training.mgm.published import timm_name

    tower = load_file(MODELS / "convnext" / "model.safetensors")
    tower = {name: value for name, value in tower.items() if name.startswith(("embeddings.", "encoder."))}
    open_clip = {f"visual.trunk.{timm_name(name)}": value for name, value in tower.items()}
    hub.repositories["tiny/clip"] = {"open_clip_model.safetensors": save(open_clip), "open_clip_config.json": b"{}"}
    machine.train_with(vision_tower_aux="clip", vision_tower="tower", language_model="gemma")
    machine.configuration["models"] |= {
        name: {"path": str(MODELS / folder)} for name, folder in (("tower", "clip"), ("gemma", "gemma"))
    }
    machine.stage()
    staged = load_file(machine.folder / CLIP_WEIGHTS)
    assert staged.keys() == tower.keys()
    assert all(np.array_equal(staged[name], value) for name, value in tower.items())
    assert machine("verify").returncode == 0


def test_a_disk_that_is_too_small_is_named_before_anything_is_fetched(tmp_path):
    step = Step("clip", tmp_path / "models" / "clip", "to fetch", size=2**60)
    with pytest.raises(StagingError, match=rf"{tmp_path}: 1073741824.0 GiB are needed, .* are free; make room"):
        require_space([step], None)


def test_missing_revisions_are_written_down(machine):
    machine.configuration["models"]["clip"]["revision"] = "main"
    del machine.configuration["models"]["look"]["revision"]
    machine.stage("--dry-run", "--pin")
    assert "revision: main" in (machine.folder / "small.yaml").read_text(), "a dry run writes nothing"
    output = machine.stage("--pin")
    assert f"small.yaml: models.clip: revision: {commit('tiny/clip')}" in output
    written = yaml.safe_load((machine.folder / "small.yaml").read_text())
    for name in SHIPPED:
        machine.configuration["models"][name]["revision"] = commit(f"tiny/{name}")
        assert machine.manifest["models"][name]["revision"] == commit(f"tiny/{name}")
    assert written == machine.configuration


def test_writing_a_commit_down_leaves_the_rest_of_the_file_as_it_is():
    flow = "models:  # all\n  clip: {path: a, hub: tiny/clip}  # small\n"
    block = "  look:\n    hub: tiny/look  # large\n    path: b\n"
    named = "  other: {hub: tiny/other, revision: main, path: c}\nscoring: {}\n"
    written = write_commits(flow + block + named, {"clip": "c" * 40, "look": "d" * 40, "other": "e" * 40})
    flow = flow.replace("tiny/clip}  #", f"tiny/clip, revision: {'c' * 40}}} #")  # one blank before a comment
    block = block.replace("# large\n", f"# large\n    revision: {'d' * 40}\n")
    assert written == flow + block + named.replace("main", "e" * 40)


def test_a_licence_that_asks_for_consent_is_said_to(machine, hub):
    hub.gated.add("tiny/look")
    error = machine("stage").stderr
    assert f"do so on its page, {hub.endpoint}/tiny/look, and set HF_TOKEN" in error


def test_without_a_hub_a_dry_run_says_what_the_configuration_says(machine, hub):
    hub.shutdown()
    hub.server_close()
    machine.configuration["models"]["look"]["revision"] = None
    result = machine("stage", "--dry-run")
    assert f"clip: not there (tiny/clip at {commit('tiny/clip')[:12]})" in result.stdout
    assert "look: not there (tiny/look at no commit: PIN=1)" in result.stdout
    assert result.returncode != 0 and result.stderr.count("did not answer") == 1


DAMAGE = {
    "altered: sha256": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\xff"),
    "so cut short": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:5]),
    "a Git LFS pointer": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
    "not there": lambda path: path.unlink(),
    "a pickle": lambda path: (path.parent / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00."),
    "was not staged": lambda path: (path.parent / "extra.json").write_text("{}"),
}


def test_switches_of_the_hubs_client_that_a_shell_has_set_are_told_or_do_without(machine):
    machine.environment["HF_HUB_OFFLINE"] = "1"
    refused = machine("stage")
    assert refused.returncode and "Traceback" not in refused.stderr
    assert "env -u HF_HUB_OFFLINE -u TRANSFORMERS_OFFLINE make stage CONFIG=small.yaml" in refused.stderr
    del machine.environment["HF_HUB_OFFLINE"]
    machine.environment["HF_HUB_ENABLE_HF_TRANSFER"] = "1"  # whose package is not there
    machine.stage()


def test_verify_says_what_is_wrong_and_what_mends_it(machine):
    del machine.configuration["operators"]["beauty"]  # or a whole model would be opened each time
    machine.stage()
    model = machine.folder / "models" / "clip"
    model.rename(machine.folder / "whole")
    for expected, damage in DAMAGE.items():
        shutil.copytree(machine.folder / "whole", model)
        damage(model / "model.safetensors")
        result = machine("verify")
        assert result.returncode != 0
        assert expected in result.stdout and "models/clip/" in result.stdout
        assert "make stage CONFIG=small.yaml" in result.stdout or "rm 'models/clip/" in result.stdout
        shutil.rmtree(model)


@pytest.fixture
def index(machine, tmp_path):
    """Where this machine's pip finds the packages of a small lock, one of which has no wheel."""
    folder = tmp_path / "index"
    for package in ("tiny-torch", "pip"):
        write_wheel(folder, package, {f"{package.replace('-', '_')}/__init__.py": ""})
    machine.checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", machine.checkout / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (machine.checkout / "envs").mkdir()
    (machine.checkout / "envs" / "lock.txt").write_text("tiny-words==1.0\n")
    (machine.checkout / "envs" / "pip.txt").write_text("pip==1.0\n")
    (machine.checkout / "envs" / "torch-cpu.txt").write_text("tiny-torch==1.0\n")
    machine.environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}
    return folder


def staged_wheels(machine):
    return {path.name for path in (machine.folder / "stage" / "wheels" / "cpu").iterdir()}


def test_wheels_are_downloaded_built_and_listed(machine, index):
    write_source_package(index, "tiny-words")
    machine.stage("--wheels", "cpu")
    names = {f"{name}-1.0-py3-none-any.whl" for name in ("pip", "tiny_torch", "tiny_words")}
    assert staged_wheels(machine) == names == machine.manifest["wheels"]["files"].keys()
    index.rename(index.with_name("gone"))
    assert "wheels: staged" in machine.stage("--wheels", "cpu"), "a second call asks nobody"
    index.with_name("gone").rename(index)
    wheel = machine.folder / "stage" / "wheels" / "cpu" / "pip-1.0-py3-none-any.whl"
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[:-20])
    assert "make stage CONFIG=small.yaml WHEELS=cpu" in machine("verify").stdout
    machine.stage("--wheels", "cpu")
    assert wheel.read_bytes() == whole


FOR_ANOTHER = ["--wheels", "cpu", "--platform", "manylinux2014_aarch64", "--python-version", "3.12"]


def test_wheels_for_another_machine_are_built_here_where_they_can_be(machine, index):
    write_source_package(index, "tiny-words")
    machine.stage(*FOR_ANOTHER)
    assert staged_wheels(machine) == {f"{name}-1.0-py3-none-any.whl" for name in ("pip", "tiny_torch", "tiny_words")}
    entry = machine.manifest["wheels"]
    assert (entry["python"], entry["platforms"]) == ("3.12", ["manylinux2014_aarch64"])


def test_what_another_machine_has_to_build_goes_along_with_what_that_takes(machine, index):
    write_wheel(index, "tiny-builder", {})
    write_source_package(index, "tiny-words", tag=f"py3-none-{THIS_PLATFORM}", requires="tiny-builder")
    output = machine.stage(*FOR_ANOTHER)
    assert "no wheels of tiny_words-1.0.tar.gz for that machine: `make setup OFFLINE=1` builds them" in output
    wheels = {f"{name}-1.0-py3-none-any.whl" for name in ("pip", "tiny_torch", "tiny_builder")}
    assert staged_wheels(machine) == {"tiny_words-1.0.tar.gz", *wheels} == machine.manifest["wheels"]["files"].keys()


def test_the_commands_that_stage_and_verify_print_do_what_they_say(machine, hub):
    link_checkout(machine.folder)
    machine.configuration["models"]["clip"].pop("revision")
    del machine.configuration["operators"]["beauty"]  # or a whole model would be opened each time
    (machine.folder / "small.yaml").write_text(yaml.safe_dump(machine.configuration))

    def type_in(command: str) -> str:
        result = typed(machine.folder, command, machine.environment)
        return "" if result.returncode == 0 else result.stdout + result.stderr

    stage = re.search(r"make stage CONFIG=small.yaml PIN=1$", type_in("make stage CONFIG=small.yaml"), re.MULTILINE)[0]
    hub.faults["model.safetensors"] = ["cut"] * 40
    cut = type_in(stage)
    hub.faults.clear()
    goes_on = re.search(r"`(make stage CONFIG=small.yaml[^`]*)` goes on from there", cut)[1]
    assert not type_in(stage) and not type_in(goes_on)
    for damage in (Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x")):
        damage(machine.folder / CLIP_WEIGHTS)
        found = type_in("make verify CONFIG=small.yaml")
        mend = re.search(r"mv .*$", found, re.MULTILINE)[0]
        hub.served.clear()
        assert not type_in(mend), mend
        assert {name for name, _ in hub.served} <= {"model.safetensors"}
    assert not type_in("make verify CONFIG=small.yaml")


def test_another_byte_in_a_data_file_is_found(machine):
    machine.stage()
    (machine.folder / "data" / "stage_1.json").write_text("data/stage_2.json")
    assert "data/stage_1.json: altered" in machine("verify").stdout


def test_weights_are_chosen_once():
    pipeline = ["model_index.json", "all-in-one.safetensors", "unet/config.json", "tokenizer/merges.txt"]
    pipeline += [f"unet/diffusion_pytorch_model{kind}" for kind in (".safetensors", ".fp16.safetensors", ".bin")]
    assert choose_files("x", pipeline) == [
        "model_index.json",
        "tokenizer/merges.txt",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    parts = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = "model.safetensors.index.json"
    assert choose_files("x", [*parts, index, "pytorch_model.bin.index.json"]) == [*parts, index]
    assert choose_files("x", [*parts, index, "model.safetensors"]) == ["model.safetensors"]
    assert choose_files("x", ["config.json", "pytorch_model.bin", "tf_model.h5"]) == [
        "config.json",
        "pytorch_model.bin",
    ]
    with pytest.raises(StagingError, match="no safetensors"):
        choose_files("x", ["config.json", "tf_model.h5"])


def test_pickles_are_known_by_their_bytes(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.dat")
    assert "a pickle" in str(file_problem(tmp_path / "weights.dat"))
    (tmp_path / "lookups.bin").write_bytes(b"\x81\xa1a\x01")
    assert file_problem(tmp_path / "lookups.bin") is None

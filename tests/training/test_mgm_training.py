"""The training jobs on tiny parts: what they change, how they resume, what they refuse."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_mgm import conversation, make_run

from bettersynth.configuration.pool import USUAL
from bettersynth.configuration.training import Stage
from bettersynth.configuration.types import Configuration
from bettersynth.core.digests import sha256_folder
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, sha256_file, write_json
from bettersynth.training.mgm import trainer
from bettersynth.training.mgm.checkpoints import checkpoints
from bettersynth.training.mgm.data import Collator, ConversationDataset, TrainingDataError, TrainingOrder
from bettersynth.training.mgm.model import IGNORE_INDEX, MGMForConditionalGeneration
from bettersynth.training.mgm.processing import Processor
from bettersynth.training.mgm.seeds import choose_seeds
from bettersynth.training.mgm.training import finetune, pretrain, probe

GO = {"recipe": "tiny", "keep": None, "seeds": [{"seed": 1, "verdict": "go"}]}


class KilledError(Exception):
    """Stands in for the signal that ends a job."""


@pytest.fixture
def start(tmp_path):
    """Makes configuration and layout of a fresh run, its seeds chosen."""

    def make(name: str = "run", **options):
        folder = tmp_path / name
        folder.mkdir()
        configuration = make_run(folder, **options)
        layout = Layout(folder / "results")
        layout.trainset("tiny").parent.mkdir(parents=True)
        shutil.copy(folder / "captions.json", layout.trainset("tiny"))
        if configuration.held_out:
            layout.held_out.parent.mkdir()
            shutil.copy(folder / "held_out.json", layout.held_out)
        write_json(layout.seeds("tiny"), GO)
        return configuration, layout

    return make


@pytest.fixture
def kill(monkeypatch):
    """Ends training right after the step of a given number."""

    def at(step: int | None) -> None:
        original = trainer._Save.on_step_end

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise KilledError
            return original(self, args, state, control, **kwargs)

        monkeypatch.undo()
        if step is not None:
            monkeypatch.setattr(trainer._Save, "on_step_end", on_step_end)

    return at


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_same_model(first: Path, second: Path) -> None:
    a, b = (load_file(folder / "checkpoint" / "model.safetensors") for folder in (first, second))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_both_stages_train_what_they_should_and_nothing_else(start):
    configuration, layout = start()
    card = pretrain("tiny", 1, configuration, layout)
    assert card["status"] == "done" and card["steps"] == 6 and card["rows"] == 24
    assert card["last_loss"] < card["first_loss"]
    folder = layout.pretrain("tiny", 1)
    assert card["sha256"] == sha256_file(folder / "connector.safetensors")
    assert [entry["step"] for entry in log_of(folder)] == [1, 2, 3, 4, 5, 6]
    assert log_of(folder)[-1]["learning_rate"] < max(entry["learning_rate"] for entry in log_of(folder)) == 1e-2

    finetune("tiny", 1, configuration, layout)
    parts = {name: model.path for name, model in configuration.models.items()}
    fresh = MGMForConditionalGeneration.from_parts(**parts, image_size_aux=32, seed=1)
    trained = MGMForConditionalGeneration.from_pretrained(layout.finetune("tiny", 1) / "checkpoint")
    assert trained.config.image_aspect == "pad"
    before, after = fresh.state_dict(), trained.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    frozen = {name for name in before if name.startswith("vision_tower")}
    # The biases of the keys move every score of a patch alike: softmax gives them no gradient but rounding.
    assert changed >= {name for name in before.keys() - frozen if "aux_projector" not in name}
    assert not changed & frozen
    connector = load_file(folder / "connector.safetensors")
    assert any(not torch.equal(connector[name], fresh.connector.state_dict()[name]) for name in connector)


def test_stage_1_leaves_the_language_model_alone(start, monkeypatch):
    configuration, layout = start()
    seen = {}
    original = MGMForConditionalGeneration.connector_state

    def connector_state(model):
        seen.update({name: value.cpu().clone() for name, value in model.state_dict().items()})
        return original(model)

    monkeypatch.setattr(MGMForConditionalGeneration, "connector_state", connector_state)
    pretrain("tiny", 1, configuration, layout)
    parts = {name: model.path for name, model in configuration.models.items()}
    fresh = MGMForConditionalGeneration.from_parts(**parts, image_size_aux=32, seed=1).state_dict()
    assert {name.split(".")[0] for name in fresh if not torch.equal(fresh[name], seen[name])} == {"connector"}


def test_stage_1_goes_on_from_the_probe_as_if_it_had_not_stopped(start):
    straight, straight_layout = start("straight")
    pretrain("tiny", 1, straight, straight_layout)
    configuration, layout = start("probed", keep=1)
    card = probe("tiny", 1, configuration, layout)
    assert card["steps"] == 2
    assert card["loss"] == log_of(layout.probe("tiny", 1))[-1]["loss"]
    continued = pretrain("tiny", 1, configuration, layout)
    assert continued["resumed_from_step"] == 2
    folders = layout.pretrain("tiny", 1), straight_layout.pretrain("tiny", 1)
    assert len({sha256_file(folder / "connector.safetensors") for folder in folders}) == 1
    assert log_of(folders[0]) == log_of(folders[1])


def test_a_probe_that_was_killed_beyond_a_shorter_ones_end_is_made_anew(start, kill):
    configuration, layout = start(pretrain={"save_steps": 1}, keep=1)

    def probing(steps: int) -> Configuration:
        content = configuration.model_dump(by_alias=True, exclude_none=True)
        content["training"]["probe"]["steps"] = steps
        return Configuration.model_validate(content)

    kill(4)
    with pytest.raises(KilledError):
        probe("tiny", 1, probing(5), layout)
    kill(None)
    card = probe("tiny", 1, probing(2), layout)
    assert (card["steps"], card["resumed_from_step"]) == (2, 0)


FINAL_ROUND = {"final": {"dataset": "pool", "seeds": [1, 2], "training": {"start_from": {"recipe": "tiny", "seed": 1}}}}


def test_a_recipe_goes_on_from_the_model_of_another(start):
    configuration, layout = start(recipes=FINAL_ROUND)
    shutil.copy(layout.trainset("tiny"), layout.trainset("final"))
    for stage in (pretrain, finetune):
        stage("tiny", 1, configuration, layout)
    earlier = layout.finetune("tiny", 1) / "checkpoint"
    before = MGMForConditionalGeneration.from_pretrained(earlier).state_dict()

    first = pretrain("final", 2, configuration, layout)
    assert first["first_loss"] < read_json(layout.pretrain("tiny", 1) / "card.json")["first_loss"]
    assert first["inputs"]["start_sha256"] == sha256_folder(earlier)
    finetune("final", 2, configuration, layout)
    after = load_file(layout.finetune("final", 2) / "checkpoint" / "model.safetensors")
    trained = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert trained == {"connector", "language_model"}
    near = "language_model.model.layers.0.mlp.up_proj.weight"
    parts = {name: model.path for name, model in configuration.models.items()}
    original = MGMForConditionalGeneration.from_parts(**parts, image_size_aux=32, seed=2).state_dict()
    assert (after[near] - before[near]).abs().max() < (after[near] - original[near]).abs().max()


def test_another_model_to_start_from_trains_again(start):
    configuration, layout = start(recipes=FINAL_ROUND)
    shutil.copy(layout.trainset("tiny"), layout.trainset("final"))
    for stage in (pretrain, finetune):
        stage("tiny", 1, configuration, layout)
    made = pretrain("final", 1, configuration, layout)
    assert pretrain("final", 1, configuration, layout) == made, "nothing changed, nothing is trained"
    path = layout.finetune("tiny", 1) / "checkpoint" / "model.safetensors"
    weights = load_file(path)
    weights["connector.projector.0.bias"] += 1
    save_file(weights, path, metadata={"format": "pt"})
    assert pretrain("final", 1, configuration, layout)["sha256"] != made["sha256"]


def test_a_run_that_was_stopped_is_no_start(start):
    configuration, layout = start(recipes=FINAL_ROUND)
    write_json(layout.finetune("tiny", 1) / "card.json", {"status": "stopped"})
    with pytest.raises(ValueError, match=r"`final` starts from `tiny`, seed 1, which was stopped .*start_from\.seed"):
        pretrain("final", 1, configuration, layout)


def test_a_run_whose_own_start_was_stopped_is_stopped_too(start):
    own = {"final": {"dataset": "pool", "seeds": [1], "training": {"start_from": {"recipe": "tiny"}}}}
    configuration, layout = start(recipes=own)
    failed = {"status": "stopped", "fate": "failed", "why": "the loss was nan at step 3 of finetune"}
    write_json(layout.finetune("tiny", 1) / "card.json", failed)
    card = pretrain("final", 1, configuration, layout)
    assert (card["status"], card["fate"], card["steps"]) == ("stopped", "failed", 0)
    assert card["why"] == f"it starts from tiny, seed 1, which did not go on: {failed['why']}"
    assert finetune("final", 1, configuration, layout)["fate"] == "failed"


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_killed_stage_resumes_to_the_same_result(start, kill, caplog, stage):
    caplog.set_level("INFO")
    training = {stage: {"save_steps": 2, "epochs": 2}, "architecture": {"drop_path": 0.3}}
    runs = {}
    for name in ("whole", "killed"):
        configuration, layout = runs[name] = start(name, **training)
        if stage == "finetune":
            pretrain("tiny", 1, configuration, layout)
        if name == "killed":
            kill(5)
            with pytest.raises(KilledError):
                {"pretrain": pretrain, "finetune": finetune}[stage]("tiny", 1, configuration, layout)
            folder = getattr(layout, stage)("tiny", 1)
            assert [path.name for path in checkpoints(folder / "checkpoints")] == ["checkpoint-4"]
            assert not (folder / "card.json").exists()
            kill(None)
        card = {"pretrain": pretrain, "finetune": finetune}[stage]("tiny", 1, configuration, layout)
        assert card["steps"] == 12
        assert card["resumed_from_step"] == (4 if name == "killed" else 0)
        assert ("goes on from step 4 of 12" in caplog.text) == (name == "killed")
    folders = [getattr(layout, stage)("tiny", 1) for _, layout in runs.values()]
    assert log_of(folders[0]) == log_of(folders[1])
    assert not any((folder / "checkpoints").exists() for folder in folders)
    if stage == "pretrain":
        assert len({sha256_file(folder / "connector.safetensors") for folder in folders}) == 1
    else:
        assert_same_model(*folders)


@pytest.mark.parametrize("name", ["inputs.json", "weights.safetensors", "optimizer.safetensors", "trainer_state.json"])
@pytest.mark.parametrize("share", [None, 0.5])
def test_a_checkpoint_cut_short_is_passed_over(start, kill, name, share):
    configuration, layout = start(pretrain={"save_steps": 1})
    kill(4)
    with pytest.raises(KilledError):
        pretrain("tiny", 1, configuration, layout)
    kill(None)
    place = layout.pretrain("tiny", 1) / "checkpoints"
    broken = place / "checkpoint-5"
    shutil.copytree(place / "checkpoint-3", broken)
    whole = (broken / name).read_bytes()
    (broken / name).unlink()
    if share is not None:
        (broken / name).write_bytes(whole[: int(len(whole) * share)])
    assert pretrain("tiny", 1, configuration, layout)["resumed_from_step"] == 3


def test_changed_data_are_not_resumed_into(start, kill, caplog):
    configuration, layout = start(pretrain={"save_steps": 1})
    kill(3)
    with pytest.raises(KilledError):
        pretrain("tiny", 1, configuration, layout)
    kill(None)
    rows = read_json(layout.trainset("tiny"))
    write_json(layout.trainset("tiny"), rows[::-1])
    card = pretrain("tiny", 1, configuration, layout)
    assert card["resumed_from_step"] == 0
    assert "data_sha256 changed since this checkpoint was written; starting anew" in caplog.text


def test_the_same_is_not_trained_twice(start, monkeypatch):
    configuration, layout = start()
    for stage, folder in ((pretrain, layout.pretrain("tiny", 1)), (finetune, layout.finetune("tiny", 1))):
        card = stage("tiny", 1, configuration, layout)
        (folder / "card.json").unlink()
        with monkeypatch.context() as patch:
            patch.setattr(trainer.Trainer, "train", lambda *_, **__: pytest.fail("trained again"))
            assert stage("tiny", 1, configuration, layout) == card
        assert read_json(folder / "card.json") == card


def test_what_another_recipe_trained_of_the_same_is_taken_over(start, monkeypatch):
    """As two controls do whose sizes come out equal."""
    configuration, layout = start(recipes={"twin": {"dataset": "pool", "seeds": [1]}})
    shutil.copy(layout.trainset("tiny"), layout.trainset("twin"))
    stages = ((pretrain, layout.pretrain), (finetune, layout.finetune))
    first = [stage("tiny", 1, configuration, layout) for stage, _ in stages]
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "train", lambda *_, **__: pytest.fail("trained again"))
        for card, (stage, folder) in zip(first, stages, strict=True):
            taken = stage("twin", 1, configuration, layout)
            assert (taken["recipe"], taken["taken_over_from"], taken["seconds"]) == ("twin", "tiny", 0)
            assert taken["sha256"] == card["sha256"] and taken == read_json(folder("twin", 1) / "card.json")
            assert log_of(folder("twin", 1)) == log_of(folder("tiny", 1))
            assert stage("twin", 1, configuration, layout) == taken
    own, other = (layout.finetune(name, 1) / "checkpoint" for name in ("twin", "tiny"))
    assert (own / "model.safetensors").samefile(other / "model.safetensors")
    assert "recipe `twin`" in (own / "README.md").read_text() and "recipe `tiny`" in (other / "README.md").read_text()
    with (layout.pretrain("tiny", 1) / "connector.safetensors").open("ab") as file:
        file.write(b"damage")
    shutil.rmtree(layout.pretrain("twin", 1))
    assert "taken_over_from" not in pretrain("twin", 1, configuration, layout), "what is damaged is not taken"


def test_other_data_or_a_damaged_result_are_trained_again(start):
    configuration, layout = start()
    first = pretrain("tiny", 1, configuration, layout)
    connector = layout.pretrain("tiny", 1) / "connector.safetensors"
    connector.write_bytes(connector.read_bytes()[:-1])
    assert pretrain("tiny", 1, configuration, layout)["sha256"] == first["sha256"] == sha256_file(connector)
    write_json(layout.trainset("tiny"), read_json(layout.trainset("tiny"))[::-1])
    assert pretrain("tiny", 1, configuration, layout)["sha256"] != first["sha256"]


def test_seeds_are_chosen_by_probe_loss_and_the_others_stopped_on_the_record(start):
    configuration, layout = start(seeds=(1, 2, 3), keep=2)
    losses = {seed: probe("tiny", seed, configuration, layout)["loss"] for seed in (1, 2, 3)}
    assert len(set(losses.values())) == 3
    choice = choose_seeds("tiny", configuration, layout)
    assert choice == read_json(layout.seeds("tiny"))
    assert [entry["seed"] for entry in choice["seeds"]] == [1, 2, 3]
    worst = max(losses, key=losses.get)
    assert [entry["seed"] for entry in choice["seeds"] if entry["verdict"] == "stopped"] == [worst]
    for stage, folder in ((pretrain, layout.pretrain), (finetune, layout.finetune)):
        card = stage("tiny", worst, configuration, layout)
        assert card["status"] == "stopped" and "number 3 of 3" in card["why"]
        assert [path.name for path in folder("tiny", worst).iterdir()] == ["card.json"]


def test_without_keep_every_seed_goes_on_and_nothing_is_probed(start):
    configuration, layout = start()
    with pytest.raises(ValueError, match=r"probe\.keep"):
        choose_seeds("tiny", configuration, layout)
    assert pretrain("tiny", 1, configuration, layout)["status"] == "done"


def test_the_cut_into_forward_passes_does_not_matter(start):
    results = []
    for batch in (1, 4):
        configuration, layout = start(f"batch-{batch}", pretrain={"device_batch": batch})
        pretrain("tiny", 1, configuration, layout)
        results.append(load_file(layout.pretrain("tiny", 1) / "connector.safetensors"))
    for name in results[0].keys() - {"aux_projector.0.bias", "aux_projector.1.bias"}:
        torch.testing.assert_close(results[0][name], results[1][name], rtol=1e-2, atol=2e-4)


def test_a_steps_loss_is_the_mean_over_tokens_or_over_passes(start):
    """The published program's is over passes: a short answer there weighs as much as a long one."""
    rows = [conversation(number, " ".join(["red"] * (1 + 5 * (number % 3)))) for number in range(24)]
    first = {}
    for mean in ("tokens", "passes"):
        configuration, layout = start(mean, pretrain={"device_batch": 1, "loss_mean": mean})
        layout.trainset("tiny").write_text(json.dumps(rows))
        pretrain("tiny", 1, configuration, layout)
        first[mean] = log_of(layout.pretrain("tiny", 1))[0]["loss"]
    parts = {name: model.path for name, model in configuration.models.items()}
    model = MGMForConditionalGeneration.from_parts(**parts, image_size_aux=32, seed=1)
    processor = Processor.load(parts["language_model"], parts["vision_tower"], model.config)
    find = Path(configuration.pool.images).joinpath
    dataset = ConversationDataset(layout.trainset("tiny"), find, processor, max_length=64, reading=USUAL)
    samples = [dataset[row] for row in list(TrainingOrder(24, 4, 6, seed=1))[:4]]
    with torch.no_grad():
        losses = torch.stack([model(**Collator(0, 32)([sample])).loss for sample in samples])
    tokens = torch.tensor([(sample["labels"] != IGNORE_INDEX).sum() for sample in samples])
    assert len(set(tokens.tolist())) > 1
    assert first["passes"] == pytest.approx(losses.mean().item(), abs=1e-4)
    assert first["tokens"] == pytest.approx(((losses * tokens).sum() / tokens.sum()).item(), abs=1e-4)
    assert abs(first["passes"] - first["tokens"]) > 1e-3


def test_passes_decide_what_is_trained_where_the_loss_is_a_mean_over_them():
    over_tokens, smaller = Stage(device_batch=8).deciding(), Stage(device_batch=4).deciding()
    assert over_tokens == smaller and "loss_mean" not in over_tokens
    assert Stage(device_batch=8, loss_mean="passes").deciding() != Stage(device_batch=4, loss_mean="passes").deciding()


def test_half_precision_and_gradient_checkpointing_train_nearly_the_same(start):
    losses = []
    for name, stage in (("fp32", {}), ("bf16", {"precision": "bf16", "gradient_checkpointing": True})):
        configuration, layout = start(name, finetune=stage)
        pretrain("tiny", 1, configuration, layout)
        losses.append(
            [
                entry["loss"]
                for entry in (finetune("tiny", 1, configuration, layout), log_of(layout.finetune("tiny", 1)))[1]
            ]
        )
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=0.05, atol=0.05)


def test_a_batch_that_does_not_divide_is_refused(start):
    configuration, layout = start(pretrain={"device_batch": 3})
    with pytest.raises(ValueError, match="global_batch 4 is no multiple of device_batch 3"):
        pretrain("tiny", 1, configuration, layout)


def test_too_few_rows_are_refused(start):
    configuration, layout = start(pretrain={"global_batch": 32})
    with pytest.raises(TrainingDataError, match="24 rows are fewer than one global batch of 32"):
        pretrain("tiny", 1, configuration, layout)


def test_a_loss_that_is_no_number_ends_the_run_on_record(start, caplog):
    configuration, layout = start(finetune={"learning_rate": 1e30, "epochs": 2})
    pretrain("tiny", 1, configuration, layout)
    card = finetune("tiny", 1, configuration, layout)
    assert (card["status"], card["fate"], card["loss"]) == ("stopped", "failed", None)
    assert card["why"] == f"the loss was nan at step {card['steps']} of finetune"
    assert "Lower `learning_rate`, or train with `precision: fp32`" in caplog.text
    assert finetune("tiny", 1, configuration, layout) == card, "the same again fails again, and is not tried"
    assert not (layout.finetune("tiny", 1) / "checkpoint").exists()

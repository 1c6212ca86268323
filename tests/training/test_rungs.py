"""Rungs: losses on the same held-out pairs, seeds that stop on record, and none that trains a step twice."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_mgm import make_run

from bettersynth.configuration.pool import USUAL
from bettersynth.configuration.probe import Probe
from bettersynth.core.layout import Layout
from bettersynth.core.publish import sha256_file
from bettersynth.training.mgm import trainer
from bettersynth.training.mgm.data import Collator, ConversationDataset
from bettersynth.training.mgm.model import IGNORE_INDEX, MGMForConditionalGeneration
from bettersynth.training.mgm.processing import Processor
from bettersynth.training.mgm.seeds import choose_seeds
from bettersynth.training.mgm.training import finetune, pretrain, probe

RUNGS = [{"steps": 2, "keep": 2}, {"steps": 3}, {"steps": 4, "keep": 2}, {"steps": "end", "keep": 1}]


class Tried:
    """A recipe of some seeds with rungs, and how often each of their steps was trained."""

    def __init__(self, folder: Path, monkeypatch, seeds=(1, 2, 3), fails=(), **options) -> None:
        folder.mkdir()
        self.configuration, self.layout, self.seeds = (
            make_run(folder, seeds, **options),
            Layout(folder / "results"),
            seeds,
        )
        self.layout.trainset("tiny").parent.mkdir(parents=True)
        shutil.copy(folder / "captions.json", self.layout.trainset("tiny"))
        if self.configuration.held_out:
            self.layout.held_out.parent.mkdir()
            shutil.copy(folder / "held_out.json", self.layout.held_out)
        self.steps: Counter = Counter()
        original = trainer._StageTrainer.training_step

        def training_step(own, model, inputs, number=None):
            self.steps[own.args.seed, own.state.global_step + 1] += 1
            loss = original(own, model, inputs, number)
            return loss * float("nan") if (own.args.seed, own.state.global_step + 1) in fails else loss

        monkeypatch.setattr(trainer._StageTrainer, "training_step", training_step)

    def cards(self, stage, **options) -> dict[int, dict]:
        return {seed: stage("tiny", seed, self.configuration, self.layout, **options) for seed in self.seeds}

    def choose(self, choice: str = "seeds") -> dict[int, dict]:
        made = choose_seeds("tiny", self.configuration, self.layout, choice)
        return {entry["seed"]: entry for entry in made["seeds"]}


def going(entries: dict[int, dict]) -> set[int]:
    return {seed for seed, entry in entries.items() if entry["verdict"] == "go"}


def held_out(cards: dict[int, dict]) -> dict[int, dict[int, float]]:
    return {seed: {each["step"]: each["loss"] for each in card["held_out"]} for seed, card in cards.items()}


def test_seeds_climb_rungs_and_no_step_is_trained_twice(tmp_path, monkeypatch):
    options = {"held_out": True, "pretrain": {"save_steps": 1}}
    tried = Tried(tmp_path / "rungs", monkeypatch, probe={"steps": None, "rungs": RUNGS}, **options)
    first = tried.cards(probe)
    losses = held_out(first)
    assert {tuple(each) for each in losses.values()} == {(2,)} and len({each[2] for each in losses.values()}) == 3
    entries = tried.choose()
    assert [entries[seed]["loss"] for seed in tried.seeds] == [losses[seed][2] for seed in tried.seeds]
    assert [entries[seed]["training_loss"] for seed in tried.seeds] == [first[seed]["loss"] for seed in tried.seeds]
    worst = max(losses, key=lambda seed: losses[seed][2])
    assert going(entries) == {*tried.seeds} - {worst}

    second = tried.cards(probe, rung="probe-2")
    assert second[worst]["status"] == "stopped" and second[worst]["fate"] == "stopped"
    further = held_out({seed: card for seed, card in second.items() if seed != worst})
    assert all(each[2] == losses[seed][2] and tuple(each) == (2, 3, 4) for seed, each in further.items())
    entries = tried.choose("seeds-2")
    assert going(entries) == {*tried.seeds} - {worst}
    assert (entries[worst]["why"], entries[worst]["loss"]) == (second[worst]["why"], None)

    stage_1 = tried.cards(pretrain)
    assert {seed for seed, card in stage_1.items() if card["status"] == "done"} == going(entries)
    entries = tried.choose("seeds-3")
    (best,) = going(entries)
    assert entries[best]["loss"] == stage_1[best]["held_out"][-1]["loss"]
    assert tuple(held_out(stage_1)[best]) == (2, 3, 4, 6)
    steps = {seed: card["steps"] for seed, card in stage_1.items()}
    assert sorted(steps.values()) == [2, 6, 6] and steps[worst] == 2, "a stopped seed's card says how far it came"
    assert stage_1[worst]["held_out"] == first[worst]["held_out"] and "number 3 of 3" in stage_1[worst]["why"]
    assert len(set(tried.steps.values())) == 1, "each step's passes came once"
    assert {seed: max(step for other, step in tried.steps if other == seed) for seed in steps} == steps
    for seed in {*tried.seeds} - {best}:
        card = finetune("tiny", seed, tried.configuration, tried.layout)
        assert (card["status"], card["fate"], card["steps"]) == ("stopped", "stopped", steps[seed])

    straight = Tried(tmp_path / "straight", monkeypatch, seeds=(best,), **options)
    whole = straight.cards(pretrain)[best]
    assert whole["sha256"] == sha256_file(tried.layout.pretrain("tiny", best) / "connector.safetensors")
    assert whole["held_out"][-1] == stage_1[best]["held_out"][-1]


def test_the_held_out_loss_is_the_mean_over_all_answers_tokens_without_dropout(tmp_path, monkeypatch):
    measured = {}
    for batch in (1, 4):
        architecture = {"drop_path": 0.5}
        tried = Tried(
            tmp_path / f"{batch}",
            monkeypatch,
            seeds=(1,),
            held_out=True,
            pretrain={"device_batch": batch},
            probe={"steps": 1},
            architecture=architecture,
        )
        card = tried.cards(pretrain)[1]
        assert [each["step"] for each in card["held_out"]] == [1, 6], "without a pick, it is measured in passing"
        measured[batch] = card["held_out"][-1]["loss"]
        folder = tried.layout.pretrain("tiny", 1)
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert [line["held_out_loss"] for line in lines if "held_out_loss" in line] == [
            each["loss"] for each in card["held_out"]
        ]
    parts = {name: model.path for name, model in tried.configuration.models.items()}
    model = MGMForConditionalGeneration.from_parts(**parts, image_size_aux=32, seed=1).eval()
    connector = folder / "connector.safetensors"
    model.load_connector(load_file(connector), connector)
    processor = Processor.load(parts["language_model"], parts["vision_tower"], model.config)
    find = Path(tried.configuration.pool.images).joinpath
    pairs = ConversationDataset(tried.layout.held_out, find, processor, max_length=64, reading=USUAL)
    with torch.no_grad():
        losses = torch.stack([model(**Collator(0, 32)([pairs[row]])).loss for row in range(len(pairs))])
    tokens = torch.tensor([(pairs[row]["labels"] != IGNORE_INDEX).sum() for row in range(len(pairs))])
    assert len(set(tokens.tolist())) > 1
    assert measured[4] == pytest.approx(((losses * tokens).sum() / tokens.sum()).item(), abs=1e-4)


def test_a_seed_that_fails_is_stopped_listed_and_never_replaced(tmp_path, monkeypatch):
    fails = {(2, 1), (3, 3), (4, 6)}
    rungs = [{"steps": 2, "keep": 3}, {"steps": 4, "keep": 3}]
    tried = Tried(tmp_path / "run", monkeypatch, (1, 2, 3, 4), fails, probe={"steps": None, "rungs": rungs})
    first = tried.cards(probe)
    assert (first[2]["status"], first[2]["fate"], first[2]["loss"]) == ("stopped", "failed", None)
    assert first[2]["why"] == "the loss was nan at step 1 of probe" and first[2]["steps"] == 1
    entries = tried.choose()
    assert going(entries) == {1, 3, 4} and list(entries) == [1, 2, 3, 4]
    assert (entries[2]["fate"], entries[2]["why"], entries[2]["loss"]) == ("failed", first[2]["why"], None)
    second = tried.cards(probe, rung="probe-2")
    assert second[3]["fate"] == "failed" and second[2]["why"] == first[2]["why"]
    assert going(tried.choose("seeds-2")) == {1, 4}, "three could go on, and two are left"
    stage_1 = tried.cards(pretrain)
    assert [stage_1[seed].get("fate") for seed in tried.seeds] == [None, "failed", "failed", "failed"]
    assert [stage_1[seed]["steps"] for seed in tried.seeds] == [6, 1, 3, 6]
    card = finetune("tiny", 4, tried.configuration, tried.layout)
    assert (card["status"], card["why"]) == ("stopped", "the loss was nan at step 6 of pretrain")


def test_a_rung_beyond_the_end_keeps_what_it_trained(tmp_path, monkeypatch):
    tried = Tried(tmp_path / "run", monkeypatch, seeds=(1, 2), probe={"steps": 50, "keep": 1})
    assert {card["steps"] for card in tried.cards(probe).values()} == {6}
    (best,) = going(tried.choose())
    assert tried.cards(pretrain)[best]["resumed_from_step"] == 6
    assert len(set(tried.steps.values())) == 1


def test_the_older_form_and_the_rungs_are_one():
    older, rungs = Probe(steps=10, keep=1), Probe(rungs=[{"steps": 10, "keep": 1}])
    assert older.picks == rungs.picks and older.measured == rungs.measured == [10]
    assert [(pick.folder, pick.choice) for pick in older.picks] == [("probe", "seeds")]
    assert Probe().picks == [] and Probe().measured == [50] and Probe(keep=2).picks[0].steps == 50
    several = Probe(rungs=RUNGS)
    names = [(pick.folder, pick.choice, pick.steps) for pick in several.picks]
    assert names == [("probe", "seeds", 2), ("probe-2", "seeds-2", 4), ("pretrain", "seeds-3", None)]
    assert several.measured == [2, 3, 4]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"keep": 1, "rungs": [{"steps": 5}]}, "give `rungs`, or `steps` and `keep`"),
        ({"rungs": [{"steps": 5}, {"steps": 5}]}, "each rung has more steps than the one before"),
        ({"rungs": [{"steps": "end"}, {"steps": 5}]}, "`end` is the last"),
        ({"rungs": [{"steps": 5, "keep": 1}, {"steps": "end", "keep": 2}]}, "no more seeds than the one before"),
    ],
)
def test_rungs_that_cannot_be_meant_are_refused(keys, said):
    with pytest.raises(ValueError, match=said):
        Probe(**keys)

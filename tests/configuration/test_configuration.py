"""The configuration refuses what cannot be meant, in words that help."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bettersynth.configuration import ConfigurationError, configure, load, read_yaml
from bettersynth.configuration.recipes import recipe_training
from bettersynth.configuration.reference import page, schema

ROOT = Path(__file__).resolve().parents[2]
MINIATURE = ROOT / "config" / "miniature.yaml"


@pytest.fixture
def content():
    return copy.deepcopy(read_yaml(MINIATURE))


def refusal(content) -> str:
    with pytest.raises(ConfigurationError) as caught:
        configure(content, "config/mine.yaml")
    return str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path):
    assert load(path).name == path.stem


def test_validation_is_quick_and_imports_no_torch():
    code = (
        "import sys; from bettersynth.configuration import load; from bettersynth.workflow.jobs import Jobs; "
        f"load({str(MINIATURE)!r}); heavy = {{'torch', 'transformers', 'data_juicer', 'pandas'}} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    before = os.times().children_user
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "scripts")
    assert os.times().children_user - before < 2, "seconds of processor time, whatever else the machine does"


def test_a_typing_error_is_named_with_the_nearest_spelling(content):
    content["datasets"]["similar"]["filter"] = {"image_text_similarity": {"mim": 0.2}}
    message = refusal(content)
    assert "datasets.similar.filter.image_text_similarity.mim" in message
    assert "did you mean `min`" in message
    assert "config/mine.yaml" in message


def test_every_problem_is_reported_at_once(content):
    content["datasets"]["similar"]["from"] = "pol"
    content["recipes"]["best"]["dataset"] = "bets"
    message = refusal(content)
    assert "did you mean `pool`" in message and "did you mean `best`" in message


def _operator_op(content):
    content["operators"]["words_num"]["op"] = "words_number_filter"


def _threshold_in_operator(content):
    content["operators"]["words_num"]["parameters"] = {"min_num": 3}


def _wrong_parameter(content):
    content["operators"]["image_text_similarity"]["parameters"] = {"reduce_mode": "sum"}


def _same_operator_twice(content):
    content["operators"]["again"] = {"op": "words_num_filter"}


def _empty_interval(content):
    content["datasets"]["similar"]["filter"] = {"image_text_similarity": {"min": 0.5, "max": 0.2}}


def _two_verbs(content):
    content["datasets"]["similar"]["repeat"] = 2


def _no_verb(content):
    content["datasets"]["similar"] = {"from": "pool"}


def _cycle(content):
    content["datasets"]["a"] = {"from": "b", "repeat": 2}
    content["datasets"]["b"] = {"from": "a", "repeat": 3}


def _twins(content):
    content["datasets"]["x"] = {"from": "pool", "filter": {"words_num": {"min": 50}}}
    content["datasets"]["y"] = {"from": "pool", "filter": {"words_num": {"min": 50}}}


def _twins_by_parent(content):
    content["datasets"]["x"] = {"from": "similar", "repeat": 7}
    content["datasets"]["similar_too"] = copy.deepcopy(content["datasets"]["similar"])
    content["datasets"]["y"] = {"from": "similar_too", "repeat": 7}


def _several_stats(content):
    content["datasets"]["x"] = {"from": "pool", "filter": {"image_shape": {"min": 50}}}


def _word_by_number(content):
    content["datasets"]["x"] = {"from": "pool", "filter": {"language_id.lang": {"min": 0.5}}}


def _fraction(content):
    content["datasets"]["x"] = {"from": "pool", "rank": {"by": "words_num", "fraction": 1.7}}


def _pool_name(content):
    content["datasets"]["pool"] = {"from": "similar", "repeat": 2}


def _bad_name(content):
    content["recipes"]["my recipe/1"] = {"dataset": "pool"}


def _same_recipe(content):
    content["recipes"]["x"] = {"dataset": "matched"}


def _recipe_override(content):
    content["recipes"]["best"]["training"] = {"pretrain": {"learning_rat": 1}}


def _seed_twice(content):
    content["recipes"]["best"]["seeds"] = [1, 1]


def _same_file_name(content):
    content["pool"]["files"][1]["name"] = content["pool"]["files"][0]["name"]


def _baseline(content):
    content["report"]["baseline"] = "matchde"


def _recipe_model(content):
    content["recipes"]["best"]["training"] = {"architecture": {"language_model": "gema"}}


def _recipe_defaults(content):
    content["recipes"]["x"] = {"dataset": "matched", "trainset": {"cap": content["trainset"]["cap"]}}


def _odd_batch(content):
    content["training"]["pretrain"]["device_batch"] = 5


def _rank_by_word(content):
    content["datasets"]["x"] = {"from": "pool", "rank": {"by": "language_id.lang", "top": 3}}


def _endless_rate(content):
    content["training"]["pretrain"]["learning_rate"] = float("inf")


def _not_a_number(content):
    content["datasets"]["similar"]["filter"]["image_text_similarity"] = {"min": float("nan")}


def _captioner(content):
    content["datasets"]["rewritten"]["recaption"]["captioner"] = "blip3"


def _from_itself(content):
    content["recipes"]["best"]["training"] = {"start_from": {"recipe": "matched"}}
    content["recipes"]["matched"]["training"] = {"start_from": {"recipe": "best"}}


def _start_unknown(content):
    content["recipes"]["best"]["training"] = {"start_from": {"recipe": "mached"}}


def _start_without_seed(content):
    content["recipes"]["best"]["training"] = {"start_from": {"recipe": "similar"}}


def _start_of_another_kind(content):
    content["recipes"]["best"]["training"] = {
        "start_from": {"recipe": "matched", "seed": 1},
        "architecture": {"image_size_aux": 128},
    }


def _kit_that_starts_from_a_run(content):
    kit = {"path": "toolkit/training", "python": "bin/python"}
    content["recipes"]["best"]["training"] = {"kit": kit, "start_from": {"recipe": "matched", "seed": 1}}


def _kit_in_fp32(content):
    kit = {"path": "toolkit/training", "python": "bin/python"}
    content["training"] |= {"kit": kit, "pretrain": {"precision": "fp32"}}


def _kit_with_another_drop_path(content):
    kit = {"path": "toolkit/training", "python": "bin/python"}
    content["recipes"]["best"]["training"] = {"kit": kit, "architecture": {"drop_path": 0.2}}


def _pool_file(content):
    content["datasets"]["x"] = {"from": "pool", "files": ["stage1"]}


def _bands(content):
    content["datasets"]["x"] = {"from": "pool", "cluster": {"by": "x", "clusters": 2, "rows": 9, "bands": {"far": 0.5}}}


def _analysis_of_words(content):
    content["analyses"] = {"x": {"dataset": "pool", "operators": ["language_id.lang"]}}


def _analysis_published(content):
    content["analyses"] = {"x": {"dataset": "pool", "operators": ["words_num"], "published": {"words": {"mean": 9}}}}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_operator_op, "did you mean `words_num_filter`"),
        (_threshold_in_operator, "a threshold is no part of a score"),
        (_wrong_parameter, "one of avg, max, min expected"),
        (_same_operator_twice, "the same as operators.words_num"),
        (_empty_interval, "min 0.5 is above max 0.2"),
        (_two_verbs, "found filter and repeat"),
        (_no_verb, "found none"),
        (_cycle, "a -> b -> a"),
        (_twins, "datasets.y: the same as datasets.x"),
        (_twins_by_parent, "the same as datasets."),
        (_several_stats, "write one of `image_shape.image_width`"),
        (_word_by_number, "use `one_of"),
        (_fraction, "datasets.x.rank.fraction"),
        (_pool_name, "`pool` is the name of the raw pairs"),
        (_bad_name, "recipes.my recipe/1: names are lower-case"),
        (_same_recipe, "trains the same as recipes.matched"),
        (_recipe_override, "did you mean `learning_rate`"),
        (_seed_twice, "the same seed is listed twice"),
        (_same_file_name, "their shards would collide"),
        (_baseline, "did you mean `matched`"),
        (_recipe_model, "recipes.best.training.architecture.language_model: there is no model `gema`"),
        (_recipe_defaults, "trains the same as recipes.matched"),
        (_odd_batch, "no multiple of device_batch 5"),
        (_rank_by_word, "rank by a number"),
        (_not_a_number, "finite number"),
        (_endless_rate, "training.pretrain.learning_rate: Input should be a finite number"),
        (_captioner, "no captioner `blip3`"),
        (_from_itself, "recipes.matched.training.start_from: starts from itself: matched -> best -> matched"),
        (_start_unknown, "did you mean `matched`"),
        (_start_without_seed, "start_from.seed: similar has no run with seed 2, 3; its seeds: 1"),
        (_start_of_another_kind, "matched has another architecture"),
        (_kit_that_starts_from_a_run, "best.training.start_from: only our own training goes on from a run"),
        (_kit_in_fp32, "best.training.pretrain.precision: the kit's program trains in bf16"),
        (_kit_with_another_drop_path, "architecture.drop_path: the kit's program knows 0 and 0.1 alone"),
        (_pool_file, "did you mean `stage_1`"),
        (_analysis_of_words, "analyses.x.operators.language_id.lang: this score is no number"),
        (_analysis_published, "published figures of words, which `operators` does not name"),
        (_bands, "add up to 1.25, not to 1"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_impossible_configurations_are_refused(content, change, expected):
    change(content)
    assert expected in refusal(content)


def test_a_key_twice_is_refused_with_its_line(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("pool:\n  images: a\n  images: b\n")
    with pytest.raises(ConfigurationError, match="line 3: the key `images` appears twice"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("pool: {images: a\nmodels: [", "line 2: not YAML: "),
        ("a: 1\nb: 010\n", "line 2: YAML reads 010 as 8; quote it ('010')"),
        ("a: [1:30]\n", "line 1: YAML reads 1:30 as 90; quote it"),
        ("a: 0x1F\n", "YAML reads 0x1F as 31; quote it"),
        ("a: 1:30.5\n", "YAML reads 1:30.5 as 90.5; quote it"),
        ("010: x\n", "YAML reads 010 as 8; quote it"),
        ("a:\n\tb: c\n", "line 2: not YAML: "),
    ],
)
def test_what_yaml_reads_otherwise_is_refused_with_file_and_line(tmp_path, written, said):
    path = tmp_path / "odd.yaml"
    path.write_text(written)
    with pytest.raises(ConfigurationError, match=f"(?s){re.escape(str(path))}.*{re.escape(said)}"):
        read_yaml(path)


def test_numbers_as_people_write_them_are_read(tmp_path):
    path = tmp_path / "plain.yaml"
    path.write_text("a: [0, 10, 0.5, -3, 1_000, 1.0e-4, '010', '1:30', .inf]\n")
    assert read_yaml(path)["a"] == [0, 10, 0.5, -3, 1000, 1e-4, "010", "1:30", float("inf")]


@pytest.mark.parametrize(
    ("written", "key", "said"),
    [
        ("datasets: {x: {from: pool, filter: {language_id.lang: {one_of: [no]}}}}", "one_of.0", "quote it"),
        ("datasets: {x: {from: pool, filter: {words_num: {min: yes}}}}", "words_num.min", "quote it"),
        ("datasets: {x: {from: pool, rank: {by: {words_num: on}, top: 3}}}", "rank.by", "quote it"),
        ("datasets: {x: {from: pool, repeat: yes}}", "repeat", "quote it"),
        ("datasets: {x: {from: off, repeat: 2}}", "datasets.x.from", "quote it"),
        ("datasets: {no: {from: pool, repeat: 2}}", "datasets.False", "quote it"),
        ("report: {title: 2024-01-01}", "report.title", "quote it"),
        ("recipes: {best: {dataset: best, training: {pretrain: {learning_rate: yes}}}}", "learning_rate", "quote it"),
        ("datasets: {x: {from: pool, filter: {words_num: {min_score: 3}}}}", "min_score", "did you mean `min`"),
        (
            "operators: {x: {op: video_nsfw_filter}}",
            "x.op",
            "it scores videos, and records here",
        ),
        (
            "operators: {x: {op: audio_size_filter}}",
            "x.op",
            "it scores sounds, and records here",
        ),
        ("operators: {x: {op: suffix_filter}}", "x.op", "it gives no score"),
        ("operators: {x: {op: llm_quality_score_filter}}", "x.op", "jobs have no network"),
        ("operators: {x: {op: image_blur_mapper}}", "x.op", "is a mapper of Data-Juicer's"),
        ("operators: {x: {op: alphanumeric_filer}}", "x.op", "did you mean `alphanumeric_filter`"),
        ("operators: {x: {op: alphanumeric_filter, parameters: {min_ratio: 1}}}", "min_ratio", "write it in a dataset"),
        ("operators: {x: {op: alphanumeric_filter, parameters: {tokenization: 1}}}", "tokenization", "bool expected"),
        ("operators: {x: {op: stopwords_filter}}", "x.model", "loads a model"),
    ],
)
def test_words_that_yaml_does_not_read_as_words_are_told(content, tmp_path, written, key, said):
    path = tmp_path / "mine.yaml"
    path.write_text(written)
    for section, entries in read_yaml(path).items():
        content[section] |= entries
    [line] = [line for line in refusal(content).splitlines() if key in line]
    assert said in line


def test_yes_and_no_are_read_where_they_are_meant(content):
    content["datasets"]["x"] = {"from": "pool", "rank": {"by": "words_num", "top": 3, "descending": False}}
    assert configure(content, "mine.yaml").datasets["x"].rank.descending is False


def test_a_missing_file_lists_what_there_is(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigurationError, match=r"config/miniature\.yaml"):
        load("config/minature.yaml")


def test_recipes_change_only_what_they_name(content):
    content["recipes"]["best"]["training"] = {"pretrain": {"learning_rate": 0.5}}
    configuration = configure(content, "config/mine.yaml")
    changed, common = recipe_training(configuration, "best"), recipe_training(configuration, "matched")
    assert changed.pretrain.learning_rate == 0.5
    assert changed.pretrain.model_copy(update={"learning_rate": common.pretrain.learning_rate}) == common.pretrain
    assert changed.finetune == common.finetune


@pytest.mark.parametrize(("path", "text"), [("config/schema.json", schema), ("docs/configuration.md", page)])
def test_generated_references_are_current(path, text):
    assert (ROOT / path).read_text(encoding="utf-8") == text(), f"{path} is stale; run: make reference"

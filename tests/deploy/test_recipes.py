"""Data-Juicer's recipes in and out: the rows that `dj-process` keeps are the rows of the datasets here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from workflow import CONFIGURATION, MODELS, ROOT

from bench._steps import STEPS
from bettersynth.cli.main import commands
from bettersynth.configuration import load
from bettersynth.core.errors import PersonError
from bettersynth.core.layout import Layout
from bettersynth.core.records import POOL
from bettersynth.core.tables import read_table
from bettersynth.deploy.recipes_in import Imported, ProcessError, read_process
from bettersynth.deploy.recipes_out import NoCounterpartError, process_of
from bettersynth.workflow.plan import Plan
from miniature.render import render_world

CLIP = "openai/clip-vit-base-patch32"
PROCESS = [
    {"words_num_filter": {"min_num": 8, "max_num": 40}},
    {"image_shape_filter": {"min_width": 90, "min_height": 90}},
    {"document_deduplicator": {"lowercase": False}},
    {"image_text_similarity_filter": {"hf_clip": CLIP, "min_score": 0.2, "max_score": 0.9, "any_or_all": "all"}},
    {"image_size_filter": {"max_size": "1MB"}},
    "word_repetition_filter",
    {"image_text_similarity_filter": {"hf_clip": CLIP, "min_score": 0.25}},
]
"""As a contestant has it, models by their names on the hub."""
BY_HAND = {
    "wordy": {"from": "pool", "filter": {"words_num": {"min": 8, "max": 40}}},
    "shaped": {"from": "wordy", "filter": {f"image_shape.image_{side}": {"min": 90} for side in ("width", "height")}},
    "distinct": {"from": "shaped", "dedup": {"by": "text"}},
    "similar": {"from": "distinct", "filter": {"similarity": {"min": 0.2, "max": 0.9, "any_or_all": "all"}}},
    "small": {"from": "similar", "filter": {"image_size": {"max": 1 << 20}}},
    "varied": {"from": "small", "filter": {"word_repetition": {"min": 0.0, "max": 0.5}}},
    "best": {"from": "varied", "filter": {"similarity": {"min": 0.25, "max": 1.0}}},
}
"""The same as datasets."""


def run(*arguments: object) -> str:
    """What the command says."""
    found = CliRunner().invoke(commands, list(map(str, arguments)))
    if found.exception:
        raise found.exception
    return found.output


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """The miniature's pairs, and configurations `hand.yaml` (datasets by hand) and `imported.yaml`, all built."""
    folder = tmp_path_factory.mktemp("recipes")
    render_world(folder / "data", records=40, second_records=4, textvqa=1, mmbench=1, instructions=1, faults=False)
    hand = {
        "pool": {"files": [{"name": "raw", "path": "data/mgm_pretrain_stage_1.jsonl"}], "images": "data"},
        "models": {"clip": {"path": str(MODELS / "clip"), "hub": CLIP}},
        "operators": {
            "similarity": {"op": "image_text_similarity_filter", "model": "clip"},
            "words_num": {"op": "words_num_filter"},
            "word_repetition": {"op": "word_repetition_filter"},
            "image_shape": {"op": "image_shape_filter"},
            "image_size": {"op": "image_size_filter"},
        },
        "datasets": BY_HAND,
    }
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path("hand.yaml").write_text(yaml.safe_dump(hand, sort_keys=False))
        Path("process.yaml").write_text(yaml.safe_dump({"process": PROCESS}, sort_keys=False))
        run("import-recipe", "process.yaml", "--like", "hand.yaml", "--to", "imported.yaml")
        for name in ("hand", "imported"):
            built(name)
    finally:
        os.chdir(before)
    return folder


def built(name: str) -> None:
    """Take in, score and build all datasets of a configuration, as its jobs do."""
    configuration = load(f"{name}.yaml")
    layout, plan = Layout(f"results/{name}"), Plan(configuration)
    STEPS["ingest"](configuration, layout, plan, "raw")
    STEPS["index"](configuration, layout, plan)
    for operator in configuration.operators:
        for step in ("score", "gather"):
            STEPS[step](configuration, layout, plan, POOL, operator)
    for dataset in configuration.datasets:
        STEPS["dataset"](configuration, layout, plan, dataset)


def ids(name: str, dataset: str) -> list[str]:
    return read_table(Layout(f"results/{name}").rows(dataset))["id"].to_pylist()


@pytest.mark.models
def test_an_imported_recipe_has_the_rows_of_datasets_written_by_hand(world, monkeypatch):
    monkeypatch.chdir(world)
    imported = load("imported.yaml")
    assert len(imported.datasets) == len(BY_HAND) and imported.models["clip"].path == str(MODELS / "clip")
    assert len(imported.operators) == 5, "one that is asked twice is one, and scores once"
    for here, there in zip(imported.datasets, BY_HAND, strict=True):
        assert ids("imported", here) == ids("hand", there), (here, there)
    assert 3 < len(ids("hand", "best")) < 40


@pytest.mark.models
def test_dj_process_keeps_the_rows_of_an_exported_recipe(world, monkeypatch):
    """And its output is a file of the pool."""
    monkeypatch.chdir(world)
    run("export-recipe", "--config", "hand.yaml", "--dataset", "best", "--to", "best.process.yaml")
    settings = yaml.safe_load(Path("best.process.yaml").read_text())
    settings |= {"dataset_path": "data/mgm_pretrain_stage_1.jsonl", "export_path": "out/best.jsonl", "np": 1}
    settings |= {"use_cache": False, "open_monitor": False, "work_dir": str(world), "strict_preflight": False}
    Path("run.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    offline = {"HF_HUB_OFFLINE": "1", "UV_OFFLINE": "1", "PIP_NO_INDEX": "1", "HF_HOME": str(world / "hf")}
    program = Path(sys.executable).with_name("dj-process")
    finished = subprocess.run(
        [program, "--config", "run.yaml"], env=os.environ | offline, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    rows = [json.loads(line) for line in Path("out/best.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ids("hand", "best")
    again = {"pool": {"files": [{"name": "raw", "path": "out/best.jsonl"}], "images": "data"}, "operators": {}}
    Path("again.yaml").write_text(yaml.safe_dump(again))
    built("again")
    assert read_table(Layout("results/again").index)["id"].to_pylist() == ids("hand", "best")


@pytest.mark.models
def test_a_contestants_recipe_has_the_rows_that_the_contests_configuration_has(world, monkeypatch):
    """`matched` of `config/contest.yaml`, and the same list as Data-Juicer has it, over the miniature."""
    monkeypatch.chdir(world)
    Path("models").symlink_to(ROOT / "models")
    contest = yaml.safe_load((ROOT / "config" / "contest.yaml").read_text())
    wanted = {name: contest["datasets"][name] for name in ("grounded", "matched")}
    operators = {key for node in wanted.values() for key in node["filter"]}
    folders = {"owlvit-base-patch32": "owlvit", "blip-itm-base-coco": "blip_itm"}
    models = {contest["operators"][name]["model"] for name in operators}
    hand = yaml.safe_load(Path("hand.yaml").read_text())
    small = {
        "pool": hand["pool"],
        "models": {
            name: {"path": str(MODELS / folders[entry["hub"].partition("/")[2]]), "hub": entry["hub"]}
            for name, entry in contest["models"].items()
            if name in models
        },
        "operators": {name: contest["operators"][name] for name in operators},
        "datasets": wanted,
    }
    Path("contest.yaml").write_text(yaml.safe_dump(small, sort_keys=False))
    process = [
        {"phrase_grounding_recall_filter": {"hf_owlvit": "google/owlvit-base-patch32", "min_recall": 0.5}},
        {"image_text_matching_filter": {"hf_blip": "Salesforce/blip-itm-base-coco", "min_score": 0.9984}},
    ]
    Path("contestant.yaml").write_text(yaml.safe_dump({"process": process}))
    run("import-recipe", "contestant.yaml", "--like", "contest.yaml", "--to", "as_imported.yaml")
    for name in ("contest", "as_imported"):
        built(name)
    imported = load("as_imported.yaml").datasets
    assert len(imported) == 2
    for here, there in zip(imported, wanted, strict=True):
        assert ids("as_imported", here) == ids("contest", there)
    assert 0 < len(ids("contest", "matched")) < len(ids("contest", "grounded")) < 40


@pytest.mark.models
def test_what_was_exported_is_imported_as_it_was(world, monkeypatch):
    monkeypatch.chdir(world)
    configuration = load("hand.yaml")
    imported = Imported(yaml.safe_load(Path("hand.yaml").read_text()))
    for number, step in enumerate(process_of("best", configuration), 1):
        ((op, arguments),) = step.items()
        imported.add(number, op, arguments)
    assert not imported.notes
    thresholds = [list(node["filter"].values()) for node in imported.datasets.values() if "filter" in node]
    assert thresholds[2] == [{"min": 0.2, "max": 0.9, "any_or_all": "all"}] and thresholds[-1] == [
        {"min": 0.25, "max": 1.0}
    ]


def test_a_dataset_that_data_juicer_cannot_make_is_refused_at_its_step(tmp_path):
    datasets = {
        **BY_HAND,
        "half": {"from": "similar", "sample": {"fraction": 0.5}},
        "after": {"from": "half", "filter": {"words_num": {"min": 3}}},
        "near": {"from": "pool", "dedup": {"by": "text", "near": True}},
        "ours": {"from": "pool", "filter": {"detail": {"min": 0.5}}},
        "captions": {"from": "pool", "filter": {"caption_words": {"min": 3}}},
    }
    operators = {
        "similarity": {"op": "image_text_similarity_filter", "model": "clip"},
        **{
            f"{name}": {"op": f"{name}_filter"}
            for name in ("words_num", "word_repetition", "image_shape", "image_size")
        },
        "detail": {"op": "image_ssim"},
        "caption_words": {"op": "words_num_filter", "parameters": {"text": "caption"}},
    }
    pool = {"files": [{"name": "raw", "path": "raw.jsonl"}], "images": "."}
    content = {"pool": pool, "models": {"clip": {"path": "clip"}}, "operators": operators, "datasets": datasets}
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(content))
    configuration = load(tmp_path / "all.yaml")
    said = {
        "after": r"datasets\.half: `sample` .* make export-recipe DATASET=similar",
        "near": r"datasets\.near: `dedup`",
        "ours": r"datasets\.ours\.filter\.detail: image_ssim is an operator of ours",
        "captions": r"words_num_filter with `text` is ours",
    }
    for dataset, words in said.items():
        with pytest.raises(NoCounterpartError, match=words):
            process_of(dataset, configuration)


def test_captioning_and_diffusion_become_generators_and_the_rest_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = [
        {
            "image_captioning_mapper": {
                "caption_num": 3,
                "keep_candidate_mode": "similar_one_simhash",
                "keep_original_sample": False,
            }
        },
        {"image_diffusion_mapper": {"strength": 0.5, "keep_original_sample": True, "aug_num": 2}},
        {"clean_links_mapper": None},
        {"image_text_similarity_filter": {"min_score": 0.3, "reversed_range": True}},
        {"no_such_filter": {}},
        {"image_watermark_filter": {"prob_threshold": 0.6}},
        {"language_id_score_filter": {"lang": ["en", "fr"], "min_score": 0.5}},
        {"document_deduplicator": {"lowercase": True}},
    ]
    Path("all.yaml").write_text(yaml.safe_dump({"process": process}))
    Path("like.yaml").write_text(yaml.safe_dump(CONFIGURATION))
    said = run("import-recipe", "all.yaml", "--like", "like.yaml", "--to", "made.yaml")
    made = load("made.yaml")
    captioner = next(iter(made.captioners.values()))
    assert (captioner.candidates, captioner.keep) == (3, "similar_one_simhash")
    assert made.models[captioner.model].hub == "Salesforce/blip2-opt-2.7b"
    assert next(iter(made.redrawers.values())).strength == 0.5
    verbs = [made.datasets[name].verb for name in Plan(made).lineage(made.recipes["imported"].dataset)]
    assert [verb.name for verb in verbs] == ["recaption", "redraw", "filter", "filter"]
    assert verbs[-1].root["language_id_score.lang"].one_of == ["en", "fr"]
    assert verbs[-1].root["language_id_score.lang_score"].min == 0.5
    assert "random_like_imported" in made.recipes
    for words in (
        "step 2, image_diffusion_mapper: aug_num without a counterpart",
        "step 3, clean_links_mapper: a mapper without a counterpart; left out",
        "step 4, image_text_similarity_filter: reversed_range without a counterpart; left out",
        "step 5, no_such_filter: no operator of the installed Data-Juicer",
        "step 8, document_deduplicator: texts are compared as they are",
    ):
        assert words in said and words in Path("made.yaml").read_text()
    with pytest.raises(PersonError, match=r"made\.yaml: is there already"):
        run("import-recipe", "all.yaml", "--like", "like.yaml", "--to", "made.yaml")


def test_a_file_without_steps_is_refused(tmp_path):
    for content, words in (("a: 1", "no list `process`"), ("process: [{a: 1, b: 2}]", "step 1"), ("[", "YAML")):
        (tmp_path / "p.yaml").write_text(content)
        with pytest.raises(ProcessError, match=words):
            read_process(tmp_path / "p.yaml")

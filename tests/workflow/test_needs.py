import copy
import shutil

from workflow import CONFIGURATION, MODELS, ROOT

from bettersynth.configuration import configure
from bettersynth.core.layout import Layout
from bettersynth.core.publish import write_json
from bettersynth.workflow.jobs import Jobs
from bettersynth.workflow.manifest import check_needs
from bettersynth.workflow.needs import Needs, configuration_needs, data_files
from bettersynth.workflow.passes import Chunk

MGM = ("clip", "convnext", "gemma")


def configuration(**changes):
    return configure({**copy.deepcopy(CONFIGURATION), "name": "small", **changes}, "test")


def test_a_configuration_needs_what_its_rules_load():
    models = {**CONFIGURATION["models"], "spare": {"path": "models/spare"}}
    assert configuration_needs(configuration(models=models)) == Needs(("blip2", *MGM), ())


def test_a_changed_byte_in_a_resource_is_found(tmp_path, monkeypatch):
    whole = (ROOT / "models" / "lid.176.ftz").read_bytes()
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "models" / "lid.176.ftz"
    file.parent.mkdir()
    for content, count in ((whole, 0), (whole[:-1] + bytes([whole[-1] ^ 1]), 1)):
        file.write_bytes(content)
        problems = list(check_needs(Needs((), ("lid_176",)), configuration(), "small.yaml"))
        assert len(problems) == count
    assert "altered" in problems[0].what and problems[0].command == "rm -r models/lid.176.ftz && make setup"


def test_a_model_without_what_its_class_opens_is_found(tmp_path):
    shutil.copytree(MODELS / "clip", tmp_path / "clip")
    changed = configuration(models={**CONFIGURATION["models"], "clip": {"path": str(tmp_path / "clip")}})
    assert list(check_needs(Needs(("clip",), ()), changed, "small.yaml")) == []
    (tmp_path / "clip" / "model.safetensors").rename(tmp_path / "clip" / "model.fp16.safetensors")
    (problem,) = check_needs(Needs(("clip",), ()), changed, "small.yaml")
    assert problem.path == tmp_path / "clip" and "only model.fp16.safetensors, which is not opened" in problem.what


def test_a_recipe_needs_less():
    assert configuration_needs(configuration(), "unfiltered") == Needs(MGM, ())
    assert configuration_needs(configuration(), "best") == Needs(("blip2", *MGM), ())


def test_a_captioner_that_chooses_by_an_operator_needs_its_model():
    captioners = {"blip2": {"model": "blip2", "candidates": 2, "keep": {"best_by": "judge"}}}
    models = {**CONFIGURATION["models"], "judge": {"path": "models/judge"}}
    operators = {**CONFIGURATION["operators"], "judge": {"op": "image_text_similarity_filter", "model": "judge"}}
    changed = configuration(captioners=captioners, models=models, operators=operators)
    wildcards = {"source": "rewritten", "shard": "rewritten-0000"}
    assert Jobs(changed, Layout("results/small")).job("recaption", wildcards).needs.models == ("blip2", "judge")
    assert "judge" in configuration_needs(changed, "best").models
    assert "judge" not in configuration_needs(changed, "unfiltered").models


def test_a_dataset_cleaned_by_language_needs_the_operators_model(tmp_path):
    datasets = {
        **CONFIGURATION["datasets"],
        "english": {"from": "pool", "clean": {"language": {"operator": "language"}}},
    }
    changed = configuration(
        models={**CONFIGURATION["models"], "lid": {"path": "models/lid.176.bin"}},
        operators={**CONFIGURATION["operators"], "language": {"op": "language_id_score_filter", "model": "lid"}},
        datasets=datasets,
        recipes={**CONFIGURATION["recipes"], "english": {"dataset": "english"}},
    )
    assert Jobs(changed, Layout(tmp_path))["clean"].needs("english", "english-0000") != Needs((), ())
    plain = configuration_needs(changed, "unfiltered")
    assert set(
        configuration_needs(changed, "english").models + configuration_needs(changed, "english").resources
    ) > set(plain.models + plain.resources)


def test_taggers_at_a_models_path_are_resources():
    changed = configuration(
        models={**CONFIGURATION["models"], "spacy": {"path": "models/en_core_web_md-3.8.0"}},
        operators={**CONFIGURATION["operators"], "actions": {"op": "text_action_filter", "model": "spacy"}},
    )
    needs = configuration_needs(changed)
    assert needs.models == ("blip2", *MGM) and "spacy_en" in needs.resources


def test_a_job_needs_what_it_loads(tmp_path):
    layout = Layout(tmp_path)
    chunk = Chunk("gpu-0123456789ab", "stage_1-0000-0002")
    write_json(layout.scoring_pass(chunk.scoring), {"operators": {"similarity": "x", "gone": "y"}})
    wildcards = {
        "score_neural": {"source": "pool", **chunk._asdict()},
        "recaption": {"source": "rewritten", "shard": "rewritten-0000"},
        "pretrain": {"recipe": "best", "seed": "1"},
        "dataset": {"dataset": "best"},
    }
    jobs = Jobs(configuration(), layout)
    found = {rule: jobs.job(rule, values).needs.models for rule, values in wildcards.items()}
    assert found == {"score_neural": ("clip",), "recaption": ("blip2",), "pretrain": MGM, "dataset": ()}


def test_data_files_are_named_once():
    files = data_files(configuration())
    assert len(files) == len(set(files))
    assert {"data/stage_1.json", "data/textvqa/TextVQA_0.5.1_val.json", "data/truth.parquet"} <= set(files)

"""The whole graph for real, on a small world: what it makes, and what a change makes it do again."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hard_pairs import add_hard_pairs
from workflow import CONFIGURATION, ROOT, Run

from miniature.render import render_world

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    """A run of every phase, from raw pairs to the report; its second file ends with every hard kind of pair."""
    folder = tmp_path_factory.mktemp("finished")
    render_world(folder / "data", records=60, second_records=12, textvqa=12, mmbench=6, instructions=48, faults=True)
    hard = add_hard_pairs(folder / "data", "stage_2")
    configuration = copy.deepcopy(CONFIGURATION)
    configuration["pool"]["max_quarantined"] = 0.8
    configuration["datasets"] |= {
        "hard": {"from": "pool", "files": "stage_2"},
        "hard_rewritten": {"from": "hard", "recaption": {"captioner": "blip2", "seed": 0}},
    }
    configuration["recipes"]["hard"] = {"dataset": "hard_rewritten", "seeds": [1]}
    run = Run(folder, configuration)
    run.hard = hard
    run.snakemake()
    return run


@pytest.fixture
def run(finished, tmp_path) -> Run:
    """The finished run, copied to another place."""
    return finished.copy(tmp_path / "elsewhere")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_every_phase_left_its_files(finished):
    results = finished.results
    assert (results / "report" / "index.html").stat().st_size > 10_000
    leaderboard = json.loads((results / "report" / "leaderboard.json").read_text())
    assert {entry["recipe"] for entry in leaderboard["recipes"]} == {"unfiltered", "best", "hard"}
    for seed in ("1", "2"):
        for benchmark in ("textvqa", "mmbench"):
            assert (results / "runs" / "best" / f"seed-{seed}" / "evaluation" / benchmark / "result.json").exists()
    verdicts = json.loads((results / "runs" / "best" / "seeds.json").read_text())
    assert sorted(entry["verdict"] for entry in verdicts["seeds"]) == ["go", "stopped"]


def test_every_line_of_the_pool_is_accounted_for(finished):
    for name in ("stage_1", "stage_2"):
        ledger = json.loads((finished.results / "pool" / "files" / f"{name}.json").read_text())
        raw = (finished.folder / "data" / f"mgm_pretrain_{name}.jsonl").read_bytes().splitlines()
        quarantined = lines(finished.results / "pool" / "files" / f"{name}.quarantine.jsonl")
        assert ledger["lines"] == len(raw) == ledger["rows"] + sum(ledger["quarantined"].values()) + ledger["blank"]
        assert len(quarantined) == sum(ledger["quarantined"].values())


def test_every_hard_pair_is_trained_on_or_refused_with_its_reason(finished):
    results, (sound, refused) = finished.results, finished.hard
    ledger = json.loads((results / "pool" / "files" / "stage_2.json").read_text())
    assert ledger["quarantined"] == dict(refused)
    index = pq.read_table(results / "pool" / "index.parquet")["id"].to_pylist()
    assert sound <= set(index) and len(sound) + 12 == ledger["rows"]
    scored = {
        name: pq.read_table(results / "scores" / "pool" / f"{name}.parquet") for name in ("similarity", "words_num")
    }
    for name, table in scored.items():
        assert sound <= set(table["id"].to_pylist()), name
    trained = json.loads((results / "trainsets" / "hard.json").read_text())
    assert sound <= {entry["id"] for entry in trained}
    for seed in (results / "runs" / "hard").glob("seed-*"):
        assert json.loads((seed / "evaluation" / "textvqa" / "result.json").read_text())["status"] == "done"


def test_no_job_takes_more_than_two_gigabytes_of_hard_pictures(finished):
    measured = [path.read_text().splitlines() for path in (finished.folder / "benchmarks").rglob("*.tsv")]
    column = measured[0][0].split("\t").index("max_rss")
    megabytes = [row.split("\t")[column] for _, *rows in measured for row in rows]
    assert len(measured) > 30 and max(float(number) for number in megabytes if number not in ("-", "NA")) < 2_000


def test_every_ledger_adds_up(finished):
    for name in finished.configuration["datasets"]:
        folder = finished.results / "datasets" / name
        card = json.loads((folder / "card.json").read_text())
        ledger = card["ledger"]
        assert ledger["in"] + ledger["added"] == ledger["out"] + sum(ledger["dropped"].values())
        assert pq.read_metadata(folder / "rows.parquet").num_rows == ledger["out"] == card["rows"]
        assert pq.read_metadata(folder / "dropped.parquet").num_rows == sum(ledger["dropped"].values())


def test_a_second_run_does_nothing_even_elsewhere(run):
    assert "Nothing to be done" in run.announced()


def test_a_misspelt_recipe_is_named_with_the_nearest_and_all_others(run):
    recipes = list(run.configuration["recipes"])
    result = run.snakemake("--dry-run", f"recipe_{recipes[0]}x", check=False)
    said = f"no recipe `{recipes[0]}x`; did you mean `{recipes[0]}`? There are: {', '.join(recipes)}"
    assert result.returncode and said in result.stdout + result.stderr


def test_a_dry_run_foretells_the_hours_within_an_order_of_magnitude(run):
    files = [*(run.folder / "benchmarks").rglob("*.tsv")]
    spent = sum(float(lines(file)[-1].split("\t")[0]) for file in files) / 3600
    output = run.snakemake("--dry-run", "--forceall", "--logger", "cost").stdout
    (total,) = [line.split() for line in output.splitlines() if line.startswith("total ") and "MB" in line]
    foretold = sum(float(hours) for hours in total[2:4] if hours != "-")
    assert spent / 10 < foretold < 10 * spent, output
    assert "past runs" in output and "on cpu" in output


def test_touched_files_rerun_nothing(run):
    for path in [*(run.folder / "data").rglob("*"), *run.results.rglob("*.parquet"), *run.results.rglob("*.json*")]:
        os.utime(path)
    assert run.would_run() == {}
    # the default profile lifts Snakemake's limit on the size of what it compares by contents
    assert "max-checksum-file-size: 1000000000000" in (ROOT / "profiles" / "default" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("path", "rules"),
    [
        ("finetune/mgm_instruction_stage_1.json", {"instructions", "finetune", "answer", "score_answers"}),
        ("textvqa/TextVQA_0.5.1_val.json", {"score_answers"}),
        ("textvqa/llava_textvqa_val_v051_ocr.jsonl", {"answer", "score_answers"}),
        ("truth.parquet", {"report"}),
    ],
)
def test_other_contents_of_an_input_rerun_what_reads_it(run, path, rules):
    file = run.folder / "data" / path
    file.write_bytes(file.read_bytes() + b" ")
    assert run.would_run().keys() - {"leaderboard", "early_loss", "report"} == rules - {"report"}


def test_other_checks_of_images_score_again_in_the_same_run(run):
    changed = copy.deepcopy(run.configuration)
    changed["pool"]["max_pixels"] = 10_000
    run.configure(changed)
    run.snakemake("datasets")
    assert run.would_run("datasets") == {}


def test_another_seed_leaves_the_others_alone(run):
    changed = copy.deepcopy(run.configuration)
    changed["recipes"]["unfiltered"]["seeds"] = [1, 7]
    run.configure(changed)
    assert run.would_run("recipe_unfiltered") == {"pretrain": 1, "finetune": 1, "answer": 1, "score_answers": 2}


def test_answers_of_the_same_model_are_not_generated_again(run):
    folder = run.results / "runs" / "unfiltered" / "seed-1" / "evaluation" / "mmbench"
    before = (folder / "answers.jsonl").stat().st_mtime_ns
    run.snakemake("--forcerun", "answer", "--", "recipe_unfiltered")
    assert (folder / "answers.jsonl").stat().st_mtime_ns == before


def test_a_model_that_is_not_there_is_not_taken_for_the_last_one(run):
    changed = copy.deepcopy(run.configuration)
    changed["models"]["clip"]["path"] += "-missing"
    run.configure(changed)
    assert run.would_run("scores") == {"score_neural": 2, "scores_of": 1}
    words = f"{changed['models']['clip']['path']}: not there\n    put the model there, or correct `models.clip.path` in"
    assert words in run.snakemake("--dry-run", "--logger", "cost", "--", "scores").stdout
    started = run.snakemake("--", "scores", check=False)
    assert started.returncode != 0 and words in started.stderr.partition("Execute 1 jobs")[0]


def test_a_key_twice_is_refused_by_snakemake_too(run):
    path = run.folder / "small.yaml"
    path.write_text(path.read_text() + "trainset: {cap: 3}\n")
    result = run.snakemake("--dry-run", check=False)
    assert result.returncode != 0 and "the key `trainset` appears twice" in result.stdout + result.stderr


def test_a_comment_in_a_script_reruns_nothing(run, tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    ignored = shutil.ignore_patterns(".venv", ".git", "results", "data", "models", ".snakemake", "logs", "benchmarks")
    shutil.copytree(ROOT, checkout, symlinks=True, ignore=ignored)
    for script in (checkout / "scripts").glob("*.py"):
        script.write_text(script.read_text() + "# a comment\n")
    output = run.snakemake("--dry-run", "--snakefile", str(checkout / "Snakefile")).stdout
    assert "Nothing to be done" in output


def test_a_threshold_scores_nothing_and_touches_only_what_is_below(run):
    changed = copy.deepcopy(run.configuration)
    changed["datasets"]["better"]["filter"]["similarity"]["min"] = -0.5
    run.configure(changed)
    jobs = run.would_run()
    assert jobs["dataset"] == 3, jobs  # better, spliced, best
    assert not jobs.keys() & {"score_neural", "score_plain", "recaption", "ingest_stage_1"}
    assert (jobs["trainset"], jobs["probe"], jobs["export"]) == (1, 2, 4)
    assert "Nothing to be done" in run.announced("recipe_unfiltered")


def change_a_word(run):
    """In the first record's caption."""
    path = run.folder / "data" / "mgm_pretrain_stage_1.jsonl"
    first, rest = path.read_text(errors="surrogateescape").split("\n", 1)
    record = json.loads(first)
    record["text"] = record["text"].replace("<__dj__image>\n", "<__dj__image>\nreally ")
    path.write_text(json.dumps(record) + "\n" + rest, errors="surrogateescape")


def test_odd_instructions_are_said_before_stage_1_is_paid_for(run):
    """The whole list, and not a job of stage 1; dropped, they are on record and stage 1 stays as it is."""
    path = run.folder / "data" / "finetune" / "mgm_instruction_stage_1.json"
    rows = json.loads(path.read_text())
    rows[1] = "hello"
    pictured = [row for row in rows if isinstance(row, dict) and row.get("image")]
    gone = pictured[0]["image"]
    (run.folder / "data" / "finetune" / gone).unlink()
    path.write_text(json.dumps(rows))
    seeds = copy.deepcopy(run.configuration)
    seeds["recipes"]["unfiltered"]["seeds"] = [1, 7]
    run.configure(seeds)
    failed = run.snakemake("recipe_unfiltered", check=False)
    output = failed.stdout + failed.stderr
    assert failed.returncode and "1 × not an object" in output and "× image missing" in output and gone in output
    assert not list((run.results / "runs" / "unfiltered" / "seed-7").rglob("card.json"))

    seeds["training"]["finetune"] |= {"unusable": "drop", "unusable_share": 0.2}
    run.configure(seeds)
    (run.results / "runs" / "unfiltered" / "seed-1" / "pretrain" / "log.jsonl").unlink()
    run.snakemake("recipe_unfiltered")
    cards = (json.loads(path.read_text()) for path in (run.results / "instructions").glob("*.card.json"))
    (card,) = (card for card in cards if card["parameters"]["unusable"] == "drop")
    trained = json.loads((run.results / "runs" / "unfiltered" / "seed-7" / "finetune" / "card.json").read_text())
    assert card["dropped"] >= 2 and trained["rows"] == card["rows"] == len(rows) - card["dropped"]
    assert not (run.results / "runs" / "unfiltered" / "seed-1" / "pretrain" / "log.jsonl").exists(), "trained again"


def test_one_changed_word_scores_one_shard(run):
    change_a_word(run)
    jobs = run.would_run("scores")
    assert jobs == {"ingest_stage_1": 1, "pool_index": 1, "score_neural": 1, "score_plain": 1, "scores_of": 2}
    folder = run.results / "scores" / "pool" / "similarity"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    run.snakemake("scores")
    assert run.would_run("scores") == {}
    new = set(folder.glob("*.parquet")) - before.keys()
    assert len(before) == 4 and len(new) == 1, "the chunk's other shards keep their scores"
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    card = json.loads((run.results / "pool" / "index.json").read_text())
    assert card["rows"] == pq.read_metadata(run.results / "pool" / "index.parquet").num_rows


def test_another_file_scores_only_its_own_shards(run):
    data = run.folder / "data"
    lines_of_two = (data / "mgm_pretrain_stage_2.jsonl").read_bytes().splitlines()  # later ones are no text
    records = [json.loads(line) for line in lines_of_two[:5]]
    named = [(f"7{record['id'][1:]}", record) for record in records] + [(records[0]["id"], records[0])]
    more = [
        {
            "id": name,
            "image": record["images"][0],
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is it?"},
                {"from": "gpt", "value": record["text"].removeprefix("<__dj__image>\n").removesuffix(" <|__dj__eoc|>")},
            ],
        }
        for name, record in named
    ]
    (data / "more.json").write_text(json.dumps(more))  # in LLaVA's form, with questions of its own
    changed = copy.deepcopy(run.configuration)
    changed["pool"]["files"].append({"name": "more", "path": "data/more.json"})
    run.configure(changed)
    jobs = run.would_run("scores")
    assert jobs == {"ingest_more": 1, "pool_index": 1, "score_neural": 1, "score_plain": 1, "scores_of": 2}
    run.snakemake("pool")
    card = json.loads((run.results / "pool" / "index.json").read_text())
    assert card["duplicate_across_files"] == 1


def test_another_order_of_the_files_gathers_the_scores_again(run):
    changed = copy.deepcopy(run.configuration)
    changed["pool"]["files"].reverse()
    run.configure(changed)
    assert run.would_run("scores") == {"pool_index": 1, "scores_of": 2}, "of an id in two files, the first one's counts"


def test_another_operator_scores_only_itself(run):
    changed = copy.deepcopy(run.configuration)
    changed["operators"]["image_shape"] = {"op": "image_shape_filter"}
    run.configure(changed)
    assert run.would_run("scores") == {"score_plain": 2, "scores_of": 1}


def test_another_model_invalidates_its_scores(run):
    model = run.folder / "clip"
    shutil.copytree(ROOT / "resources" / "miniature" / "models" / "clip", model)
    changed = copy.deepcopy(run.configuration)
    changed["models"]["clip"]["path"] = str(model)
    run.configure(changed)
    assert run.would_run("scores") == {}, "the same model in another place"
    weights, times = model / "model.safetensors", (model / "model.safetensors").stat()
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1  # between its first and its last MiB
    weights.write_bytes(data)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run.would_run("scores") == {"score_neural": 2, "scores_of": 1}


def test_operators_due_together_share_a_pass(run):
    changed = copy.deepcopy(run.configuration)
    changed["operators"] |= {"image_shape": {"op": "image_shape_filter"}, "text_length": {"op": "text_length_filter"}}
    changed["datasets"]["long"] = {"from": "wordy", "filter": {"text_length": {"min": 10}}}
    run.configure(changed)
    assert run.would_run("results/small/datasets/long/rows.parquet") == {
        "score_plain": 2,
        "scores_of": 1,
        "dataset": 1,
    }, "a dataset's own file asks for what it reads"
    assert run.would_run("scores") == {"score_plain": 2, "scores_of": 2}
    run.snakemake("results/small/datasets/long/rows.parquet")
    assert not (run.results / "scores" / "pool" / "image_shape").exists()
    assert run.would_run("scores") == {"score_plain": 2, "scores_of": 1}


def test_an_operator_that_changes_or_goes_leaves_the_others_of_its_pass(run):
    changed = copy.deepcopy(run.configuration)
    changed["operators"] |= {"image_shape": {"op": "image_shape_filter"}, "repeats": {"op": "word_repetition_filter"}}
    run.configure(changed)
    run.snakemake("scores")
    changed["operators"]["repeats"]["parameters"] = {"rep_len": 2}
    run.configure(changed)
    assert run.would_run("scores") == {"score_plain": 2, "scores_of": 1}
    del changed["operators"]["repeats"]
    run.configure(changed)
    assert run.would_run("scores") == {}

    change_a_word(run)
    assert run.would_run("scores")["score_plain"] == 2
    run.snakemake("scores")
    assert run.would_run("scores") == {}


def test_a_page_of_what_is_there_so_far_leaves_the_report_alone(run):
    (run.results / "runs" / "best" / "seed-2" / "evaluation" / "mmbench" / "result.json").unlink()
    before = (run.results / "report" / "index.html").stat().st_mtime_ns
    command = [sys.executable, "-m", "bettersynth", "page", "--config", "small.yaml"]
    subprocess.run(command, cwd=run.folder, check=True, env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")})
    assert "best has 3 of 4 evaluations" in (run.results / "report" / "so_far" / "index.html").read_text()
    assert (run.results / "report" / "index.html").stat().st_mtime_ns == before


def test_a_failing_job_names_record_and_log(run):
    changed = copy.deepcopy(run.configuration)
    changed["pool"]["check_images"] = "never"  # or the graph sees the picture, and its record goes into quarantine
    run.configure(changed)
    image = sorted((run.folder / "data" / "images" / "00000").glob("*.jpg"))[0]
    image.write_bytes(b"gone")
    (run.results / "trainsets" / "unfiltered.json").unlink()
    result = run.snakemake("results/small/trainsets/unfiltered.json", check=False)
    output = result.stdout + result.stderr
    assert result.returncode != 0
    assert image.name in output and "logs/small/trainset/unfiltered.log" in output


def test_a_wrong_configuration_stops_before_the_graph(run):
    changed = copy.deepcopy(run.configuration)
    changed["datasets"]["wordy"]["filter"]["words_num"] = {"mim": 3}
    run.configure(changed)
    result = run.snakemake("--dry-run", check=False)
    assert result.returncode != 0
    assert "did you mean `min`" in result.stdout + result.stderr


def test_snakemakes_own_report_holds_the_page_and_states_thresholds(finished, tmp_path):
    finished.snakemake("--report", str(tmp_path / "report.html"))
    report = (tmp_path / "report.html").read_text()
    assert "index.html" in report and "wordy, of pool: words_num ≥ 6" in report.replace("\\u2265", "≥")


def test_the_rules_and_files_are_drawn(run):
    assert "digraph" in run.snakemake("--rulegraph").stdout
    assert "score_neural" in run.snakemake("--dag", "--forceall").stdout

"""Where every file of a run lies: the one place that knows the names of `docs/files.md`."""

from __future__ import annotations

from pathlib import Path

from bettersynth.core.records import POOL

CARD = "card.json"
"""What a training stage's folder holds beside its result: what was done."""
CHECKPOINT = "checkpoint"
"""The model in the folder of stage 2."""
FOLDERS = frozenset(
    {"pool", "sources", "scores", "datasets", "analyses", "exports", "trainsets"}
    | {"instructions", "benchmarks", "runs", "report"}
)
"""Folders of results; beside them lies what is known of who is at work and of what was received."""


class Layout:
    """Paths below the results folder of one configuration; makes no folder and reads no file."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def holds(self, path: Path) -> bool:
        """Whether a path is one of a result: not a lease, nor what is remembered of inputs, nor a hidden file."""
        if not path.is_relative_to(self.root) or path in (self.digests, self.looks):
            return False
        folder, *rest = path.relative_to(self.root).parts or ("",)
        return folder in FOLDERS and bool(rest) and not any(part.startswith(".") for part in rest)

    # beside the results
    @property
    def logs(self) -> Path:
        """Folder of the jobs' logs."""
        return Path("logs") / self.root.name

    @property
    def benchmarks(self) -> Path:
        """Folder in which Snakemake writes down how long jobs took."""
        return Path("benchmarks") / self.root.name

    # who is at work
    @property
    def driver(self) -> Path:
        """Lease of the Snakemake that runs this configuration; see `bettersynth.runtime.driver`."""
        return self.root / "driver.json"

    def lease(self, log: str | Path) -> Path:
        """Lease of the job that writes the log `logs/<configuration>/…`."""
        return self.root / "leases" / Path(log).relative_to(self.logs).with_suffix(".json")

    # pool
    def order(self, file: str) -> Path:
        """Ids of one raw file in its order, with their shards."""
        return self.root / "pool" / "files" / f"{file}.order.parquet"

    def images(self, file: str) -> Path:
        """Images of one raw file as ingest read them: shard, size, times and sha256."""
        return self.root / "pool" / "files" / f"{file}.images.parquet"

    def seen(self, file: str) -> Path:
        """Images of one raw file that were read again while the graph was built, since their times had changed."""
        return self.root / "pool" / "files" / f"{file}.seen.parquet"

    def quarantine(self, file: str) -> Path:
        """Refused records of one raw file."""
        return self.root / "pool" / "files" / f"{file}.quarantine.jsonl"

    def file_ledger(self, file: str) -> Path:
        """Card of one raw file: lines = records + quarantined."""
        return self.root / "pool" / "files" / f"{file}.json"

    @property
    def index(self) -> Path:
        """Ids of the whole pool in order, with their shards."""
        return self.root / "pool" / "index.parquet"

    @property
    def index_card(self) -> Path:
        """Card of the index."""
        return self.root / "pool" / "index.json"

    @property
    def digests(self) -> Path:
        """Cache of the raw files' digests, written when the graph is built."""
        return self.root / "pool" / "digests.json"

    @property
    def looks(self) -> Path:
        """What looking at the pool's images came to, when the graph was last built."""
        return self.root / "pool" / "images.json"

    # what is remembered of inputs that may not be on this machine, written when the graph is built
    @property
    def models(self) -> Path:
        """Identities of the models, as they last were here."""
        return self.root / "models.json"

    @property
    def inputs(self) -> Path:
        """Digests of other input files, as they last were here."""
        return self.root / "inputs.json"

    @property
    def received(self) -> Path:
        """Folder of the manifests of bundles that were opened here: `work-….json`, `results-….json`."""
        return self.root / "received"

    @property
    def is_carried(self) -> bool:
        """Whether the run was carried here in a bundle, with only what its next jobs read."""
        return any(self.received.glob("work-*.json"))

    # sources and scores
    def records(self, source: str, shard: str) -> Path:
        """Records of one shard."""
        folder = self.root / POOL if source == POOL else self.root / "sources" / source
        return folder / "records" / f"{shard}.parquet"

    def records_card(self, source: str, shard: str) -> Path:
        """Card of a generated shard."""
        return self.records(source, shard).with_suffix(".json")

    def failed(self, source: str, shard: str) -> Path:
        """Rows that a generator could not make, with reasons."""
        return self.records(source, shard).with_suffix(".failed.parquet")

    def source_images(self, source: str) -> Path:
        """Folder of the images that a redrawer drew."""
        return self.root / "sources" / source / "images"

    def work(self, source: str, shard: str) -> Path:
        """A generator's journal, from which a killed shard resumes."""
        return self.root / "sources" / source / ".work" / f"{shard}.jsonl"

    def scoring_pass(self, scoring: str) -> Path:
        """Definition of a pass: its operators and their fingerprints, written when the graph is built."""
        return self.root / "scores" / "passes" / f"{scoring}.json"

    def pass_card(self, source: str, scoring: str, chunk: str) -> Path:
        """Card of a pass over a chunk of shards: which score shards hold what it found."""
        return self.root / "scores" / source / "passes" / scoring / f"{chunk}.json"

    def score_shard(self, source: str, operator: str, shard: str, key: str) -> Path:
        """Scores of one shard; `key` tells the operator's settings and the records apart."""
        return self.root / "scores" / source / operator / f"{shard}-{key}.parquet"

    def scores(self, source: str, operator: str) -> Path:
        """Scores of one operator for a whole source."""
        return self.root / "scores" / source / f"{operator}.parquet"

    def scores_card(self, source: str, operator: str) -> Path:
        """Card of an operator's scores."""
        return self.scores(source, operator).with_suffix(".json")

    # datasets
    def rows(self, dataset: str) -> Path:
        """Rows `(id, source)` of a dataset; of `pool`, the index."""
        return self.index if dataset == POOL else self.root / "datasets" / dataset / "rows.parquet"

    def dropped(self, dataset: str) -> Path:
        """Rows that a dataset left out, with reasons."""
        return self.root / "datasets" / dataset / "dropped.parquet"

    def dataset_card(self, dataset: str) -> Path:
        """Card of a dataset; of `pool`, the index's."""
        return self.index_card if dataset == POOL else self.root / "datasets" / dataset / "card.json"

    def analysis(self, name: str) -> Path:
        """Quartiles of scores over a dataset."""
        return self.root / "analyses" / f"{name}.json"

    def export(self, dataset: str, form: str) -> Path:
        """Folder of an exported dataset."""
        return self.root / "exports" / dataset / form

    # training and evaluation
    @property
    def held_out(self) -> Path:
        """The pairs that no recipe trains on, in the form of a training file."""
        return self.root / "held_out" / "pairs.json"

    @property
    def held_out_card(self) -> Path:
        """Card of the held-out pairs."""
        return self.held_out.with_name(CARD)

    def trainset(self, recipe: str) -> Path:
        """Training file of a recipe."""
        return self.root / "trainsets" / f"{recipe}.json"

    def trainset_dropped(self, recipe: str) -> Path:
        """Rows of a recipe's dataset that the cap left out of its training file."""
        return self.root / "trainsets" / f"{recipe}.dropped.parquet"

    def trainset_card(self, recipe: str) -> Path:
        """Card of a training file."""
        return self.root / "trainsets" / f"{recipe}.card.json"

    def instructions(self, name: str) -> Path:
        """What is used of an instruction set, as stage 2 trains on it."""
        return self.root / "instructions" / f"{name}.json"

    def instructions_card(self, name: str) -> Path:
        """Card of an instruction set."""
        return self.root / "instructions" / f"{name}.card.json"

    def preflight(self, name: str) -> Path:
        """That an instruction set was looked at: what stage 1 waits for."""
        return self.root / "instructions" / f"{name}.preflight.json"

    def used_instructions(self, name: str) -> Path:
        """Which rows stage 2 trains on, by their digest: what it waits for."""
        return self.root / "instructions" / f"{name}.used.json"

    @staticmethod
    def findings(checked: Path) -> Path:
        """What a preflight found, beside the file that it writes."""
        return checked.with_suffix(".findings.jsonl")

    def questions_card(self, benchmark: str) -> Path:
        """Card of the preflight of a benchmark's questions and pictures."""
        return self.root / "benchmarks" / f"{benchmark}.json"

    def run(self, recipe: str, seed: int | str) -> Path:
        """Folder of one recipe's run with one seed."""
        return self.root / "runs" / recipe / f"seed-{seed}"

    def probe(self, recipe: str, seed: int | str, rung: str = "probe") -> Path:
        """Folder of the probe up to a rung: `probe`, `probe-2` and on."""
        return self.run(recipe, seed) / rung

    def seeds(self, recipe: str, choice: str = "seeds") -> Path:
        """Verdict on a recipe's seeds at a rung: `seeds`, `seeds-2` and on."""
        return self.root / "runs" / recipe / f"{choice}.json"

    def pretrain(self, recipe: str, seed: int | str) -> Path:
        """Folder of stage 1."""
        return self.run(recipe, seed) / "pretrain"

    def finetune(self, recipe: str, seed: int | str) -> Path:
        """Folder of stage 2."""
        return self.run(recipe, seed) / "finetune"

    def answers(self, recipe: str, seed: int | str, benchmark: str) -> Path:
        """The model's answers to a benchmark's questions."""
        return self.run(recipe, seed) / "evaluation" / benchmark / "answers.jsonl"

    def answers_card(self, recipe: str, seed: int | str, benchmark: str) -> Path:
        """Card of the answers."""
        return self.answers(recipe, seed, benchmark).with_name("card.json")

    def result(self, recipe: str, seed: int | str, benchmark: str) -> Path:
        """A benchmark's scores."""
        return self.run(recipe, seed) / "evaluation" / benchmark / "result.json"

    # report
    @property
    def history(self) -> Path:
        """Every board that a report showed, with what made it; a line each."""
        return self.leaderboard.with_name("history.jsonl")

    @property
    def configuration(self) -> Path:
        """The configuration of the last report, with every default."""
        return self.leaderboard.with_name("configuration.yaml")

    @property
    def claim(self) -> Path:
        """Which configuration file's results these are."""
        return self.root / "configuration.json"

    @property
    def leaderboard(self) -> Path:
        """The leaderboard as JSON."""
        return self.root / "report" / "leaderboard.json"

    @property
    def leaderboard_csv(self) -> Path:
        """The same, a line for each recipe."""
        return self.leaderboard.with_suffix(".csv")

    @property
    def leaderboard_markdown(self) -> Path:
        """The same, to paste somewhere."""
        return self.leaderboard.with_suffix(".md")

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files, one folder a run."""
        return self.leaderboard.with_name("tensorboard")

    @property
    def mlflow(self) -> Path:
        """MLflow's store of the runs."""
        return self.leaderboard.with_name("mlflow.db")

    @property
    def early_loss(self) -> Path:
        """Whether an early loss tells which seeds do well."""
        return self.leaderboard.with_name("early_loss.json")

    def analysed(self, names: str) -> Path:
        """Folder with the figures of every score of a dataset, or of two beside each other."""
        return self.root / "report" / "analysis" / names

    @property
    def what_if(self) -> Path:
        """Folder with the rows that thresholds would keep."""
        return self.root / "report" / "what_if"

    @property
    def scores_table(self) -> Path:
        """All scores, captions and image paths as one table for other tools."""
        return self.root / "report" / "scores.parquet"

    @property
    def explorer(self) -> Path:
        """The page in which thresholds are chosen by looking."""
        return self.root / "report" / "explorer.html"

    @property
    def report_card(self) -> Path:
        """Card of the page and of what was remembered with it."""
        return self.report.with_name(CARD)

    @property
    def report(self) -> Path:
        """The report page."""
        return self.root / "report" / "index.html"

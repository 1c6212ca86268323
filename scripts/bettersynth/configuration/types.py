"""The typed configuration: every key, its default, its range and its meaning.

These types are the single source: ``config/schema.json`` and ``docs/configuration.md`` are generated
from them (``make reference``), and a test shows the difference when they are stale.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

NAME_PATTERN = r"[a-z0-9][a-z0-9_]*"
"""Names of files, models, operators, datasets and recipes; also Snakemake's ``wildcard_constraints``."""

Name = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$", max_length=80)]
Precision = Literal["bf16", "fp16", "fp32"]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
ExportFormat = Literal["data_juicer", "llava", "parquet", "webdataset"]
EXPORT_FORMATS: tuple[str, ...] = get_args(ExportFormat)


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PoolFile(Section):
    """One raw file of records, cut into its own shards, so that adding a file re-scores no other."""

    path: str = Field(description="JSONL in Data-Juicer's form or a JSON list in LLaVA's form; plain, .gz or .zst.")
    name: Name = Field(description="Prefix of this file's shards, such as `stage_1` in `stage_1-0007`.")
    shards: int = Field(1, ge=1, le=9999, description="Number of shards; a record's id decides its shard.")


class Pool(Section):
    """The raw pairs."""

    files: list[PoolFile] = Field(
        min_length=1, description="Raw files. When two hold the same id, the earlier file's record wins."
    )
    images: str = Field(description="Folder that the records' image paths are relative to.")
    restore: list[str] = Field(
        default_factory=list,
        description="LLaVA-form JSON files that hold each record's original question (the kit's `stage_1.json`).",
    )
    decode: bool = Field(
        True,
        description="Decode every image once at ingest, so that a damaged one is quarantined before anything is spent "
        "on it (410,000 images: minutes); off, only headers are read.",
    )
    max_pixels: int = Field(
        100_000_000, ge=1, description="A larger image (width × height, read from its header) is quarantined undecoded."
    )


class Model(Section):
    """A model folder on disk; nothing is ever fetched by a job."""

    path: str = Field(description="Folder that `from_pretrained` opens (or the file of a fastText model).")
    hub: str | None = Field(None, description="Repository on the hub that the folder is a copy of.")
    revision: str | None = Field(None, description="Commit of that repository.")


class Operator(Section):
    """A Data-Juicer operator with its model and parameters, thresholds excluded: what defines a score."""

    op: str = Field(description="Data-Juicer's operator name, such as `image_text_similarity_filter`.")
    model: Name | None = Field(None, description="Entry of `models` that the operator loads.")
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="Parameters of the operator that change its score (`horizontal_flip`, `reduce_mode`, `iou_thr` …).",
    )


class Scoring(Section):
    """How records are scored: how fast, never what comes out beyond 1e-3."""

    engine: Literal["local", "ray"] = Field(
        "local",
        description="Where operators run: in the job itself, or on Ray, through Data-Juicer's Ray dataset, for a pool "
        "that is to be scored by many nodes at one time.",
    )
    ray_address: str | None = Field(
        None,
        description="With `engine: ray`, the cluster: `auto`, or the `host:port` of its head. Not given: a Ray that "
        "the job starts and ends, on its own node.",
    )
    shards_per_job: int = Field(
        16,
        ge=1,
        description="Shards that one job scores at most: models are loaded once for all of them, and a job that is "
        "killed goes on with the shards it has not done.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Numbers inside the models; `auto` is fp16 on a GPU and fp32 on a CPU."
    )
    batch: int | None = Field(
        None,
        ge=1,
        description="Images in one forward pass. Not given: 16 on a CPU; on a GPU as many as its memory holds. Halved "
        "when memory runs out.",
    )
    workers: int | None = Field(
        None,
        ge=0,
        description="Processes that decode images. Not given: on a GPU one for each of the job's cores, at most 16; "
        "none on a CPU.",
    )

    @model_validator(mode="after")
    def _address_of_an_engine(self) -> Scoring:
        if self.ray_address is not None and self.engine != "ray":
            raise ValueError("ray_address is of the engine `ray`: add `engine: ray`, or leave it out")
        return self


class BestBy(Section):
    """Keep the candidate that an operator scores highest."""

    best_by: str = Field(description="Operator, or `operator.stat`; a record's values count by their mean.")

    @property
    def operator(self) -> str:
        """The operator's name."""
        return self.best_by.partition(".")[0]

    @property
    def stat(self) -> str:
        """The stat's name; empty for an operator's only one."""
        return self.best_by.partition(".")[2]


class Captioner(Section):
    """A model that writes captions, of the class that its folder names.

    BLIP-2 (OPT or Flan-T5), LLaVA-1.5, LLaVA-NeXT, Qwen2-VL, Qwen2.5-VL, InternVL or Florence-2.
    """

    model: Name = Field(description="Entry of `models`.")
    engine: Literal["transformers", "vllm"] = Field(
        "transformers",
        description="What runs the model. vLLM needs an environment of its own; BLIP-2 with Flan-T5 and Florence-2 are "
        "not served by it.",
    )
    prompt: str | None = Field(
        None,
        description="Text given with the image. None: BLIP-2's plain captions, Florence-2's `<CAPTION>`, and "
        "`Describe the image.` for models that answer questions, which see it in their own chat form.",
    )
    max_new_tokens: int = Field(128, ge=1, le=4096)
    sampling: bool = Field(True, description="Sample (Data-Juicer's way) or decode greedily.")
    temperature: float = Field(1.0, gt=0)
    candidates: int = Field(1, ge=1, le=32, description="Captions drawn for each image.")
    keep: Literal["random_any", "similar_one_simhash", "all"] | BestBy = Field(
        "random_any",
        description="Which candidates stay: Data-Juicer's `keep_candidate_mode`, or the best by an operator's score. "
        "With `all`, every one makes a record; its id ends in `~` and the candidate's number, from 1.",
    )
    min_words: int = Field(1, ge=1, description="A candidate with fewer words is not kept.")
    max_words: int = Field(10_000, ge=1, description="A candidate with more words is not kept.")
    batch: int = Field(
        256, ge=1, description="Images whose captions are written at one time; halved when they do not fit the memory."
    )
    precision: Precision = Field("bf16", description="Of weights and arithmetic on a GPU; a CPU computes in fp32.")
    workers: int = Field(4, ge=0, description="Processes that decode images; vLLM's engine does without.")

    @model_validator(mode="after")
    def _can_be_meant(self) -> Captioner:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is above max_words {self.max_words}: nothing could be kept")
        if self.candidates > 1 and not self.sampling:
            raise ValueError(f"{self.candidates} candidates without `sampling` would all be the same")
        return self


class Redrawer(Section):
    """A diffusion pipeline, of the class that the folder's `model_index.json` names: Stable Diffusion, XL or 3."""

    model: Name = Field(description="Entry of `models`: a diffusers folder.")
    strength: float | None = Field(
        0.8,
        gt=0,
        le=1,
        description="How much of the image is drawn over, from the image and its caption; "
        "`null` draws a square from the caption alone (text-to-image).",
    )
    guidance_scale: float = Field(7.5, ge=0, description="How closely the caption is followed; 0 for turbo models.")
    steps: int = Field(50, ge=1, le=1000, description="Steps of the whole schedule; 1 to 4 for turbo models.")
    size: int = Field(512, ge=8, description="Side of the square the image is drawn at, in pixels.")
    batch: int = Field(8, ge=1, description="Images drawn at one time; halved when they do not fit into the memory.")
    precision: Precision = Field("bf16", description="Of weights and arithmetic on a GPU; a CPU computes in fp32.")

    @model_validator(mode="after")
    def _draws_something(self) -> Redrawer:
        if self.strength is not None and int(self.strength * self.steps) < 1:
            raise ValueError(
                f"strength {self.strength:g} of {self.steps} steps is less than one step: nothing is drawn"
            )
        return self


# --- verbs ---------------------------------------------------------------------------------------


class Threshold(Section):
    """Data-Juicer's keep rule: a closed interval over the values of one record."""

    min: float | None = Field(None, allow_inf_nan=False, description="Smallest value kept.")
    max: float | None = Field(None, allow_inf_nan=False, description="Largest value kept.")
    one_of: list[str] | None = Field(None, description="Values kept of a score that is a word (language id).")
    any_or_all: Literal["any", "all"] = Field(
        "any", description="Whether one value inside is enough or every value must be."
    )

    @model_validator(mode="after")
    def _possible(self) -> Threshold:
        if self.min is None and self.max is None and not self.one_of:
            raise ValueError("a threshold needs `min`, `max` or `one_of`")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: nothing could be kept")
        return self


class Rank(Section):
    """Order rows by a score and keep a run of the best."""

    by: dict[str, float] = Field(min_length=1, description="Operators and their weights; a single name means weight 1.")
    top: int | None = Field(None, ge=1, description="Rows to keep.")
    fraction: float | None = Field(None, gt=0, le=1, description="Share of the rows to keep, instead of `top`.")
    skip: int = Field(0, ge=0, description="Best rows to leave out first.")
    descending: bool = Field(True, description="Whether the largest score is the best.")
    normalise: Literal["none", "min_max"] = Field(
        "none", description="Scale each score to 0…1 over the parent's rows before the weighted sum."
    )

    @field_validator("by", mode="before")
    @classmethod
    def _single(cls, value: Any) -> Any:
        return {value: 1.0} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_size(self) -> Rank:
        if (self.top is None) == (self.fraction is None):
            raise ValueError("give either `top` or `fraction`")
        return self


class Sample(Section):
    """A random part, chosen by seed and record id: the same rows whatever their order."""

    rows: int | None = Field(None, ge=1)
    fraction: float | None = Field(None, gt=0, le=1)
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_size(self) -> Sample:
        if (self.rows is None) == (self.fraction is None):
            raise ValueError("give either `rows` or `fraction`")
        return self


class Resample(Section):
    """Draw rows with replacement, by seed and record id: some appear several times, others not at all."""

    rows: int = Field(ge=1, description="Rows to draw; may be more than there are.")
    seed: Seed = 0


class Bands(Section):
    """Shares of a cluster's rows by distance from its centre: its nearest third, its middle third, its farthest."""

    near: float = Field(0.25, ge=0, le=1)
    middle: float = Field(0.5, ge=0, le=1)
    far: float = Field(0.25, ge=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> Bands:
        total = self.near + self.middle + self.far
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares near, middle and far add up to {total:g}, not to 1")
        return self


class Cluster(Section):
    """A random part that is spread over clusters of like rows: k-means over a vector score."""

    by: Name = Field(description="Operator whose score is a vector, such as `text_embedding`.")
    clusters: int = Field(ge=1, le=65536, description="Number of clusters.")
    rows: int = Field(ge=1, description="Rows to keep.")
    share: Literal["uniform", "proportional"] = Field(
        "uniform", description="As many rows from every cluster, as far as it has them, or as many as befit its size."
    )
    bands: Bands | None = Field(None, description="Shares by distance from the centre; random without.")
    seed: Seed = 0


class Recaption(Section):
    """Write a new caption for every row: makes a source of the dataset's name."""

    captioner: Name
    seed: Seed = 0
    keep_original: bool = Field(
        False,
        description="Whether the old row stays, before the new ones. A new record's id then ends in `~1`, as with "
        "`keep: all`: one id has one source.",
    )
    shards: int = Field(1, ge=1, le=9999)


class Redraw(Section):
    """Draw a new image for every row: makes a source of the dataset's name."""

    redrawer: Name
    seed: Seed = 0
    shards: int = Field(1, ge=1, le=9999)


class Language(Section):
    """Languages that captions may be in."""

    operator: Name = Field(description="Entry of `operators` with `op: language_id_score_filter`.")
    one_of: list[str] = Field(default_factory=lambda: ["en"], min_length=1, description="Languages kept.")
    min: float = Field(0.3, ge=0, le=1, description="Least confidence; a caption is short, and so is it.")


class Clean(Section):
    """Caption hygiene: rewrites captions and drops those beyond repair; makes a source of the dataset's name."""

    remove_phrases: list[str] = Field(
        default_factory=lambda: ["stock photo", "stock photos", "royalty free", "getty images", "© "],
        description="Cut from the end of a caption, with the punctuation before it.",
    )
    remove_control: bool = Field(True, description="Take control tokens such as `<eos>` or `<|im_end|>` out.")
    collapse_repeats: int = Field(
        8, ge=0, le=64, description="Longest run of words that is written once when it is repeated at once; 0 for none."
    )
    min_words: int = Field(1, ge=0)
    max_words: int = Field(10_000, ge=1)
    max_repetition: float = Field(
        1.0, ge=0, le=1, description="Largest share of words (of runs of words) that are repetitions of an earlier one."
    )
    repetition_words: int = Field(1, ge=1, le=64, description="Words of the runs that `max_repetition` counts.")
    refusals: list[str] = Field(
        default_factory=lambda: [
            *("i'm sorry", "i am sorry", "sorry, ", "i cannot", "i can't", "i'm unable", "i am unable", "i'm not able"),
            *("i am not able", "unfortunately, i", "as an ai"),
        ],
        description="A caption that begins so is an answer refused, not a caption.",
    )
    language: Language | None = Field(None, description="Captions in other languages are dropped.")
    shards: int = Field(1, ge=1, le=9999)


class Splice(Section):
    """Replace rows by those of another dataset with the same id; order and multiplicity stay."""

    dataset: Name = Field(description="Dataset whose rows go in.")
    unmatched: Literal["keep", "drop"] = Field(
        "keep",
        description="What becomes of a row that was rewritten, but whose new version is not in `dataset`: "
        "the original stays, or it goes.",
    )


class Dedup(Section):
    """Keep the first row of each group of equal or near-equal rows."""

    by: Literal["text", "image"] = "text"
    near: bool = Field(False, description="Near-duplicates too, not only equal ones.")
    similarity: float = Field(0.9, gt=0, le=1, description="Jaccard similarity of 3-word shingles (text, near).")
    distance: int = Field(4, ge=0, le=32, description="Hamming distance of 64-bit perceptual hashes (image, near).")


VERBS = (
    "files",
    "filter",
    "rank",
    "sample",
    "resample",
    "cluster",
    "union",
    "intersect",
    "subtract",
    "recaption",
    "redraw",
    "splice",
    "repeat",
    "dedup",
    "clean",
)
GENERATORS = ("recaption", "redraw", "clean")
"""Verbs that make a new source."""


class Dataset(Section):
    """A named node: a parent and exactly one verb."""

    from_: Name = Field(alias="from", description="`pool` or another dataset.")
    note: str | None = Field(None, description="A line for the report; changing it makes nothing again.")
    published_rows: int | None = Field(None, ge=0, description="Rows that the write-up states, for comparison.")
    files: list[Name] | None = Field(
        None, min_length=1, description="Keep rows whose record came from these pool files."
    )
    filter: dict[str, Threshold] | None = Field(
        None, description="Operator (or `operator.stat`) and its threshold; every one must hold."
    )
    rank: Rank | None = None
    sample: Sample | None = None
    resample: Resample | None = None
    cluster: Cluster | None = None
    union: list[Name] | None = Field(
        None, min_length=1, description="Datasets to add; of rows with one id the first stays."
    )
    intersect: list[Name] | None = Field(None, min_length=1, description="Keep rows whose id is in all of these.")
    subtract: list[Name] | None = Field(None, min_length=1, description="Drop rows whose id is in any of these.")
    recaption: Recaption | None = None
    redraw: Redraw | None = None
    splice: Splice | None = None
    repeat: int | None = Field(None, ge=1, le=1000, description="Times every row appears.")
    dedup: Dedup | None = None
    clean: Clean | None = None

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @field_validator("files", "union", "intersect", "subtract", mode="before")
    @classmethod
    def _single_name(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("splice", mode="before")
    @classmethod
    def _splice_name(cls, value: Any) -> Any:
        return {"dataset": value} if isinstance(value, str) else value

    @field_validator("clean", "dedup", mode="before")
    @classmethod
    def _all_defaults(cls, value: Any) -> Any:
        return {} if value is True else value

    @model_validator(mode="after")
    def _exactly_one_verb(self) -> Dataset:
        given = [verb for verb in VERBS if getattr(self, verb) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none"
            raise ValueError(f"a dataset has exactly one verb of {', '.join(VERBS)}; found {found}")
        return self

    @property
    def verb(self) -> str:
        """The one verb's name."""
        return next(verb for verb in VERBS if getattr(self, verb) is not None)

    @property
    def parameters(self) -> Any:
        """The verb's parameters: a `Section`, a dict of thresholds, a list of names or a number."""
        return getattr(self, self.verb)

    @property
    def parents(self) -> list[str]:
        """All datasets this one reads, `from` first."""
        if self.verb in ("union", "intersect", "subtract"):
            return [self.from_, *self.parameters]
        if self.splice:
            return [self.from_, self.splice.dataset]
        return [self.from_]


class StatedFigures(Section):
    """What was published of one score's distribution."""

    quartiles: list[float] | None = Field(None, min_length=3, max_length=3, description="25 %, 50 % and 75 %.")
    mean: float | None = None
    sd: float | None = Field(None, ge=0, description="Standard deviation.")


class Analysis(Section):
    """How scores are distributed over a dataset, as Data-Juicer's `dj-analyze` tells it."""

    dataset: Name = Field(description="`pool` or a dataset.")
    operators: list[str] = Field(min_length=1, description="Operators, or `operator.stat`, that score numbers.")
    row: str | None = Field(None, description="Row of the ledger of published experiments (`docs/contest.md`).")
    published: dict[str, StatedFigures] = Field(
        default_factory=dict, description="Published figures, by entry of `operators`, shown beside ours."
    )
    note: str | None = Field(None, description="A line for the report.")

    @model_validator(mode="after")
    def _published_are_analysed(self) -> Analysis:
        others = ", ".join(key for key in self.published if key not in self.operators)
        if others:
            raise ValueError(f"published figures of {others}, which `operators` does not name")
        return self


# --- training and evaluation ---------------------------------------------------------------------


class Trainset(Section):
    """How a dataset becomes the training file of stage 1."""

    cap: int | None = Field(
        200_000, ge=1, description="More rows than this are cut by the kit's own sampling: random.sample of the seed."
    )
    cap_seed: Seed = Field(1024, description="Seed of that sampling; the kit's is 1024.")
    question: str = Field(
        "Render a clear and concise summary of the photo.",
        description="Question for records when `pool.restore` names no file.",
    )


class Architecture(Section):
    """The parts MGM is put together from."""

    language_model: Name = Field(description="Gemma folder (entry of `models`).")
    vision_tower: Name = Field(description="CLIP vision folder; its last-but-one layer gives the visual tokens.")
    vision_tower_aux: Name = Field(description="ConvNeXt folder; its four stages give the high-resolution detail.")
    image_size_aux: int = Field(768, ge=32, description="Side of the square image, in pixels, that the ConvNeXt sees.")
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="Stochastic depth of the frozen ConvNeXt in training; the published code runs 0.1."
    )


RUNS_ONLY = frozenset(
    {"device_batch", "gradient_checkpointing", "compile", "save_steps", "workers", "instructions", "images"}
)
"""Keys of a stage that change how it runs, not what comes out; `instructions` count by their content."""


class Stage(Section):
    """One training stage."""

    global_batch: int = Field(256, ge=1, description="Samples an optimiser step sees, over all GPUs and accumulation.")
    device_batch: int = Field(8, ge=1, description="Samples in one forward pass on one device.")
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_ratio: float = Field(0.03, ge=0, le=1)
    epochs: float = Field(1.0, gt=0)
    max_length: int = Field(2048, ge=8, description="Tokens of a sequence, visual tokens included.")
    image_aspect: Literal["square", "pad"] = Field(
        "square", description="Centre crop (`square`) or padding to a square (`pad`)."
    )
    group_by_length: bool = Field(False, description="Batch samples of like length and modality together.")
    precision: Literal["bf16", "fp32"] = "bf16"
    gradient_checkpointing: bool = Field(
        False, description="Keep less for the backward pass and compute it again: less memory, a third more work."
    )
    compile: bool = Field(True, description="Compile the layers when training on a GPU: half a minute, then faster.")
    save_steps: int = Field(100, ge=1, description="Steps between resumable checkpoints.")
    workers: int = Field(4, ge=0, description="Processes that decode images.")

    @model_validator(mode="after")
    def _whole_passes(self) -> Stage:
        if self.global_batch % self.device_batch:
            raise ValueError(f"global_batch {self.global_batch} is no multiple of device_batch {self.device_batch}")
        return self


class Finetune(Stage):
    """Stage 2: the fixed instruction set."""

    global_batch: int = Field(128, ge=1)
    learning_rate: float = Field(2e-5, gt=0)
    image_aspect: Literal["square", "pad"] = "pad"
    group_by_length: bool = True
    gradient_checkpointing: bool = True
    instructions: str = Field(description="LLaVA-form JSON of the instruction set.")
    images: str = Field(description="Folder that its image paths are relative to.")


class Probe(Section):
    """The first steps of stage 1 for every seed, to see which seeds align."""

    steps: int = Field(50, ge=1)
    keep: int | None = Field(
        None,
        ge=1,
        description="Seeds that go on, by lowest probe loss; the others stay on record as stopped. "
        "Not given: every seed goes on, without a probe.",
    )


class StartFrom(Section):
    """A finished run of another recipe; both stages go on from its model instead of from the architecture's parts."""

    recipe: Name
    seed: Seed | None = Field(None, description="One of that recipe's seeds; each run's own seed if not given.")


KIT_PROGRAM = (
    "mgm/train/train_mem.py",
    "mgm/train/train.py",
    "mgm/train/llava_trainer.py",
    "scripts/zero2_offload.json",
)
"""What a checkout of the contest's kit must have to train with, and is told apart by."""


class Kit(Section):
    """The contest's own training program, run in the place of ours; see `docs/kit.md`."""

    path: str = Field(description="Folder that holds its `mgm/` and `scripts/`: the kit's `toolkit/training`.")
    python: str = Field(description="Python of the environment that the kit was installed into.")


class Training(Section):
    """From training set to checkpoint."""

    architecture: Architecture
    start_from: StartFrom | None = Field(
        None, description="Continue from another recipe's model, as the contest's final round did."
    )
    kit: Kit | None = Field(None, description="Train with the kit's own program. Not given: with ours.")
    pretrain: Stage = Stage()
    finetune: Finetune
    probe: Probe = Probe()


class TextVQA(Section):
    """TextVQA: read the text in the picture."""

    questions: str = Field(description="`llava_textvqa_val_v051_ocr.jsonl`.")
    annotations: str = Field(description="`TextVQA_0.5.1_val.json`.")
    images: str = Field(description="Folder of the images.")
    max_new_tokens: int = Field(128, ge=1)


class MMBench(Section):
    """MMBench: multiple choice under circular evaluation."""

    questions: str = Field(description="`mmbench_dev_20230712.tsv`, images inside.")
    max_new_tokens: int = Field(1024, ge=1)


class Evaluation(Section):
    """The two benchmarks of the contest."""

    textvqa: TextVQA
    mmbench: MMBench
    batch: int = Field(16, ge=1, description="Questions answered in one forward pass.")
    precision: Literal["fp16", "bf16", "fp32"] = "fp16"


class Published(Section):
    """What the write-up states of a recipe."""

    row: str | None = Field(None, description="Row of the ledger of published experiments (`docs/contest.md`).")
    rows: int | None = Field(None, ge=0, description="Rows before the cap.")
    tolerance: float = Field(0.02, ge=0, description="Share by which our rows may differ from the published ones.")
    mmbench: float | None = Field(None, ge=0, description="Ratio to the baseline.")
    textvqa: float | None = Field(None, ge=0, description="Ratio to the baseline.")
    source: str | None = Field(None, description="Where it is stated.")


class Recipe(Section):
    """A dataset that is trained and evaluated."""

    dataset: Name
    seeds: list[Seed] = Field(default_factory=lambda: [1], min_length=1)
    published: Published | None = None
    trainset: dict[str, Any] = Field(
        default_factory=dict, description="Keys of `trainset` that differ for this recipe."
    )
    training: dict[str, Any] = Field(
        default_factory=dict, description="Keys of `training`, nested, that differ for this recipe."
    )
    note: str | None = Field(None, description="A line for the leaderboard.")

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("the same seed is listed twice")
        return seeds


class Report(Section):
    """What the report shows."""

    baseline: Name | None = Field(
        None, description="Recipe the leaderboard is relative to; the first one if not given."
    )
    truth: str | None = Field(
        None,
        description="Parquet of the records' known truth (the miniature's), for precision and recall of each filter.",
    )
    title: str = "Which pairs make the better model?"


class Configuration(Section):
    """Everything that decides what is made."""

    name: Name | None = Field(None, description="Folder under `results/`; the configuration file's name if not given.")
    pool: Pool
    models: dict[Name, Model] = Field(default_factory=dict)
    operators: dict[Name, Operator] = Field(default_factory=dict)
    scoring: Scoring = Scoring()
    captioners: dict[Name, Captioner] = Field(default_factory=dict)
    redrawers: dict[Name, Redrawer] = Field(default_factory=dict)
    datasets: dict[Name, Dataset] = Field(default_factory=dict)
    analyses: dict[Name, Analysis] = Field(default_factory=dict)
    trainset: Trainset = Trainset()
    training: Training | None = Field(None, description="Needed by recipes; leave out to stop at datasets.")
    evaluation: Evaluation | None = Field(None, description="Needed by recipes.")
    recipes: dict[Name, Recipe] = Field(default_factory=dict)
    exports: dict[Name, list[ExportFormat]] = Field(
        default_factory=dict, description="Datasets to write out, and the formats."
    )
    report: Report = Report()

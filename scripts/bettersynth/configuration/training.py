"""From a dataset to a checkpoint: the training file, the model's parts, both stages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bettersynth.configuration.probe import Probe
from bettersynth.configuration.section import Name, Section, Seed

Unusable = Annotated[
    Literal["refuse", "drop"],
    Field(
        description="What becomes of rows that cannot be trained on: all are listed and nothing is trained (`refuse`), "
        "or they are left out, each on record (`drop`)."
    ),
]
UnusableShare = Annotated[
    float,
    Field(ge=0, le=1, description="With `unusable: drop`, a larger share of unusable rows is refused all the same."),
]


class Trainset(Section):
    """How a dataset becomes the training file of stage 1."""

    cap: int | None = Field(
        200_000, ge=1, description="More rows than this are cut by the kit's own sampling: random.sample of the seed."
    )
    cap_seed: Seed = Field(1024, description="Seed of that sampling; the kit's is 1024.")
    fill: bool = Field(
        False,
        description="Fewer rows than the cap are drawn again up to it, so that all sizes train for as many steps: the "
        "whole set as often as it goes in, and of the rest a random part by `cap_seed` and the ids.",
    )
    question: str = Field(
        "Render a clear and concise summary of the photo.",
        description="Question for records that came without one, when `pool.restore` names no file.",
    )
    unusable: Unusable = "refuse"
    unusable_share: UnusableShare = 0.01

    @model_validator(mode="after")
    def _filled_to_something(self) -> Trainset:
        if self.fill and self.cap is None:
            raise ValueError("`fill` draws rows again up to `cap`, and there is none")
        return self

    def rows(self, count: int) -> int:
        """Rows of the training file of a dataset of so many."""
        if self.cap is None or not count:
            return count
        return self.cap if self.fill else min(count, self.cap)

    def deciding(self) -> dict[str, Any]:
        """What decides the training file; what becomes of unusable rows, and `fill`, only where not the default."""
        usual = {key for key, default in (("unusable", "refuse"), ("fill", False)) if getattr(self, key) == default}
        return self.model_dump(exclude={"unusable_share", *usual})


class Architecture(Section):
    """The parts MGM is put together from."""

    language_model: Name = Field(description="Gemma folder (entry of `models`).")
    vision_tower: Name = Field(description="CLIP vision folder; its last-but-one layer gives the visual tokens.")
    vision_tower_aux: Name = Field(description="ConvNeXt folder; its four stages give the high-resolution detail.")
    image_size_aux: int = Field(768, ge=32, description="Side of the square image, in pixels, that the ConvNeXt sees.")
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="Stochastic depth of the frozen ConvNeXt in training; the published code runs 0.1."
    )


PREFLIGHT = ("unusable", "unusable_share", "published_forms", "image_paths")
"""Keys that decide which rows are trained on; these count by their content."""
RUNS_ONLY = frozenset(
    {"device_batch", "gradient_checkpointing", "compile", "save_steps", "workers", "instructions", "images", *PREFLIGHT}
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

    loss_mean: Literal["tokens", "passes"] = Field(
        "tokens",
        description="What a step's loss is the mean over: all its answers' tokens, however it is cut into forward "
        "passes (`tokens`), or the means of its passes of `device_batch` samples, as in the published program "
        "(`passes`).",
    )

    def deciding(self) -> dict[str, Any]:
        """What decides the result of a stage, apart from its data: passes do where the loss is a mean over them."""
        if self.loss_mean == "tokens":
            return self.model_dump(exclude={*RUNS_ONLY, "loss_mean"})
        return self.model_dump(exclude=set(RUNS_ONLY - {"device_batch"}))

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
    instructions: str = Field(
        description="Instruction set in LLaVA's form: a JSON list or JSON lines; plain, .gz or .zst."
    )
    images: str = Field(description="Folder that its image paths are relative to.")
    unusable: Unusable = "refuse"
    unusable_share: UnusableShare = 0.01
    published_forms: Literal["refuse", "accept"] = Field(
        "refuse",
        description="Forms of a conversation that the published program trains on, for better or worse: `<image>` in "
        "an answer, more than once, or with no image to it, an image without `<image>`, empty answers, and the model's "
        "own tokens in a text. They are unusable (`refuse`), or trained on as there (`accept`).",
    )
    image_paths: Literal["as_written", "published"] = Field(
        "as_written",
        description="`published`: as in the published program, `VG_100K` and `VG_100K_2` in a path are `images`, and "
        "an `ocr` picture that is not there is the one of that name with another ending.",
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

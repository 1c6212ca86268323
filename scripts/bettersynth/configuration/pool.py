"""The raw pairs, the models on disk, and how records are scored."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from bettersynth.configuration.section import Name, Section
from bettersynth.configuration.storage import keys_of_storages, storage_of


class PoolFile(Section):
    """One raw file of records, cut into its own shards, so that adding a file re-scores no other."""

    path: str = Field(
        description="JSONL in Data-Juicer's form or a JSON list in LLaVA's form, plain, .gz or .zst; WebDataset's tars "
        "or Parquet with pictures, one file or several by braces (`{00000..00331}.tar`) or `*`."
    )
    name: Name = Field(description="Prefix of this file's shards, such as `stage_1` in `stage_1-0007`.")
    shards: int = Field(1, ge=1, le=9999, description="Number of shards; a record's id decides its shard.")
    caption: str | None = Field(
        None,
        description="Of WebDataset, where captions are: an extension (not given: `txt`), or a key of the .json "
        "(`json.caption`). Of Parquet, a column (not given: `caption`, else `text`).",
    )
    image: str | None = Field(
        None,
        description="Of WebDataset, the extension of a sample's picture (not given: all that are pictures'). Of "
        "Parquet, a column of pictures or of their paths (not given: `image`, `images`, `jpg`, `png`, `webp`).",
    )
    id: str | None = Field(
        None,
        description="Of WebDataset, `key` (not given: this), or a key of the .json (`json.uid`). Of Parquet, a column "
        "(not given: `id`, else `key`). Of both, `hash`: from caption and picture's name.",
    )

    hub: str | None = Field(
        None,
        description="Where `make stage` has it from: `hf://datasets/OWNER/NAME@COMMIT/data/*.parquet`, into the folder "
        "of `path`. Jobs read `path` and nothing else.",
    )
    licence: str | None = Field(
        None, description="Licence of its pairs, for the card of what is published of them; changes nothing else."
    )

    @property
    def fields(self) -> dict[str, str]:
        """Where in a sample its parts are, as far as that is written."""
        written = {"caption": self.caption, "image": self.image, "id": self.id}
        return {key: value for key, value in written.items() if value is not None}

    @model_validator(mode="after")
    def _is_understood(self) -> PoolFile:
        storage = storage_of(self.path)
        if not storage.holds_records:
            raise ValueError(
                f"path: {self.path} is {storage.form}; name the JSON beside it here, and it in `pool.images`"
            )
        if odd := sorted(self.fields.keys() - storage.keys):
            forms = " and ".join(keys_of_storages()[odd[0]])
            raise ValueError(
                f"{odd[0]}: means nothing to {self.path}, which is read as {storage.form}; it is for {forms}"
            )
        return self


DeepGrey = Literal["scale", "clip"]


class Reading(NamedTuple):
    """How an image is read, wherever it is: the part of `pool` that decides it."""

    max_pixels: int = 100_000_000
    deep_grey: DeepGrey = "scale"


USUAL = Reading()


class Pool(Section):
    """The raw pairs."""

    files: list[PoolFile] = Field(
        min_length=1, description="Raw files. When two hold the same id, the earlier file's record wins."
    )
    images: str | list[str] | None = Field(
        None,
        description="Folder that the records' image paths are relative to, or a zip or tar file with the images; or a "
        "list of these, where an image is looked for in turn. Links and absolute paths may lead to what lies below one "
        "of them, nowhere else. Not needed where all files hold their pictures themselves.",
    )
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
        USUAL.max_pixels,
        ge=1,
        description="A larger image (width × height, read from its header) is quarantined undecoded.",
    )
    max_caption: int = Field(
        100_000,
        ge=1,
        description="Characters of the longest caption; a longer one is quarantined (spaCy takes a million).",
    )
    deep_grey: DeepGrey = Field(
        USUAL.deep_grey,
        description="Grey images of 16 bits or more: `scale` brings their range to 8 bits; `clip` takes all above 255 "
        "for white, as Data-Juicer does.",
    )

    check_images: Literal["changed", "always-hash", "never"] = Field(
        "changed",
        description="How the pool's images are held against those that were read in, whenever the graph is built: "
        "`changed` compares sizes, times and inodes and reads what differs in these (410,000 on a local disk: "
        "seconds); `always-hash` reads all; `never` looks at none, for a slow file system on which nothing is changed.",
    )
    max_quarantined: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Largest share of a raw file's lines that may be quarantined; beyond it the run stops after ingest "
        "and names the commonest reasons, for a wrong `images` folder or form quarantines nearly all.",
    )

    @model_validator(mode="after")
    def _has_images(self) -> Pool:
        without = [file.path for file in self.files if not storage_of(file.path).holds_pictures]
        if not self.images and without:
            raise ValueError(
                f"images: name the folder (or the zip or tar file) with the pictures of {', '.join(without)}"
            )
        return self

    @property
    def checks(self) -> dict[str, Any]:
        """What decides, beside the raw files and the images, which records are quarantined."""
        checks = {"max_pixels": self.max_pixels, "decode": self.decode}
        if self.max_caption != type(self).model_fields["max_caption"].default:
            checks["max_caption"] = self.max_caption
        return checks

    @property
    def reading(self) -> Reading:
        """How images are read."""
        return Reading(self.max_pixels, self.deep_grey)


class Model(Section):
    """A model folder on disk; nothing is ever fetched by a job."""

    path: str = Field(description="Folder that `from_pretrained` opens (or the file of a fastText model).")
    hub: str | None = Field(None, description="Repository on the hub that the folder is a copy of.")
    revision: str | None = Field(None, description="Commit of that repository.")


class Operator(Section):
    """A Data-Juicer operator with its model and parameters, thresholds excluded: what defines a score."""

    op: str = Field(
        description="A filter of Data-Juicer (`image_text_similarity_filter`), or an operator of ours or of a plug-in."
    )
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

"""Redrawers: diffusion pipelines that draw a record's images anew, from image and caption or from the caption alone.

Image-to-image takes the steps of Data-Juicer's `image_diffusion_mapper`: the image is squeezed into a square, drawn
over, and stretched back to its size. Text-to-image draws a square from the caption and leaves it one. Random numbers
are the record's own, drawn on the CPU, so that they are the same on every device.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from bettersynth.configuration.family import pipeline_family, redrawer_families
from bettersynth.configuration.generators import Redrawer
from bettersynth.configuration.types import Configuration
from bettersynth.core.digests import sha256_folder
from bettersynth.core.parallel import batches
from bettersynth.core.publish import publish, read_json, sha256_bytes
from bettersynth.core.records import Record, caption_of
from bettersynth.core.seeding import record_seed
from bettersynth.pool.images import ImageProblem, ImageReason, ImageRoots
from bettersynth.runtime.devices import BatchSize, default_device, model_dtype
from bettersynth.runtime.patches.model_code import ModelCodeError
from bettersynth.runtime.patches.weights import refuse_made_up_parts
from bettersynth.sources.base import Generation, Made, image_key, opened_images, prepare_offline

logger = logging.getLogger(__name__)

UNSAFE = "unsafe image"


class Drawing(NamedTuple):
    """What is asked for: a picture of `caption`, drawn over `image` where there is one."""

    key: str
    caption: str
    image: Image.Image | None
    size: tuple[int, int] | None = None
    """Width and height of the record's image, of which `image` has been squeezed already."""


Drawn = Image.Image | ImageReason | None
"""A picture, or why there is none; None where it is not safe."""


class Redrawing:
    """The generator of the verb `redraw`: every image of a record drawn anew; the text stays."""

    resumes = True

    def __init__(
        self, source: str, redrawer: str, seed: int, configuration: Configuration, roots: ImageRoots, images: Path
    ) -> None:
        self.source = source
        self.settings = configuration.redrawers[redrawer]
        self.folder = Path(configuration.models[self.settings.model].path)
        self.seed = seed
        self.roots = roots
        self.images = images
        self.facts = {
            "seed": self.seed,
            "redrawer": self.settings.model_dump(mode="json", exclude={"model", "batch"}),
            "model_sha256": sha256_folder(self.folder),
        }

    @cached_property
    def model(self) -> DiffusionModel:
        """The diffusion pipeline, opened when the first image is needed."""
        prepare_offline()
        return DiffusionModel(self.settings, self.folder, default_device())

    def open(self) -> None:
        """Open the pipeline now."""
        _ = self.model

    def make(self, records: Sequence[Record]) -> Iterator[Made]:
        """The records with new images, a batch at a time."""
        for numbers in batches(range(len(records)), self.settings.batch):
            yield dict(zip(numbers, self._redrawn([records[number] for number in numbers]), strict=True))

    def _redrawn(self, records: list[Record]) -> list[Generation]:
        asked = [self._drawings(record) for record in records]
        drawings_of_all = [
            drawing for drawings in asked if not isinstance(drawings, Generation) for drawing in drawings
        ]
        drawn = iter(self.model.draw(drawings_of_all, self.seed))
        generations = []
        for record, drawings in zip(records, asked, strict=True):
            if isinstance(drawings, Generation):
                generations.append(drawings)
                continue
            images = [next(drawn) for _ in drawings]
            reasons = [image or UNSAFE for image in images if not isinstance(image, Image.Image)]
            if reasons:
                generations.append(Generation([], str(reasons[0])))
            else:
                names = [
                    save_image(_squeezed(image, drawing.size or image.size), self.images)
                    for drawing, image in zip(drawings, images, strict=True)
                    if isinstance(image, Image.Image)
                ]
                generations.append(
                    Generation([record._replace(images=names, image_root=self.source, image_sha256=None)])
                )
        return generations

    def _drawings(self, record: Record) -> list[Drawing] | Generation:
        """What is asked for a record, or the failure of a damaged image."""
        caption = caption_of(record.text)
        if self.settings.strength is None:
            return [Drawing(image_key(record, number), caption, None) for number in range(len(record.images))]
        square = (self.settings.size, self.settings.size)
        try:
            return [
                Drawing(image_key(record, number), caption, _squeezed(image, square), image.size)
                for number, image in enumerate(opened_images(record, self.roots))
            ]
        except ImageProblem as problem:
            return Generation([], str(problem.reason))


class DiffusionModel:
    """A diffusers pipeline opened from a local folder: image-to-image, or text-to-image without a `strength`."""

    def __init__(self, settings: Redrawer, folder: Path, device: str) -> None:
        from diffusers import AutoPipelineForImage2Image, AutoPipelineForText2Image
        from diffusers.utils.logging import disable_progress_bar

        disable_progress_bar()
        refuse_made_up_parts()
        index = pipeline_index(folder)
        absent = {part: None for part, kind in index.items() if kind == [None, None]}  # such as SD 3 without its T5
        pipelines = AutoPipelineForText2Image if settings.strength is None else AutoPipelineForImage2Image
        pipeline = pipelines.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            torch_dtype=model_dtype(settings.precision, device),
            **absent,
        )
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline.to(device)
        self.settings = settings
        self.batch = BatchSize(settings.batch)

    def draw(self, drawings: Sequence[Drawing], seed: int) -> list[Drawn]:
        """The pictures, in order, of their images' sizes; None where the pipeline's safety checker refused.

        When the pipeline raises, those of the batch are drawn one by one, to find what it refuses.
        """
        drawn: list[Drawn] = []
        while len(drawn) < len(drawings):
            part = drawings[len(drawn) : len(drawn) + self.batch.size]
            try:
                drawn += self._draw(part, seed)
                continue
            except torch.OutOfMemoryError:
                part = part[:0]  # the traceback, which holds on to the memory, is gone after this
            except Exception:  # a pipeline has no list of what it raises
                logger.warning("a batch of %d pictures raised; drawing them one by one", len(part), exc_info=True)
            if part:
                drawn += [self._draw_alone(drawing, seed) for drawing in part]
            else:
                self.batch.halve(drawings[len(drawn)].key)
        return drawn

    def _draw_alone(self, drawing: Drawing, seed: int) -> Drawn:
        try:
            return self._draw([drawing], seed)[0]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            ordinary = drawing.image and Image.new("RGB", drawing.image.size, "grey")
            self._draw([Drawing("ordinary", "a photo", ordinary)], seed)  # raises where the fault is no drawing's
            logger.warning("record %s: %s: %s: %s", drawing.key, ImageReason.REFUSED, type(error).__name__, error)
            return ImageReason.REFUSED

    @torch.inference_mode()
    def _draw(self, drawings: Sequence[Drawing], seed: int) -> list[Drawn]:
        """One batch, filled up with its last drawing: sums round differently in batches of another size."""
        filled = [*drawings, *[drawings[-1]] * (self.batch.size - len(drawings))]
        result = self.pipeline(
            prompt=[drawing.caption for drawing in filled],
            guidance_scale=self.settings.guidance_scale,
            num_inference_steps=self.settings.steps,
            generator=[torch.Generator().manual_seed(record_seed(seed, drawing.key)) for drawing in filled],
            **self._canvas(filled),
        )
        refused = getattr(result, "nsfw_content_detected", None) or [False] * len(filled)
        return [
            None if unsafe else picture if drawing.image is None else _squeezed(picture, drawing.image.size)
            for drawing, picture, unsafe in zip(drawings, result.images, refused, strict=False)
        ]

    def _canvas(self, drawings: Sequence[Drawing]) -> dict[str, Any]:
        """The pipeline's arguments that only one direction has."""
        square = (self.settings.size, self.settings.size)
        if self.settings.strength is None:
            return {"width": square[0], "height": square[1]}
        images = [_squeezed(drawing.image, square) for drawing in drawings if drawing.image]
        return {"image": images, "strength": self.settings.strength}


def pipeline_index(folder: Path) -> dict[str, Any]:
    """What the folder says of its parts. Raises FileNotFoundError or ValueError when it is no pipeline known here."""
    path = folder / "model_index.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no model_index.json; this is not a diffusers folder")
    index: dict[str, Any] = read_json(path)
    name = index["_class_name"]
    if pipeline_family(name) not in redrawer_families():
        known = ", ".join(f"{family}Pipeline" for family in redrawer_families())
        raise ValueError(f"{folder}: {name} is no redrawer known here; known: {known}, and each one's Img2Img")
    for part, value in index.items():
        if isinstance(value, list) and value[:1] != [None] and not _is_library(value[0]):
            raise ModelCodeError(f"{path}: {part}: {value[0]}")
    return index


def _is_library(name: Any) -> bool:
    """Whether the class of a part comes with diffusers or transformers; diffusers imports any module that is named."""
    if name in ("diffusers", "transformers"):
        return True
    found = find_spec("diffusers")
    folders = found.submodule_search_locations if found else None
    return str(name).isidentifier() and any(Path(folder, "pipelines", name).is_dir() for folder in folders or ())


def save_image(image: Image.Image, folder: Path) -> str:
    """Put the image into `folder` as PNG under the sha256 of its bytes; returns the path below `folder`."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    digest = sha256_bytes(buffer.getvalue())
    name = f"{digest[:2]}/{digest}.png"
    path = folder / name
    if not path.exists():
        with publish(path) as temporary:
            temporary.write_bytes(buffer.getvalue())
    return name


def _squeezed(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR)

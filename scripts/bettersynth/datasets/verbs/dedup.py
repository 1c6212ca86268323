"""Keep one of each group of duplicates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import IMAGE_HASHES
from bettersynth.configuration.operators import giving
from bettersynth.configuration.section import Section
from bettersynth.configuration.verb import Verb
from bettersynth.core import versions
from bettersynth.core.names import StatKey
from bettersynth.core.records import caption_of
from bettersynth.datasets.ledger import Outcome, Reasons, split

if TYPE_CHECKING:
    from bettersynth.configuration.types import Configuration
    from bettersynth.datasets.step import Step


class Dedup(Verb, Section):
    """Keep the first row of each group of equal or near-equal rows."""

    cost: ClassVar[Cost] = Cost(20_000, start=5, bytes=20)

    by: Literal["text", "image"] = "text"
    near: bool = Field(False, description="Near-duplicates too, not only equal ones.")
    similarity: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Jaccard similarity of 3-word shingles (text, near); in scripts without blanks a letter is a word.",
    )
    distance: int = Field(4, ge=0, le=32, description="Hamming distance of 64-bit perceptual hashes (image, near).")

    @model_validator(mode="before")
    @classmethod
    def _all_defaults(cls, value: Any) -> Any:
        return {} if value is True else value

    def also_decides(self) -> dict[str, Any]:
        """What a word is."""
        return {"words": versions.WORDS} if self.by == "text" and self.near else {}

    def operators(self, configuration: Configuration) -> list[str]:
        """The one that hashes images."""
        return giving(configuration.operators, IMAGE_HASHES)[:1] if self.by == "image" else []

    @property
    def reads_records(self) -> bool:
        """Yes, where captions are compared."""
        return self.by == "text"

    def problems(self, key: str, configuration: Configuration) -> Iterator[str]:
        """That there are no hashes of images."""
        if self.by == "image" and not self.operators(configuration):
            yield f"{key}: images are compared by their hashes; add `operators: {{image_hash: {{op: image_hash}}}}`"

    def apply(self, step: Step) -> Outcome:
        """Equal ones go first; near ones are near to a row that stays, and which is their reason's value."""
        reasons = Reasons(step.rows.num_rows)
        if self.by == "text":
            self._texts(step, reasons)
        else:
            self._images(step, reasons)
        return split(step.rows, reasons)

    def _texts(self, step: Step, reasons: Reasons) -> None:
        from bettersynth.datasets.dedup import equal, near_texts

        captions = [caption_of(text) for text in step.records()["text"].to_pylist()]
        _drop_twins(reasons, "duplicate text", equal(captions), step)
        if self.near:
            kept = np.flatnonzero(reasons.stays).tolist()
            near = near_texts([captions[place] for place in kept], self.similarity)
            _drop_twins(reasons, "near-duplicate text", _at(kept, near), step)

    def _images(self, step: Step, reasons: Reasons) -> None:
        from bettersynth.datasets.dedup import equal, near_images

        operators = step.operators()
        if not operators:
            raise ValueError(
                f"dataset `{step.name}`: dedup by image needs an operator that gives {' and '.join(IMAGE_HASHES)}; "
                "add `image_hash: {op: image_hash}` to `operators`"
            )
        scores = step.scores(operators[0])
        digests = [row and tuple(row) for row in scores["image_sha256"].to_pylist()]
        key = str(StatKey(operators[0], "image_sha256"))
        reasons.drop(np.array([row is None for row in digests], bool), key, "no value")
        kept = np.flatnonzero(reasons.stays).tolist()
        _drop_twins(reasons, "duplicate image", _at(kept, equal(digests[place] for place in kept)), step)
        if self.near:
            kept = np.flatnonzero(reasons.stays).tolist()
            hashes = scores["image_phash"].to_pylist()
            values = [tuple(int(value, 16) for value in hashes[place]) for place in kept]
            _drop_twins(reasons, "near-duplicate image", _at(kept, near_images(values, self.distance)), step)

    def brief(self) -> str:
        """What is compared."""
        return f"dedup {'near ' if self.near else ''}{self.by}"

    def sentence(self, configuration: Configuration) -> str:
        """What is compared, and how near is near."""
        nearness = f"a Jaccard similarity of at least {self.similarity:g}"
        if self.by == "image":
            nearness = f"at most {self.distance} of 64 bits of their hashes differing"
        return f"of rows with the same {self.by} keep the first" + f", and of nearly the same: {nearness}" * self.near


def _at(places: list[int], twins: dict[int, int]) -> dict[int, int]:
    """Twins among some places, as places of all rows."""
    return {places[one]: places[other] for one, other in twins.items()}


def _drop_twins(reasons: Reasons, key: str, twins: dict[int, int], step: Step) -> None:
    ids = step.rows["id"].to_pylist()
    reasons.drop(list(twins), key, value=[ids[other] for other in twins.values()])

"""Pairs of the pool: a picture and a caption, spoilt in known proportions.

A pair has at most one defect of its text and at most one of its picture, drawn independently with the rates
of `TEXT_RATES` and `IMAGE_RATES`; one in four has neither. What was done is kept as the pair's truth.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from miniature.captions import caption, errors, long_caption
from miniature.world import (
    ACTIONS,
    COLOURS,
    PLACES,
    SHAPES,
    SIZE,
    SIZES,
    STYLES,
    WORDS,
    Scene,
    Thing,
    generator,
    letters,
    render,
    sample_scene,
)

TEXT_RATES = {
    "shuffled": 0.52,  # the caption of another picture
    "wrong_attribute": 0.06,  # one attribute is wrong, the rest is right
    "missing_object": 0.04,  # a thing that the picture shows is not named
    "too_short": 0.03,  # a word or two
    "too_long": 0.01,  # everything there is to say, and then advertising
    "repeated_words": 0.01,  # the last two words, over and over
    "stock_photo": 0.02,  # a tail such as "stock photo"
    "near_duplicate": 0.02,  # an earlier pair, its things a pixel away and a word added
    "duplicate": 0.01,  # an earlier pair, picture and caption the same
}
IMAGE_RATES = {
    "watermark": 0.05,  # words across the picture
    "ugly": 0.035,  # blurred, noisy or pale
    "unsafe": 0.015,  # a mild stand-in: a hatched square of black and red
}
DEFECTS = (*TEXT_RATES, *IMAGE_RATES)
CAPTION_WRONG = ("shuffled", "wrong_attribute", "missing_object", "too_short")
"""Defects after which the caption is not right: it is false, or does not name every thing."""

STOCK_TAILS = (" stock photo", " stock photos", " stock image", ", royalty free")
ADVERTISING = (
    "click here to buy this photo and many more photos like it",
    "free shipping on all orders today and the best prices online",
    "download this free image for your phone or your computer",
)
TOO_SHORT = ("photo", "image", "a photo", "the picture", "{shape}", "a {shape}", "{colour}")
SPOILT_VOCABULARY = tuple(
    sorted({word for text in (*STOCK_TAILS, *ADVERTISING, "here") for word in text.replace(",", "").split()})
)
"""Words that only spoilt captions use."""


@dataclass(frozen=True)
class Pair:
    """One pair of the pool and its truth."""

    index: int
    scene: Scene
    caption: str
    right_caption: str
    defects: tuple[str, ...]
    wrong: str | None = None
    """The attribute that `wrong_attribute` changed."""
    ugly: str | None = None
    """`blur`, `noise` or `pale`."""
    twin_of: int | None = None
    """The pair that a near-duplicate or duplicate repeats."""

    @property
    def caption_right(self) -> bool:
        """Whether the caption names every thing of the picture and says nothing false."""
        return not any(defect in CAPTION_WRONG for defect in self.defects)

    @property
    def match(self) -> str:
        """How caption and picture agree: `right`, `partly` or `wrong`."""
        if "shuffled" in self.defects or "too_short" in self.defects:
            return "wrong"
        return "right" if self.caption_right else "partly"


def sample_pair(seed: int, index: int) -> Pair:
    """The pair number `index` of the pool `seed`: the same whatever the pool's size."""
    text, image = _sample_defects(seed, index)
    dice = generator(seed, index, "pair")
    scene, twin = sample_scene(seed, index), None
    if text in ("near_duplicate", "duplicate"):
        twin = _earlier_clean(seed, index, dice)
        text = text if twin is not None else None
    if twin is not None:
        original = sample_pair(seed, twin)
        scene, right, image = original.scene, original.caption, None
    else:
        right = caption(scene, generator(seed, index, "caption"))
    written, wrong = right, None
    if text == "near_duplicate":
        scene, written = _nudge(scene, dice), f"{right} here"
    elif text == "wrong_attribute":
        right, written, wrong = one_attribute_wrong(scene, dice)
    elif text in _SPOIL:
        written = _SPOIL[text](scene, right, seed, dice)
    ugly = dice.choice(("blur", "noise", "pale")) if image == "ugly" else None
    defects = tuple(defect for defect in (text, image) if defect)
    return Pair(index, scene, written, right, defects, wrong, ugly, twin)


def _sample_defects(seed: int, index: int) -> tuple[str | None, str | None]:
    """The text's and the picture's defect."""
    dice = generator(seed, index, "defects")
    return _draw(TEXT_RATES, dice.random()), _draw(IMAGE_RATES, dice.random())


def _draw(rates: dict[str, float], chance: float) -> str | None:
    for name, rate in rates.items():
        chance -= rate
        if chance < 0:
            return name
    return None


def _earlier_clean(seed: int, index: int, dice: random.Random) -> int | None:
    """An earlier pair without defects, found by going down from a random one; None if there is none."""
    start = dice.randrange(index) if index else -1
    earlier = range(start, -1, -1)
    return next((other for other in earlier if _sample_defects(seed, other) == (None, None)), None)


# --- spoilt captions -----------------------------------------------------------------------------


def one_attribute_wrong(
    scene: Scene, dice: random.Random, write: Callable[[Scene, random.Random], str] = caption
) -> tuple[str, str, str]:
    """A right caption, the same caption with one attribute wrong, and the attribute's name.

    Right as long as `write` mentions colours, which every function of `captions` does.
    """
    phrasing = dice.getrandbits(64)
    right = write(scene, random.Random(phrasing))
    for attribute, altered in _alterations(scene, dice):
        wrong = write(altered, random.Random(phrasing))
        if wrong != right:
            return right, wrong, attribute
    raise ValueError(f"{right!r} mentions no attribute that could be wrong")


def _alterations(scene: Scene, dice: random.Random) -> Iterator[tuple[str, Scene]]:
    """Each attribute in random order, and the scene with a value of it that is false."""
    for attribute in dice.sample(ATTRIBUTES, len(ATTRIBUTES)):
        if attribute == "style":
            yield attribute, dataclasses.replace(scene, style=_other(STYLES, {scene.style}, dice))
        elif attribute == "sign":
            if scene.sign:
                sign = dataclasses.replace(scene.sign, word=_other(WORDS, {scene.sign.word}, dice))
                yield attribute, dataclasses.replace(scene, sign=sign)
        else:
            things = _alter_thing(scene, attribute, dice)
            if things:
                yield attribute, dataclasses.replace(scene, things=things)


def _alter_thing(scene: Scene, attribute: str, dice: random.Random) -> tuple[Thing, ...] | None:
    """The scene's things, `attribute` of one of them changed; None where no thing has it."""
    owners = [number for number, thing in enumerate(scene.things) if getattr(thing, attribute)]
    if not owners:
        return None
    number = dice.choice(owners)
    thing = scene.things[number]
    # Another thing's size or place is wrong of this one; another's colour or shape would name that other one.
    others = scene.things if attribute in ("colour", "shape") else (thing,)
    value = _other(_VALUES[attribute], {getattr(other, attribute) for other in others}, dice)
    altered = Thing(**{**vars(thing), attribute: value})
    return (*scene.things[:number], altered, *scene.things[number + 1 :])


def _other(values: tuple[str, ...], taken: set[str], dice: random.Random) -> str:
    return dice.choice([value for value in values if value not in taken])


_VALUES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "size": tuple(SIZES),
    "place": tuple(PLACES),
    "action": ACTIONS,
}
ATTRIBUTES = (*_VALUES, "sign", "style")
"""What `one_attribute_wrong` may change."""


def _shuffled(scene: Scene, right: str, seed: int, dice: random.Random) -> str:
    while True:
        other = dice.randrange(100_000)
        text = caption(sample_scene(seed, other), generator(seed, other, "caption"))
        if errors(text, scene):
            return text


def _missing_object(scene: Scene, right: str, seed: int, dice: random.Random) -> str:
    """A caption of the scene without one of its things; of a single thing only the colour is missing."""
    if len(scene.things) == 1:
        return f"a {scene.things[0].shape}"
    gone = dice.randrange(len(scene.things))
    things = scene.things[:gone] + scene.things[gone + 1 :]
    return caption(dataclasses.replace(scene, things=things), dice)


def _too_short(scene: Scene, right: str, seed: int, dice: random.Random) -> str:
    thing = scene.things[0]
    return dice.choice(TOO_SHORT).format(shape=thing.shape, colour=thing.colour)


def _too_long(scene: Scene, right: str, seed: int, dice: random.Random) -> str:
    return ". ".join((long_caption(scene, dice).removesuffix("."), *dice.sample(ADVERTISING, 2)))


def _repeated_words(scene: Scene, right: str, seed: int, dice: random.Random) -> str:
    """The last two words over and over, as a generator does that has lost its thread."""
    return " ".join([right, *right.split()[-2:] * dice.randint(3, 7)])


def _stock_photo(scene: Scene, right: str, seed: int, dice: random.Random) -> str:
    return right + dice.choice(STOCK_TAILS)


_SPOIL = {
    "shuffled": _shuffled,
    "missing_object": _missing_object,
    "too_short": _too_short,
    "too_long": _too_long,
    "repeated_words": _repeated_words,
    "stock_photo": _stock_photo,
}


def _nudge(scene: Scene, dice: random.Random) -> Scene:
    """The scene with everything moved by a pixel."""
    dx, dy = dice.choice(((-1, 0), (1, 0), (0, -1), (0, 1)))
    things = tuple(dataclasses.replace(thing, x=thing.x + dx, y=thing.y + dy) for thing in scene.things)
    sign = scene.sign and dataclasses.replace(scene.sign, x=scene.sign.x + dx, y=scene.sign.y + dy)
    return dataclasses.replace(scene, things=things, sign=sign)


# --- spoilt pictures -----------------------------------------------------------------------------


def draw(pair: Pair, seed: int) -> Image.Image:
    """The picture of a pair, with its defect if it has one."""
    image = render(pair.scene)
    dice = generator(seed, pair.index, "picture")
    if "watermark" in pair.defects:
        return watermarked(image, dice)
    if pair.ugly:
        return uglified(image, pair.ugly, dice)
    if "unsafe" in pair.defects:
        return made_unsafe(image, dice)
    return image


def watermarked(image: Image.Image, dice: random.Random) -> Image.Image:
    """The picture under lines of half-transparent words."""
    dark = dice.random() < 0.3 and np.asarray(image).mean() > 110
    image = image.copy()
    mask = _watermark_mask(dice.choice(WATERMARKS), dice.choice((-30, -20, 20, 30)), dice.randrange(8))
    image.paste((20, 20, 20) if dark else (255, 255, 255), (0, 0), mask)
    return image


WATERMARKS = ("sample", "stock", "proof")


@cache
def _watermark_mask(word: str, angle: int, offset: int) -> Image.Image:
    """Slanted lines of a repeated word (L, 130 on the letters)."""
    side = 2 * SIZE
    text = letters(word)
    mask = Image.new("L", (side, side))
    for row, y in enumerate(range(3 * offset, side, 24)):
        for x in range((row % 2) * 20 - 20, side, text.width + 10):
            mask.paste(text.point(lambda value: min(value, 130)), (x, y))
    mask = mask.resize((int(side * 1.5), int(side * 1.5)), Image.Resampling.BILINEAR)
    mask = mask.rotate(angle, Image.Resampling.BICUBIC)
    middle = mask.width // 2
    return mask.crop((middle - SIZE // 2, middle - SIZE // 2, middle + SIZE // 2, middle + SIZE // 2))


def uglified(image: Image.Image, kind: str, dice: random.Random) -> Image.Image:
    """The picture blurred, full of noise, or pale."""
    if kind == "blur":
        return image.filter(ImageFilter.GaussianBlur(dice.uniform(2.0, 3.5)))
    if kind == "noise":
        noise = np.random.Generator(np.random.PCG64(dice.getrandbits(63)))
        rgb = np.asarray(image) + noise.normal(0, dice.uniform(45, 65), (SIZE, SIZE, 3))
        return Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))
    fog = Image.new("RGB", image.size, (dice.randint(120, 190),) * 3)
    return Image.blend(image, fog, dice.uniform(0.72, 0.82))


def made_unsafe(image: Image.Image, dice: random.Random) -> Image.Image:
    """The picture with a hatched square of black and red, the stand-in for what should not be seen."""
    image = image.copy()
    side = dice.randint(34, 46)
    corner = (dice.randint(6, SIZE - side - 6), dice.randint(6, SIZE - side - 6))
    image.paste(_hatched(side), corner)
    return image


@cache
def _hatched(side: int) -> Image.Image:
    """Black and red diagonal stripes in a black frame."""
    y, x = np.mgrid[0:side, 0:side]
    rgb = np.where(((x + y) // 5 % 2 == 0)[..., None], (190, 10, 20), (10, 10, 10)).astype(np.uint8)
    rgb[:2], rgb[-2:], rgb[:, :2], rgb[:, -2:] = 0, 0, 0, 0
    return Image.fromarray(rgb)


def truth(pair: Pair) -> dict[str, Any]:
    """The pair's row of `truth.parquet`, without its ids and file."""
    return {
        **{defect: defect in pair.defects for defect in DEFECTS},
        "caption_right": pair.caption_right,
        "match": pair.match,
        "wrong": pair.wrong,
        "ugly_kind": pair.ugly,
        "caption": pair.caption,
        "right_caption": pair.right_caption,
        **pair.scene.truth(),
    }

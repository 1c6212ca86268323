"""What the miniature's models learn from: rendered scenes with right and wrong captions, labels and phrases.

Everything follows from `(seed, MODELS_START + number)`; the scenes are disjoint from the pool's, the questions'
and those that quality is measured on. The material is written once and then read by every model's training.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from miniature import questions
from miniature.captions import caption, full_caption, long_caption
from miniature.defects import (
    ADVERTISING,
    STOCK_TAILS,
    TOO_SHORT,
    made_unsafe,
    one_attribute_wrong,
    uglified,
    watermarked,
)
from miniature.world import (
    ACTIONS,
    COLOURS,
    MODELS_START,
    PLACES,
    SHAPES,
    SIZE,
    SIZES,
    STYLES,
    WORDS,
    Scene,
    Sign,
    Thing,
    generator,
    render,
    sample_scene,
)

PATCH = 12
"""Side of a patch of every vision tower, in pixels: a picture is 8 × 8 = 64 visual tokens."""
GRID = SIZE // PATCH
PAIR_WRITERS = (caption, caption, caption, full_caption, long_caption)
"""Who writes the caption pairs of a scene, one right and one with an attribute wrong each."""
SHORT_CAPTIONS, FULL_CAPTIONS, LONG_CAPTIONS = 4, 1, 2
IMAGE_DEFECTS = ("clean", "watermark", "blur", "noise", "pale", "unsafe")
_IMAGE_WEIGHTS = (50, 16, 6, 6, 6, 16)
PATCH_LABELS = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "size": tuple(SIZES),
    "action": ACTIONS,
    "word": WORDS,
    "place": tuple(PLACES),
}
"""What stands in a patch: 0 for nothing of the kind, else one more than the place in the tuple."""
QUERY_SLOTS = 12
"""Phrases of a scene that OWL-ViT is asked for; half of them are not there."""
CHUNK = 500


@dataclass(frozen=True)
class Phrase:
    """A noun phrase and where it stands: centre x, y, width and height in 0…1; no box when it is not there.

    `cell` is the patch whose box it is: the one at the centre of a thing, or one at the picture's rim for a phrase
    that means a region (as "the left"), so that no two phrases claim one patch.
    """

    text: str
    cell: int = -1
    box: tuple[float, float, float, float] | None = None


# --- phrases -------------------------------------------------------------------------------------

_REGIONS = {
    "left": (GRID * (GRID // 2), (0.17, 0.5, 0.34, 0.7)),
    "right": (GRID * (GRID // 2) + GRID - 1, (0.83, 0.5, 0.34, 0.7)),
    "top": (GRID // 2, (0.5, 0.17, 0.7, 0.34)),
    "bottom": (GRID * (GRID - 1) + GRID // 2, (0.5, 0.83, 0.7, 0.34)),
}
_CORNERS = {
    "photo": (0, (0.3, 0.3, 0.6, 0.6)),
    "picture": (GRID - 1, (0.7, 0.3, 0.6, 0.6)),
    "image": (GRID * (GRID - 1), (0.3, 0.7, 0.6, 0.6)),
    "day": (GRID * GRID - 1, (0.7, 0.7, 0.6, 0.6)),
    "night": (GRID * GRID - 1, (0.7, 0.7, 0.6, 0.6)),
    "scene": (GRID * GRID - 1, (0.7, 0.7, 0.6, 0.6)),
}
_STYLE_ADJECTIVES = {
    "plain": ("plain",),
    "bright": ("sunny", "bright"),
    "night": ("night", "dark"),
    "sepia": ("old", "vintage"),
}


def _unit_box(item: Thing | Sign, share: float = 1.0) -> tuple[int, tuple[float, float, float, float]]:
    """The patch at the centre, and the box (its left `share`) inside the picture, of a thing or sign."""
    left, top, right, bottom = (min(max(edge / SIZE, 0.0), 1.0) for edge in item.box)
    right = left + share * (right - left)
    x, y, width, height = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    return min(int(y * GRID), GRID - 1) * GRID + min(int(x * GRID), GRID - 1), (x, y, width, height)


def thing_phrase(colour: str, shape: str, size: str | None = None) -> str:
    """As a noun chunker finds it in a caption: "a red circle", "a small red circle"."""
    words = [word for word in (size, colour, shape) if word]
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


def present_phrases(scene: Scene, dice: random.Random) -> list[Phrase]:
    """Phrases that are true of the scene, with their boxes."""
    found = []
    for thing in scene.things:
        text = thing_phrase(thing.colour, thing.shape, thing.size if dice.random() < 0.4 else None)
        found.append(Phrase(text.split(" ", 1)[1] if dice.random() < 0.25 else text, *_unit_box(thing)))
    if scene.sign:
        cell, box = _unit_box(scene.sign)
        found.append(Phrase(dice.choice(("a sign", "a sign", "sign")), cell, box))
        word_cell, word_box = _unit_box(scene.sign, 0.4)
        if word_cell != cell:
            word = scene.sign.word
            found.append(Phrase(dice.choice((word, f"the word {word}")), word_cell, word_box))
    region = dice.choice(list(_REGIONS))
    found.append(Phrase(f"the {region}", *_REGIONS[region]))
    adjective = dice.choice(_STYLE_ADJECTIVES[scene.style])
    noun = dice.choice(("photo", "picture", "image"))
    article = "an" if adjective[0] in "aeiou" else "a"
    whole = {"photo": ("a photo",), "picture": ("a picture", "the picture"), "image": ("an image", "the image")}[noun]
    found.append(Phrase(dice.choice((*whole, f"{article} {adjective} {noun}")), *_CORNERS[noun]))
    if scene.style in ("bright", "night"):
        text, place = ("a sunny day", "day") if scene.style == "bright" else ("night", "night")
        found.append(Phrase(text, *_CORNERS[place]))
    return found


def absent_phrases(scene: Scene, dice: random.Random, count: int) -> list[Phrase]:
    """Phrases that are false of the scene; most differ from something in it by one attribute."""
    there = {(thing.colour, thing.shape) for thing in scene.things}
    texts: list[str] = []
    while len(texts) < count:
        kind, thing = dice.random(), dice.choice(scene.things)
        colour, shape = thing.colour, thing.shape
        if kind < 0.35:
            colour = dice.choice(list(COLOURS))
        elif kind < 0.7:
            shape = dice.choice(SHAPES)
        elif kind < 0.85:
            colour, shape = dice.choice(list(COLOURS)), dice.choice(SHAPES)
        elif kind < 0.90 and scene.sign is None:
            texts.append("a sign")
        elif kind < 0.95:
            word = dice.choice(WORDS)
            if scene.sign is None or word != scene.sign.word:
                texts.append(dice.choice((word, f"the word {word}")))
        else:
            style = dice.choice(STYLES)
            if style != scene.style:
                adjective = dice.choice(_STYLE_ADJECTIVES[style])
                noun = dice.choice(("photo", "picture", "image"))
                texts.append(f"{'an' if adjective[0] in 'aeiou' else 'a'} {adjective} {noun}")
        if kind < 0.85 and (colour, shape) not in there:
            text = thing_phrase(colour, shape, dice.choice(list(SIZES)) if dice.random() < 0.4 else None)
            texts.append(text.split(" ", 1)[1] if dice.random() < 0.25 else text)
    return [Phrase(text) for text in texts]


# --- one scene -----------------------------------------------------------------------------------


def patch_labels(scene: Scene) -> np.ndarray:
    """What stands in each patch, as numbers of `PATCH_LABELS`: (kinds, patches), uint8."""
    labels = np.zeros((len(PATCH_LABELS), GRID * GRID), np.uint8)
    for cell, owner in enumerate(scene.owners(PATCH)):
        for row, (kind, values) in enumerate(PATCH_LABELS.items()):
            value = getattr(owner, kind, None)
            if value is not None:
                labels[row, cell] = values.index(value) + 1
    return labels


def spoil_image(image: Image.Image, defect: str, dice: random.Random) -> Image.Image:
    """The picture with one of `IMAGE_DEFECTS`."""
    if defect == "watermark":
        return watermarked(image, dice)
    if defect == "unsafe":
        return made_unsafe(image, dice)
    return image if defect == "clean" else uglified(image, defect, dice)


def _tail(text: str, dice: random.Random) -> str:
    """What real pools hang on captions; it makes a right caption no less right."""
    kind = dice.random()
    if kind < 0.5:
        return dice.choice(STOCK_TAILS)
    if kind < 0.75:
        return " " + " ".join(text.split()[-2:] * dice.randint(3, 7))
    return " here" if kind < 0.9 else ". ".join(["", *dice.sample(ADVERTISING, 2)])


def _incomplete(scene: Scene, dice: random.Random) -> str:
    """A caption that says nothing false and yet does not describe the scene: too short, or a thing is left out."""
    thing = dice.choice(scene.things)
    if dice.random() < 0.4 or len(scene.things) == 1:
        return dice.choice(TOO_SHORT).format(shape=thing.shape, colour=thing.colour)
    rest = tuple(other for other in scene.things if other is not thing)
    return caption(Scene(rest, scene.sign, scene.style, scene.background), dice)


def _turns(scene: Scene, dice: random.Random) -> list[tuple[str, str]]:
    """A question and answer in each form that MGM meets: two captions, two short answers, OCR, three choices."""
    asked = [questions.ask(dice.choice(questions.askable(scene)), scene, dice) for _ in range(5)]
    word = questions.ask("word", scene, dice) if scene.sign else asked[0]
    tokens = questions.ocr_tokens(word.answer, dice) if scene.sign else []
    request = dice.choice(questions.CAPTION_REQUESTS)
    turns = [
        (request, caption(scene, dice)),
        (request, full_caption(scene, dice)),
        (questions.ocr_prompt(asked[0].text, []), asked[0].answer),
        (asked[1].text, asked[1].answer),
        (questions.ocr_prompt(word.text, tokens), word.answer),
    ]
    for question in asked[2:]:
        options, right = questions.multiple_choice(question, dice)
        turns.append((questions.choices_prompt(question.text, options), questions.LETTERS[right]))
    return turns


def sample(seed: int, number: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Picture (uint8), patch labels and texts of training scene `number`."""
    index = MODELS_START + number
    scene = sample_scene(seed, index)
    dice = generator(seed, index, "material")
    defect = dice.choices(IMAGE_DEFECTS, _IMAGE_WEIGHTS)[0]
    image = spoil_image(render(scene), defect, dice)
    if dice.random() < 0.5:
        image = Image.open(io.BytesIO(questions.jpeg(image)))
    pairs = []
    for write in PAIR_WRITERS:
        right, wrong, _ = one_attribute_wrong(scene, dice, write)
        if dice.random() < 0.12:
            wrong = _incomplete(scene, dice)
        elif dice.random() < 0.12:
            tail = _tail(right, dice)
            right, wrong = right + tail, wrong + tail
        pairs.append((right, wrong))
    there = present_phrases(scene, dice)[: QUERY_SLOTS // 2 + 2]
    phrases = [*there, *absent_phrases(scene, dice, QUERY_SLOTS - len(there))]
    texts = {
        "defect": IMAGE_DEFECTS.index(defect),
        "pairs": pairs,
        "short": [caption(scene, dice) for _ in range(SHORT_CAPTIONS)],
        "full": [full_caption(scene, dice) for _ in range(FULL_CAPTIONS)],
        "long": [long_caption(scene, dice) for _ in range(LONG_CAPTIONS)],
        "turns": _turns(scene, dice),
        "style": STYLES.index(scene.style),
        "phrases": [(phrase.text, phrase.cell, phrase.box) for phrase in phrases],
    }
    return np.asarray(image), patch_labels(scene), texts


# --- all scenes ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Material:
    """The written material, opened: pictures (n, 96, 96, 3) and labels (n, kinds, patches) mapped from disk."""

    folder: Path

    @property
    def images(self) -> np.ndarray:
        """Pictures, uint8, mapped from disk; writing to them changes no file."""
        return np.load(self.folder / "images.npy", mmap_mode="c")

    @property
    def labels(self) -> np.ndarray:
        """Patch labels, uint8, mapped from disk."""
        return np.load(self.folder / "labels.npy", mmap_mode="c")

    def texts(self) -> Iterator[dict[str, Any]]:
        """The texts of every scene, in order."""
        for path in sorted(self.folder.glob("texts-*.jsonl")):
            with path.open(encoding="utf-8") as lines:
                yield from map(json.loads, lines)


def _write_chunk(folder: Path, seed: int, start: int, stop: int) -> None:
    images = np.load(folder / "images.npy", mmap_mode="r+")
    labels = np.load(folder / "labels.npy", mmap_mode="r+")
    with (folder / f"texts-{start:08d}.jsonl").open("w", encoding="utf-8") as lines:
        for number in range(start, stop):
            images[number], labels[number], texts = sample(seed, number)
            lines.write(json.dumps(texts) + "\n")


def write(folder: Path, seed: int, scenes: int, workers: int) -> Material:
    """Render the first `scenes` training scenes of world `seed` into `folder`, on `workers` processes."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {"images": (scenes, SIZE, SIZE, 3), "labels": (scenes, len(PATCH_LABELS), GRID * GRID)}
    for name, shape in shapes.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, shape).flush()
    starts = range(0, scenes, CHUNK)
    with ProcessPoolExecutor(workers) as pool:
        chunks = [pool.submit(_write_chunk, folder, seed, start, min(start + CHUNK, scenes)) for start in starts]
        for chunk in chunks:
            chunk.result()
    return Material(folder)


def all_phrases() -> list[str]:
    """Every phrase that `present_phrases` and `absent_phrases` can give, sorted."""
    things = (thing_phrase(colour, shape, size) for colour in COLOURS for shape in SHAPES for size in (None, *SIZES))
    both = chain.from_iterable((text, text.split(" ", 1)[1]) for text in things)
    styles = [adjective for adjectives in _STYLE_ADJECTIVES.values() for adjective in adjectives]
    styled = (
        f"{'an' if style[0] in 'aeiou' else 'a'} {style} {noun}"
        for style in styles
        for noun in ("photo", "picture", "image")
    )
    words = chain.from_iterable((word, f"the word {word}") for word in WORDS)
    regions = (f"the {region}" for region in _REGIONS)
    other = ("a sign", "sign", "a photo", "a picture", "the picture", "an image", "the image", "a sunny day", "night")
    return sorted({*both, *styled, *words, *regions, *other})

"""The miniature's world: scenes sampled from a seed, and their pictures.

A scene holds one to three things (colour, shape, size, place, sometimes an action), sometimes a sign with a
word, and a photographic style. Everything about it follows from ``(seed, index)``; its picture follows from
the scene alone. Pictures are pasted together from masks that are drawn once at four times their size, so one
core makes thousands of them a second.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 96
"""Side of every picture, in pixels."""

COLOURS = {
    "red": (214, 40, 40),
    "orange": (246, 137, 31),
    "yellow": (250, 215, 50),
    "green": (46, 150, 70),
    "blue": (45, 95, 210),
    "purple": (135, 60, 165),
    "white": (250, 250, 250),
    "black": (28, 28, 30),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "moon")
SIZES = {"small": (8, 9), "large": (13, 14, 15)}
"""Radii in pixels that count as this size."""
PLACES = {"left": (22, 48), "right": (74, 48), "top": (48, 22), "bottom": (48, 74)}
"""Centres in pixels; a thing's own centre differs by up to `JITTER`."""
JITTER = 2
ACTIONS = ("rolling", "jumping", "falling", "spinning", "shining")
STYLES = ("plain", "bright", "night", "sepia")
WORDS = (
    *("art", "bank", "bike", "book", "bus", "cafe", "cake", "exit", "farm", "film", "fish", "food", "gold"),
    *("gym", "ice", "inn", "jazz", "kids", "milk", "news", "open", "park", "pool", "pub", "sale", "shop"),
    *("stop", "taxi", "tea", "toys", "wine", "zoo"),
)
"""What signs say."""
BOARDS = {"light": ((252, 250, 240), (30, 30, 40)), "dark": ((52, 60, 72), (250, 250, 250))}
"""Kinds of sign: colour of the board and of its letters."""
BACKGROUNDS = 12
"""Different backgrounds of each style."""

# Seeds say *which* world; ranges of the index keep its parts disjoint.
POOL_START = 0
INSTRUCTIONS_START = 100_000_000
TEXTVQA_START = 200_000_000
MMBENCH_START = 300_000_000
MODELS_START = 400_000_000
"""Scenes that the miniature's own models learn from."""
QUALITY_START = 500_000_000
"""Scenes that the models are measured on."""


@dataclass(frozen=True)
class Thing:
    """One thing of a scene; `x`, `y` (centre) and `radius` in pixels say where exactly it is drawn."""

    colour: str
    shape: str
    size: str
    place: str
    action: str | None
    x: int
    y: int
    radius: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in pixels."""
        return (self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)


@dataclass(frozen=True)
class Sign:
    """A board with a word, at the top or at the bottom; `x`, `y` is its centre in pixels."""

    word: str
    place: str
    board: str
    x: int
    y: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in pixels."""
        width, height = 12 * len(self.word) + 8, 24
        left, top = self.x - width // 2, self.y - height // 2
        return (left, top, left + width, top + height)


@dataclass(frozen=True)
class Scene:
    """What a picture shows. Its things differ in colour, shape and place; at most one of them acts."""

    things: tuple[Thing, ...]
    sign: Sign | None
    style: str
    background: int

    @property
    def acting(self) -> Thing | None:
        """The thing that does something, if any."""
        return next((thing for thing in self.things if thing.action), None)

    def truth(self) -> dict[str, Any]:
        """The attributes as a flat row: lists over things (`action` is "" for none), word and style."""
        return {
            "colours": [thing.colour for thing in self.things],
            "shapes": [thing.shape for thing in self.things],
            "sizes": [thing.size for thing in self.things],
            "places": [thing.place for thing in self.things],
            "actions": [thing.action or "" for thing in self.things],
            "sign": self.sign.word if self.sign else None,
            "sign_place": self.sign.place if self.sign else None,
            "style": self.style,
        }

    def owners(self, patch: int = 8) -> list[Thing | Sign | None]:
        """What stands in each patch, row by row: the thing or sign whose box covers the patch's centre."""
        standing: list[Thing | Sign] = [*self.things, *([self.sign] if self.sign else [])]
        centres = [patch * cell + patch / 2 for cell in range(SIZE // patch)]
        points = [(x, y) for y in centres for x in centres]
        return [next((item for item in standing if _covers(item.box, *point)), None) for point in points]


def _covers(box: tuple[int, int, int, int], x: float, y: float) -> bool:
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def generator(seed: int, index: int, purpose: str = "scene") -> random.Random:
    """Random numbers that depend on these three alone, on every machine and Python."""
    return random.Random(f"{seed}/{index}/{purpose}")


def sample_scene(seed: int, index: int, *, sign: bool | None = None, action: bool | None = None) -> Scene:
    """The scene number `index` of the world `seed`; `sign` and `action` force one to be there or not."""
    dice = generator(seed, index)
    has_sign = dice.random() < 0.5 if sign is None else sign
    has_action = dice.random() < 0.5 if action is None else action
    places = dice.sample(list(PLACES), 4)
    board = None
    if has_sign:
        board = _sample_sign(dice, next(place for place in places if place in ("top", "bottom")))
        places.remove(board.place)
    count = dice.choices((1, 2, 3), (4, 4, 2))[0]
    colours, shapes = dice.sample(list(COLOURS), count), dice.sample(SHAPES, count)
    actor = dice.randrange(count) if has_action else None
    things = tuple(
        _sample_thing(dice, colours[number], shapes[number], places[number], number == actor) for number in range(count)
    )
    return Scene(things, board, dice.choices(STYLES, (4, 2, 2, 2))[0], dice.randrange(BACKGROUNDS))


def _sample_thing(dice: random.Random, colour: str, shape: str, place: str, acts: bool) -> Thing:
    size = dice.choice(list(SIZES))
    x, y = (centre + dice.randint(-JITTER, JITTER) for centre in PLACES[place])
    action = dice.choice(ACTIONS) if acts else None
    return Thing(colour, shape, size, place, action, x, y, dice.choice(SIZES[size]))


def _sample_sign(dice: random.Random, place: str) -> Sign:
    x, y = PLACES[place]
    x += dice.randint(-8, 8)
    y += dice.randint(-1, 1) + (-7 if place == "top" else 7)
    return Sign(dice.choice(WORDS), place, dice.choice(list(BOARDS)), x, y)


# --- drawing -------------------------------------------------------------------------------------

_DETAIL = 4  # masks are drawn this many times larger, then reduced: smooth edges
_MARGIN = 8  # room around a thing for the marks of its action, in pixels
_OUTLINE = 1.25  # width of a thing's outline, in pixels


def render(scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, `SIZE` × `SIZE`."""
    image = _background(scene.style, scene.background).copy()
    for thing in scene.things:
        _paste_thing(image, thing, scene.style)
    if scene.sign:
        board = _sign(scene.sign.word, scene.sign.board, scene.style)
        image.paste(board, scene.sign.box[:2], _board_mask(*board.size))
    return image


def _paste_thing(image: Image.Image, thing: Thing, style: str) -> None:
    """Paste the marks of the action, the outline, and the body lit from the upper left."""
    outline, body = _shape_masks(thing.shape, thing.radius)
    corner = (thing.x - body.width // 2, thing.y - body.height // 2)
    light_lines = style == "night" or thing.colour == "black"
    if thing.action:
        ink = (215, 220, 240) if style == "night" else (60, 60, 70)
        image.paste(_toned(ink, style), corner, _action_mask(thing.action, thing.radius))
    image.paste(_toned((225, 228, 240) if light_lines else (40, 40, 46), style), corner, outline)
    image.paste(_paint(thing.colour, body.width, style), corner, body)


def _tone(rgb: np.ndarray, style: str) -> np.ndarray:
    """Colours (…, 3) in 0…255 as the style shows them: still told apart from each other."""
    if style == "night":
        return rgb * (0.82, 0.84, 0.97)
    if style == "sepia":
        grey = rgb @ np.array([0.299, 0.587, 0.114])
        return 0.6 * rgb + 0.4 * np.clip(grey[..., None] * (1.08, 0.90, 0.66), 0, 255)
    if style == "bright":
        return np.clip(rgb * 1.06 + 8, 0, 255)
    return rgb


@cache
def _background(style: str, number: int) -> Image.Image:
    """Wall and floor under soft light (plain, sepia), sky and meadow (bright), or a starry sky (night)."""
    noise = np.random.Generator(np.random.PCG64(1000 * STYLES.index(style) + number))
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    hue = np.array([noise.uniform(-10, 10), noise.uniform(-5, 5), noise.uniform(-12, 12)])
    horizon = noise.uniform(0.62, 0.80)
    below = (1 / (1 + np.exp((horizon - y) * 60)))[..., None]
    upper, lower = {
        "plain": ((196, 198, 204), (168, 160, 152)),
        "bright": ((172, 214, 246), (186, 222, 160)),
        "night": ((20, 24, 58), (40, 40, 70)),
        "sepia": ((214, 196, 164), (176, 152, 118)),
    }[style]
    light = noise.uniform(0.25, 0.75)
    glow = 1.08 - 0.30 * ((x - light) ** 2 + (y - 0.3) ** 2)[..., None]
    rgb = ((1 - below) * np.array(upper) + below * np.array(lower) + hue) * glow
    if style == "night":
        stars = noise.random((SIZE, SIZE)) > 0.994
        rgb[stars & (y < horizon - 0.05)] = (205, 208, 225)
    if style == "sepia":
        rgb *= 1.06 - 0.55 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)[..., None]
    rgb += noise.normal(0, 2.0, (SIZE, SIZE, 1))
    return Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))


def _toned(rgb: tuple[int, int, int], style: str) -> tuple[int, ...]:
    return tuple(int(value) for value in np.clip(_tone(np.array(rgb, float), style), 0, 255))


@cache
def _paint(colour: str, width: int, style: str) -> Image.Image:
    """A square of a colour, lighter to the upper left."""
    y, x = np.mgrid[-1 : 1 : width * 1j, -1 : 1 : width * 1j]
    rgb = np.array(COLOURS[colour]) * (1.0 - 0.16 * (x + y) / 2)[..., None]
    return Image.fromarray(np.clip(_tone(rgb, style), 0, 255).astype(np.uint8))


@cache
def _shape_masks(shape: str, radius: int) -> tuple[Image.Image, Image.Image]:
    """Outline and body of a shape (L), with `_MARGIN` around it."""
    large = _large_mask(shape, radius)
    outline = large.filter(ImageFilter.MaxFilter(2 * round(_OUTLINE * _DETAIL) + 1))
    return outline.reduce(_DETAIL), large.reduce(_DETAIL)


def _large_mask(shape: str, radius: int) -> Image.Image:
    """The body of a shape (L, 255 inside), `_DETAIL` times too large, with `_MARGIN` around it."""
    half = (radius + _MARGIN) * _DETAIL
    mask = Image.new("L", (2 * half, 2 * half))
    draw = ImageDraw.Draw(mask)
    scale = radius * _DETAIL

    def disc(x: float, y: float, r: float, fill: int = 255) -> None:
        corners = (x - r, y - r, x + r, y + r)
        draw.ellipse([half + scale * corner for corner in corners], fill)

    if shape in ("circle", "ring", "moon"):
        disc(0, 0, 0.95)
    if shape == "ring":
        disc(0, 0, 0.50, fill=0)
    elif shape == "moon":
        disc(0.50, -0.18, 0.78, fill=0)
    elif shape != "circle":
        draw.polygon([(half + scale * x, half + scale * y) for x, y in _corners(shape)], 255)
    return mask


def _corners(shape: str) -> list[tuple[float, float]]:
    """The polygon of a shape in a box from -1 to 1, y pointing down."""
    if shape == "square":
        return [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)]
    if shape == "triangle":
        return [(0, -0.95), (0.98, 0.82), (-0.98, 0.82)]
    if shape == "star":
        turns = [math.pi * (step / 5 - 0.5) for step in range(10)]
        radii = [1.05 if step % 2 == 0 else 0.44 for step in range(10)]
        return [(r * math.cos(t), r * math.sin(t) + 0.06) for r, t in zip(radii, turns, strict=True)]
    if shape == "cross":
        arm, end = 0.32, 0.96
        quarter = [(-arm, -end), (arm, -end), (arm, -arm)]
        return [point for k in range(4) for point in (_quarter_turns(x, y, k) for x, y in quarter)]
    if shape == "heart":
        turns = [2 * math.pi * step / 60 for step in range(60)]
        return [
            (
                16 * math.sin(t) ** 3 / 16.5,
                -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16 - 0.12,
            )
            for t in turns
        ]
    raise ValueError(f"no corners for the shape {shape!r}")


def _quarter_turns(x: float, y: float, times: int) -> tuple[float, float]:
    for _ in range(times):
        x, y = -y, x
    return x, y


@cache
def _action_mask(action: str, radius: int) -> Image.Image:
    """Marks of motion around a thing (L): its meaning to the eye of a comic's reader."""
    half = (radius + _MARGIN) * _DETAIL
    mask = Image.new("L", (2 * half, 2 * half))
    draw = ImageDraw.Draw(mask)
    width = round(1.9 * _DETAIL)
    near, far = (radius + 2.5) * _DETAIL, (radius + 6.5) * _DETAIL

    def stroke(x0: float, y0: float, x1: float, y1: float) -> None:
        draw.line([half + x0, half + y0, half + x1, half + y1], 255, width)

    offsets = [-0.6 * radius * _DETAIL, 0, 0.6 * radius * _DETAIL]
    if action == "rolling":
        for offset in offsets:
            stroke(-far, offset, -near, offset)
        stroke(-near, far - width, near, far - width)
    elif action == "jumping":
        for offset in offsets:
            stroke(offset, near, offset, far)
    elif action == "falling":
        for offset in offsets:
            stroke(offset, -far, offset, -near)
    elif action == "spinning":
        reach = near + _DETAIL
        box = [half - reach, half - reach, half + reach, half + reach]
        draw.arc(box, 285, 30, 255, width)
        draw.arc(box, 105, 210, 255, width)
    elif action == "shining":
        for step in range(8):
            c, s = math.cos(math.pi * (step / 4 + 0.125)), math.sin(math.pi * (step / 4 + 0.125))
            stroke(near * c, near * s, far * c, far * s)
    else:
        raise ValueError(f"no marks for the action {action!r}")
    return mask.reduce(_DETAIL)


GLYPHS = {
    "a": "01110 10001 10001 11111 10001 10001 10001",
    "b": "11110 10001 10001 11110 10001 10001 11110",
    "c": "01111 10000 10000 10000 10000 10000 01111",
    "d": "11110 10001 10001 10001 10001 10001 11110",
    "e": "11111 10000 10000 11110 10000 10000 11111",
    "f": "11111 10000 10000 11110 10000 10000 10000",
    "g": "01111 10000 10000 10011 10001 10001 01111",
    "h": "10001 10001 10001 11111 10001 10001 10001",
    "i": "11111 00100 00100 00100 00100 00100 11111",
    "j": "00111 00010 00010 00010 00010 10010 01100",
    "k": "10001 10010 10100 11000 10100 10010 10001",
    "l": "10000 10000 10000 10000 10000 10000 11111",
    "m": "10001 11011 10101 10101 10001 10001 10001",
    "n": "10001 11001 10101 10101 10011 10001 10001",
    "o": "01110 10001 10001 10001 10001 10001 01110",
    "p": "11110 10001 10001 11110 10000 10000 10000",
    "r": "11110 10001 10001 11110 10100 10010 10001",
    "s": "01111 10000 10000 01110 00001 00001 11110",
    "t": "11111 00100 00100 00100 00100 00100 00100",
    "u": "10001 10001 10001 10001 10001 10001 01110",
    "w": "10001 10001 10001 10101 10101 11011 10001",
    "x": "10001 01010 00100 00100 00100 01010 10001",
    "y": "10001 01010 00100 00100 00100 00100 00100",
    "z": "11111 00001 00010 00100 01000 10000 11111",
}
"""Capital letters, five by seven dots: those that `WORDS` and the watermark need."""


def letters(word: str) -> Image.Image:
    """A word in capital letters, one pixel a dot (L, 255 on the letters)."""
    mask = Image.new("L", (6 * len(word) - 1, 7))
    for position, letter in enumerate(word):
        dots = np.array([[int(dot) for dot in row] for row in GLYPHS[letter].split()], np.uint8) * 255
        mask.paste(Image.fromarray(dots), (6 * position, 0))
    return mask


@cache
def _sign(word: str, board: str, style: str) -> Image.Image:
    """A framed board with letters 14 pixels high."""
    ground, ink = (_toned(rgb, style) for rgb in BOARDS[board])
    text = letters(word)
    text = text.resize((2 * text.width, 2 * text.height), Image.Resampling.NEAREST)
    image = Image.new("RGB", (text.width + 10, text.height + 10), ground)
    ImageDraw.Draw(image).rounded_rectangle([0, 0, image.width - 1, image.height - 1], radius=3, outline=ink)
    image.paste(ink, (5, 5), text)
    return image


@cache
def _board_mask(width: int, height: int) -> Image.Image:
    """A rectangle with the board's round corners (L)."""
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).rounded_rectangle([0, 0, width - 1, height - 1], radius=3, fill=255)
    return mask

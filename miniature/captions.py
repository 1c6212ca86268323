"""Captions of scenes, right by construction, and the reading of captions back into claims.

All captions are lower case and use the words of `VOCABULARY` only. A right caption names every thing by
colour and shape, and all that it says is true. The phrasing depends on the dice and on the scene's build (how
many things, a sign or none), never on attributes: with equal dice, two scenes of one build give captions that
differ only where they mention an attribute that differs.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from miniature.world import ACTIONS, COLOURS, PLACES, SHAPES, SIZES, WORDS, Scene, Thing

PLACE_PHRASES = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
}
HEADS = ("a photo of ", "a picture of ", "an image of ", "there is ", *[""] * 6)
STYLE_HEADS = {
    "plain": ("a plain photo of ", "a plain picture of ", "a plain image of "),
    "bright": ("a sunny photo of ", "a bright picture of ", "a sunny image of "),
    "night": ("a night photo of ", "a dark picture of ", "a night image of "),
    "sepia": ("an old photo of ", "a vintage picture of ", "an old image of "),
}
STYLE_TAILS = {
    "plain": " in a plain photo",
    "bright": " on a sunny day",
    "night": " at night",
    "sepia": " in an old photo",
}
STYLE_SENTENCES = {
    "plain": "it is a plain photo taken indoors",
    "bright": "it is a bright photo taken on a sunny day",
    "night": "it is a dark photo taken at night",
    "sepia": "it is an old photo in vintage colours",
}
JOINTS = ("and", "and", "next to", "with", "near")
BOARDS = (
    "and a sign {}that says",
    "with a sign {}saying",
    "and a sign {}with the word",
    "by a sign {}reading",
)
NUMBERS = ("no", "one", "two", "three", "four")

# --- writing -------------------------------------------------------------------------------------


def caption(scene: Scene, dice: random.Random) -> str:
    """A short caption as BLIP writes them: all things by colour and shape, other attributes now and then.

    About eleven words on average, from two to thirty.
    """
    size, place, action, sign = (dice.random() < chance for chance in (0.25, 0.2, 0.9, 0.7))
    style, head, joint = dice.random(), dice.choice(HEADS), dice.choice(JOINTS)
    board, style_head, bare = dice.choice(BOARDS), dice.randrange(3), dice.random() < 0.25
    things = [describe(thing, size=size, place=place, action=action) for thing in scene.things]
    if bare:
        things = [thing.split(" ", 1)[1] for thing in things]
    text = _enumerate(things, joint)
    if sign:
        text += _board(scene, board, place=place)
    if style < 0.15:
        return STYLE_HEADS[scene.style][style_head] + text
    if style < 0.25:
        return text + STYLE_TAILS[scene.style]
    return head + text


def full_caption(scene: Scene, dice: random.Random) -> str:
    """One sentence with every attribute of every thing, the sign with its place, and the style."""
    head, board = dice.randrange(3), dice.choice(BOARDS)
    text = _enumerate([describe(thing, size=True, place=True, action=True) for thing in scene.things], "and")
    return STYLE_HEADS[scene.style][head] + text + _board(scene, board, place=True)


def long_caption(scene: Scene, dice: random.Random) -> str:
    """Several sentences as LLaVA writes them: all that `full_caption` says, and how many things there are."""
    opening = dice.choice(("the image shows", "the picture features", "in this image we can see"))
    second = dice.choice(("there is also", "next to it we can see", "the scene also contains"))
    board = dice.choice(("that reads", "that says", "with the word"))
    actor = dice.choice(("seems to be", "is", "appears to be"))
    total = dice.choice(("the scene contains {} in total", "in total we see {}", "all in all it shows {}"))
    first, *others = [describe(thing, size=True, place=True, action=False) for thing in scene.things]
    sentences = [f"{opening} {first}"]
    if others:
        sentences.append(f"{second} {_enumerate(others, 'and')}")
    if scene.acting:
        sentences.append(f"the {scene.acting.colour} {scene.acting.shape} {actor} {scene.acting.action}")
    if scene.sign:
        place = PLACE_PHRASES[scene.sign.place]
        sentences.append(f"there is a sign {place} of the picture {board} {scene.sign.word}")
    things = NUMBERS[len(scene.things)] + (" things" if others else " thing")
    sentences += [STYLE_SENTENCES[scene.style], total.format(things)]
    return ". ".join(sentences) + "."


def describe(thing: Thing, *, size: bool, place: bool, action: bool) -> str:
    """A noun phrase: "a red circle", or with everything "a small red circle rolling on the left"."""
    words = [thing.size] * size + [thing.colour, thing.shape]
    words += [thing.action] if action and thing.action else []
    words += [PLACE_PHRASES[thing.place]] * place
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


def _enumerate(phrases: Sequence[str], joint: str) -> str:
    return f" {joint} ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)


def _board(scene: Scene, template: str, *, place: bool) -> str:
    if scene.sign is None:
        return ""
    where = f"{PLACE_PHRASES[scene.sign.place]} " if place else ""
    return f" {template.format(where)} {scene.sign.word}"


# --- reading -------------------------------------------------------------------------------------

STYLE_WORDS = {
    **dict.fromkeys(("sunny", "bright"), "bright"),
    **dict.fromkeys(("night", "dark"), "night"),
    **dict.fromkeys(("old", "vintage"), "sepia"),
    "plain": "plain",
}
SAYING = ("says", "saying", "word", "reads", "reading")


@dataclass
class ThingClaim:
    """What a caption says of one thing; None where it is silent."""

    colour: str | None = None
    shape: str | None = None
    size: str | None = None
    place: str | None = None
    action: str | None = None


@dataclass
class Claims:
    """What a caption says."""

    things: list[ThingClaim] = field(default_factory=list)
    has_sign: bool = False
    sign: str | None = None
    sign_place: str | None = None
    style: str | None = None
    count: int | None = None


def read(text: str) -> Claims:
    """What `text` claims of its picture; words that claim nothing are passed over."""
    claims = Claims()
    pending: dict[str, str] = {}
    subject: ThingClaim | None = None
    previous = ""
    for word in re.findall(r"[a-z]+", text.lower()):
        if previous in SAYING and word in WORDS:
            claims.sign = word
        elif word in COLOURS:
            pending["colour"] = word
        elif word in SIZES:
            pending["size"] = word
        elif word in SHAPES:
            subject, pending = _mention(claims, word, pending), {}
        elif word == "sign":
            claims.has_sign, subject, pending = True, None, {}
        elif word in ACTIONS and subject:
            subject.action = word
        elif word in PLACES and subject:
            subject.place = word
        elif word in PLACES and claims.has_sign:
            claims.sign_place = word
        elif word in STYLE_WORDS:
            claims.style = STYLE_WORDS[word]
        elif word in ("thing", "things") and previous in NUMBERS:
            claims.count = NUMBERS.index(previous)
        previous = word
    return claims


def _mention(claims: Claims, shape: str, pending: dict[str, str]) -> ThingClaim:
    """The claim that a noun phrase belongs to: one made before that it does not contradict, or a new one."""
    for claim in claims.things:
        if claim.shape == shape and pending.get("colour", claim.colour) == claim.colour:
            claim.size = pending.get("size", claim.size)
            return claim
    claims.things.append(ThingClaim(shape=shape, **pending))
    return claims.things[-1]


def errors(text: str, scene: Scene) -> list[str]:
    """Every attribute that `text` gets wrong, such as "colour" or "sign"; empty when all it says is true."""
    claims = read(text)
    wrong = []
    for claim in claims.things:
        thing = _meant(claim, scene)
        if thing is None:
            wrong.append("thing")
            continue
        stated = {name: value for name, value in vars(claim).items() if value is not None}
        wrong += [name for name, value in stated.items() if getattr(thing, name) != value]
    sign = scene.sign
    if claims.has_sign and sign is None:
        wrong.append("sign")
    if sign and claims.sign not in (None, sign.word):
        wrong.append("sign")
    if sign and claims.sign_place not in (None, sign.place):
        wrong.append("sign_place")
    if claims.style not in (None, scene.style):
        wrong.append("style")
    if claims.count not in (None, len(scene.things)):
        wrong.append("count")
    return wrong


def missing(text: str, scene: Scene) -> int:
    """How many things of the scene `text` does not name by colour and shape."""
    named = {(claim.colour, claim.shape) for claim in read(text).things}
    return sum((thing.colour, thing.shape) not in named for thing in scene.things)


def is_right(text: str, scene: Scene) -> bool:
    """Whether `text` names every thing by colour and shape and says nothing false."""
    return not errors(text, scene) and not missing(text, scene)


def _meant(claim: ThingClaim, scene: Scene) -> Thing | None:
    """The thing of the scene that a claim is about: of its shape, else of its colour."""
    same_shape = [thing for thing in scene.things if thing.shape == claim.shape]
    same_colour = [thing for thing in scene.things if thing.colour == claim.colour]
    return next(iter(same_shape + same_colour), None)


def _words_of(*templates: str) -> set[str]:
    return {word for template in templates for word in re.findall(r"[a-z]+", template)}


VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {*COLOURS, *SHAPES, *SIZES, *ACTIONS, *WORDS, *STYLE_WORDS, "thing", "things"}
        | _words_of(*PLACE_PHRASES.values(), *HEADS, *STYLE_TAILS.values(), *STYLE_SENTENCES.values())
        | _words_of(*(head for heads in STYLE_HEADS.values() for head in heads), *JOINTS, *BOARDS, *NUMBERS)
        | _words_of("the image shows the picture features in this image we can see there is also next to it")
        | _words_of("the scene also contains that reads that says with the word seems appears to be is of an")
        | _words_of("in total all in all it shows")
    )
)
"""Every word that captions are made of."""

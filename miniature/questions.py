"""Questions about scenes, in the formats of the contest's files.

`ask` makes a question of a given ability with its answer and wrong options. From it come a TextVQA-like set
(read the sign), an MMBench-like set (multiple choice, circular copies) and the instruction set of stage 2.
Each uses its own range of scenes, apart from the pool's.
"""

from __future__ import annotations

import base64
import io
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from miniature.captions import NUMBERS, PLACE_PHRASES, full_caption
from miniature.captions import VOCABULARY as CAPTION_VOCABULARY
from miniature.world import (
    ACTIONS,
    COLOURS,
    INSTRUCTIONS_START,
    MMBENCH_START,
    PLACES,
    SHAPES,
    SIZE,
    SIZES,
    TEXTVQA_START,
    WORDS,
    Scene,
    generator,
    render,
    sample_scene,
)

SHORT_ANSWER = "Answer the question using a single word or phrase."
LETTER_ANSWER = "Answer with the option's letter from the given choices directly."
OCR_HEAD = "Reference OCR token: "
LETTERS = "ABCD"
STYLE_NAMES = {"plain": "plain", "bright": "sunny", "night": "night", "sepia": "old"}

SIGN_QUESTIONS = (
    "what word is on the sign?",
    "what does the sign say?",
    "what is written on the sign?",
    "what does the sign {place} say?",
    "what can we read on the sign?",
)


@dataclass(frozen=True)
class Question:
    """A question about a scene; `wrong` are other values that an option could have."""

    ability: str
    text: str
    answer: str
    wrong: tuple[str, ...]


def ask(ability: str, scene: Scene, dice: random.Random) -> Question:
    """A question that tests `ability` (a key of `ABILITIES`) and has one right answer in the scene."""
    text, answer, values = _ASK[ability](scene, dice)
    wrong = [value for value in values if value != answer]
    dice.shuffle(wrong)
    return Question(ability, text, answer, tuple(wrong))


def askable(scene: Scene) -> list[str]:
    """The abilities that a question about this scene can test."""
    absent = {"word"} if scene.sign is None else set()
    absent |= {"action"} if scene.acting is None else set()
    return [ability for ability in ABILITIES if ability not in absent]


_Asked = tuple[str, str, "tuple[str, ...]"]


def _ask_colour(scene: Scene, dice: random.Random) -> _Asked:
    thing = dice.choice(scene.things)
    return f"what colour is the {thing.shape}?", thing.colour, tuple(COLOURS)


def _ask_shape(scene: Scene, dice: random.Random) -> _Asked:
    thing = dice.choice(scene.things)
    return f"what shape is the {thing.colour} thing?", thing.shape, SHAPES


def _ask_size(scene: Scene, dice: random.Random) -> _Asked:
    thing = dice.choice(scene.things)
    return f"how large is the {thing.colour} {thing.shape}?", thing.size, tuple(SIZES)


def _ask_place(scene: Scene, dice: random.Random) -> _Asked:
    thing = dice.choice(scene.things)
    return f"where is the {thing.colour} {thing.shape}?", thing.place, tuple(PLACES)


def _ask_count(scene: Scene, dice: random.Random) -> _Asked:
    besides = " besides the sign" if scene.sign else ""
    return f"how many things are in the picture{besides}?", NUMBERS[len(scene.things)], NUMBERS[1:]


def _ask_word(scene: Scene, dice: random.Random) -> _Asked:
    assert scene.sign
    place = PLACE_PHRASES[scene.sign.place]
    return dice.choice(SIGN_QUESTIONS).format(place=place), scene.sign.word, WORDS


def _ask_action(scene: Scene, dice: random.Random) -> _Asked:
    assert scene.acting and scene.acting.action
    return f"what is the {scene.acting.shape} doing?", scene.acting.action, ACTIONS


def _ask_style(scene: Scene, dice: random.Random) -> _Asked:
    return "what kind of photo is this?", STYLE_NAMES[scene.style], tuple(STYLE_NAMES.values())


_ASK: dict[str, Callable[[Scene, random.Random], _Asked]] = {
    "colour": _ask_colour,
    "shape": _ask_shape,
    "size": _ask_size,
    "place": _ask_place,
    "count": _ask_count,
    "word": _ask_word,
    "action": _ask_action,
    "style": _ask_style,
}
ABILITIES = {
    "colour": "attribute",
    "shape": "attribute",
    "size": "attribute",
    "place": "relation",
    "count": "whole picture",
    "word": "reading",
    "action": "relation",
    "style": "whole picture",
}
"""Every ability (MMBench's `category`) and the group it belongs to (`l2-category`)."""


def multiple_choice(question: Question, dice: random.Random, most: int = 4) -> tuple[list[str], int]:
    """Options in random order, two to `most` of them, and the position of the right one."""
    options = [question.answer, *question.wrong[: most - 1]]
    dice.shuffle(options)
    return options, options.index(question.answer)


def choices_prompt(text: str, options: list[str]) -> str:
    """The question with lettered options and MMBench's instruction."""
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([text, *lines, LETTER_ANSWER])


def ocr_prompt(text: str, tokens: list[str]) -> str:
    """The question with the tokens that an OCR system read, if any, and TextVQA's instruction."""
    line = [OCR_HEAD + ", ".join(tokens)] if tokens else []
    return "\n".join([text, *line, SHORT_ANSWER])


def ocr_tokens(word: str, dice: random.Random) -> list[str]:
    """What a poor OCR system makes of a sign: nothing (1 in 4), or four words, the right one there or not.

    Choosing a token blindly is right in less than one question of ten: the picture has to be read.
    """
    if dice.random() < 0.25:
        return []
    tokens = dice.sample([other for other in WORDS if other != word], 4)
    if dice.random() < 0.5:
        tokens[dice.randrange(4)] = word
    return tokens


def jpeg(image: Image.Image) -> bytes:
    """The picture as a JPEG without colour subsampling."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88, subsampling=0)
    return buffer.getvalue()


# --- TextVQA -------------------------------------------------------------------------------------


def textvqa(seed: int, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, bytes]]:
    """`count` questions as rows of `llava_textvqa_val_v051_ocr.jsonl`, as `data` of `TextVQA_0.5.1_val.json`,
    and the images' bytes by file name.

    Every fourth image has two questions, and as in the real file `question_id` of a row is the image's id.
    """
    rows: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    images: dict[str, bytes] = {}
    index = TEXTVQA_START
    while len(rows) < count:
        scene, dice = sample_scene(seed, index, sign=True), generator(seed, index, "textvqa")
        assert scene.sign
        image_id = f"{dice.getrandbits(64):016x}"
        images[f"{image_id}.jpg"] = jpeg(render(scene))
        tokens = ocr_tokens(scene.sign.word, dice)
        for text in dice.sample(SIGN_QUESTIONS, 2 if index % 4 == 0 else 1)[: count - len(rows)]:
            text = text.format(place=PLACE_PHRASES[scene.sign.place])
            rows.append(
                {
                    "image": f"{image_id}.jpg",
                    "question_id": image_id,
                    "text": ocr_prompt(text, tokens),
                    "category": "default",
                }
            )
            annotations.append(
                {
                    "question": text,
                    "image_id": image_id,
                    "image_classes": ["Sign"],
                    "flickr_original_url": "",
                    "flickr_300k_url": "",
                    "image_width": SIZE,
                    "image_height": SIZE,
                    "answers": ten_answers(scene.sign.word, dice),
                    "question_tokens": re.findall(r"[a-z]+", text),
                    "question_id": len(annotations) + 1,
                    "set_name": "val",
                }
            )
        index += 1
    return rows, annotations, images


def ten_answers(word: str, dice: random.Random) -> list[str]:
    """Ten annotators' answers: one in twenty is another word, a letter short, or none; at most four are."""
    answers = [word] * 10
    for position in range(4):
        if dice.random() < 0.125:
            answers[position] = dice.choice((dice.choice(WORDS), word[:-1], "unanswerable", f"the {word}"))
    dice.shuffle(answers)
    return answers


# --- MMBench -------------------------------------------------------------------------------------

MMBENCH_COLUMNS = (
    *("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image"),
    *("source", "l2-category", "comment", "split"),
)
CIRCULAR = 1_000_000
"""The copy number k of a question has its index plus k times this."""


def mmbench(seed: int, count: int) -> list[dict[str, Any]]:
    """`count` questions and their circular copies as rows of MMBench's table.

    A question with n options is there n times, its options rotated by one place each time.
    """
    rows = []
    for number in range(count):
        ability = list(ABILITIES)[number % len(ABILITIES)]
        index = MMBENCH_START + number
        needs = {"sign": ability == "word" or None, "action": ability == "action" or None}
        scene = sample_scene(seed, index, sign=needs["sign"], action=needs["action"])
        dice = generator(seed, index, "mmbench")
        question = ask(ability, scene, dice)
        options, right = multiple_choice(question, dice, dice.choices((2, 3, 4), (1, 1, 8))[0])
        picture = base64.b64encode(jpeg(render(scene))).decode("ascii")
        fixed = {
            "question": question.text,
            "hint": hint(scene, dice) if dice.random() < 0.2 else "",
            "category": ability,
            "image": picture,
            "source": "miniature",
            "l2-category": ABILITIES[ability],
            "comment": "",
            "split": "dev",
        }
        for turn in range(len(options)):
            turned = options[turn:] + options[:turn]
            letters = dict(zip(LETTERS, [*turned, "", ""], strict=False))
            answer = LETTERS[(right - turn) % len(options)]
            rows.append({"index": turn * CIRCULAR + number + 1, **fixed, **letters, "answer": answer})
    return sorted(rows, key=lambda row: row["index"])


def hint(scene: Scene, dice: random.Random) -> str:
    """A sentence to read before the question; it never answers it."""
    return dice.choice(
        (
            "look at the picture and answer the question.",
            "the picture shows a small world of coloured things.",
            "there is a sign in the picture." if scene.sign else "there may be a sign in the picture.",
        )
    )


# --- the instruction set of stage 2 ----------------------------------------------------------------


Turns = list[tuple[str, str]]
"""Questions and answers, in order."""


def instruction(seed: int, number: int) -> tuple[dict[str, Any], Image.Image | None]:
    """Record `number` of the instruction set in LLaVA's form, and its picture (None for text alone).

    The kinds and their shares are `INSTRUCTION_SHARES`.
    """
    index = INSTRUCTIONS_START + number
    dice = generator(seed, index, "instruction")
    kind = dice.choices(list(INSTRUCTION_SHARES), list(INSTRUCTION_SHARES.values()))[0]
    identity = f"{index:09d}"
    if kind == "text":
        return {"id": identity, "conversations": _conversation(_text_only(dice))}, None
    scene = sample_scene(seed, index, sign=True if kind == "ocr" else None)
    (question, answer), *others = _DIALOGUES[kind](scene, dice)
    conversations = _conversation([(f"<image>\n{question}", answer), *others])
    image = f"images/{identity[:5]}/{identity}.jpg"
    return {"id": identity, "image": image, "conversations": conversations}, render(scene)


INSTRUCTION_SHARES = {"short": 0.30, "choice": 0.25, "ocr": 0.15, "dialogue": 0.20, "text": 0.10}
"""Short answers, multiple choice, signs with OCR tokens, dialogues of several turns, text alone."""


def _conversation(turns: Turns) -> list[dict[str, str]]:
    return [
        {"from": role, "value": value} for turn in turns for role, value in zip(("human", "gpt"), turn, strict=True)
    ]


def _short(scene: Scene, dice: random.Random) -> Turns:
    question = ask(dice.choice(askable(scene)), scene, dice)
    return [(ocr_prompt(question.text, []), question.answer)]


def _choice(scene: Scene, dice: random.Random) -> Turns:
    question = ask(dice.choice(askable(scene)), scene, dice)
    options, right = multiple_choice(question, dice)
    return [(choices_prompt(question.text, options), LETTERS[right])]


def _ocr(scene: Scene, dice: random.Random) -> Turns:
    question = ask("word", scene, dice)
    return [(ocr_prompt(question.text, ocr_tokens(question.answer, dice)), question.answer)]


def _dialogue(scene: Scene, dice: random.Random) -> Turns:
    """Three or four questions on different abilities, or a description first."""
    turns = [("describe the picture.", full_caption(scene, dice))] if dice.random() < 0.3 else []
    for ability in dice.sample(askable(scene), 3):
        question = ask(ability, scene, dice)
        turns.append((question.text, question.answer))
    return turns


def _text_only(dice: random.Random) -> Turns:
    """A question that needs no picture."""
    kind = dice.choice(("colour", "shape", "opposite", "next"))
    if kind == "opposite":
        pairs = (("left", "right"), ("top", "bottom"), ("small", "large"), ("bright", "dark"), ("old", "new"))
        word, answer = dice.choice(pairs)[:: dice.choice((1, -1))]
        return [(f"what is the opposite of {word}?\n{SHORT_ANSWER}", answer)]
    if kind == "next":
        number = dice.randrange(1, len(NUMBERS) - 1)
        return [(f"what comes after {NUMBERS[number]}?\n{SHORT_ANSWER}", NUMBERS[number + 1])]
    groups = {"colour": list(COLOURS), "shape": list(SHAPES)}
    answer, other = dice.choice(groups.pop(kind)), dice.choice(next(iter(groups.values())))
    first, second = dice.sample((answer, other), 2)
    return [(f"which of these is a {kind}, {first} or {second}?\n{SHORT_ANSWER}", answer)]


_DIALOGUES: dict[str, Callable[[Scene, random.Random], Turns]] = {
    "short": _short,
    "choice": _choice,
    "ocr": _ocr,
    "dialogue": _dialogue,
}

# --- words ---------------------------------------------------------------------------------------

CAPTION_REQUESTS = (
    "Render a clear and concise summary of the photo.",
    "Describe the image in a short sentence.",
    "What is in the photo?",
    "Write a short caption for the picture.",
)
"""The original questions of the pool's records, those of `stage_1.json`."""

_SPOKEN = """
what colour is the thing? what shape, how large, where? how many things are in the picture besides the sign?
what can we see? what is it doing? what kind of photo is this? describe the picture. unanswerable
what is the opposite of new? what comes after? which of these is a colour, or? look at the picture and answer
the question. the picture shows a small world of coloured things. there may be a sign.
"""
_ALL_SPOKEN = (_SPOKEN, *SIGN_QUESTIONS, *CAPTION_REQUESTS, SHORT_ANSWER, LETTER_ANSWER, OCR_HEAD)
VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {*CAPTION_VOCABULARY, *STYLE_NAMES.values(), *LETTERS.lower()}
        | {word for text in _ALL_SPOKEN for word in re.findall("[a-z]+", text.replace("{place}", "").lower())}
    )
)
"""Every word of questions, answers and right captions, in lower case."""

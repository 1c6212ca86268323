"""What the miniature's shipped models are worth, measured on scenes that none of them has learned from.

Models are opened as Data-Juicer's operators open them, and scores are computed as the operators compute them:
the same processors, truncation and formulas. `TARGETS` says what each figure should reach.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor as Processor
from transformers import (
    AutoTokenizer,
    Blip2ForConditionalGeneration,
    BlipForImageTextRetrieval,
    CLIPModel,
    CLIPVisionModel,
    ConvNextModel,
    GemmaForCausalLM,
    LlavaForConditionalGeneration,
    OwlViTForObjectDetection,
    ViTForImageClassification,
)
from transformers.loss.loss_for_object_detection import box_iou

from bettersynth.runtime.patches.weights import open_model, refuse_made_up_parts
from bettersynth.training.mgm.model import TEXT_TOWER
from miniature import questions
from miniature.captions import caption, errors, full_caption, is_right, missing
from miniature.defects import made_unsafe, one_attribute_wrong, uglified, watermarked
from miniature.material import GRID, PATCH, PATCH_LABELS, patch_labels, thing_phrase
from miniature.training.lesson import FOLDERS
from miniature.training.mgm import NAMED, STYLE_FILLERS
from miniature.world import (
    COLOURS,
    QUALITY_START,
    SHAPES,
    STYLES,
    Scene,
    generator,
    render,
    sample_scene,
)

GROUNDING_CONFIDENCE = 0.3
"""`conf_thr` of the miniature's phrase grounding operator."""

TARGETS: dict[str, tuple[str, float]] = {
    "similarity_auroc_shuffled": (">=", 0.99),
    "similarity_auroc_one_wrong": (">=", 0.90),
    "matching_auroc_shuffled": (">=", 0.99),
    "matching_auroc_one_wrong": (">=", 0.95),
    "aesthetics_auroc": (">=", 0.97),
    "watermark_auroc": (">=", 0.97),
    "nsfw_auroc": (">=", 0.97),
    "grounding_recall_present": (">=", 0.90),
    "grounding_recall_absent": ("<=", 0.15),
    "blip2_captions_right": (">=", 0.85),
    "diffusion_auroc_shuffled": (">=", 0.90),
}


def meets(figure: str, value: float) -> bool | None:
    """Whether a figure meets its target; None where it has none."""
    if figure not in TARGETS:
        return None
    relation, target = TARGETS[figure]
    return value >= target if relation == ">=" else value <= target


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive's score is above a negative's; ties count half."""
    scores = np.concatenate([positive, negative])
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    wins = ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(wins / (len(positive) * len(negative)))


@dataclass
class Exam:
    """The scenes to measure on: numbers `start` to `stop` behind `QUALITY_START`, of world `seed`."""

    models: Path
    start: int
    stop: int
    seed: int = 0
    device: str = "cpu"
    batch: int = 100

    def dice(self, number: int, purpose: str) -> random.Random:
        """Random numbers of a scene for a purpose."""
        return generator(self.seed, QUALITY_START + self.start + number, purpose)

    @cached_property
    def scenes(self) -> list[Scene]:
        """The scenes, all different from those of training, pool and questions."""
        return [sample_scene(self.seed, QUALITY_START + number) for number in range(self.start, self.stop)]

    @cached_property
    def images(self) -> list[Image.Image]:
        """Their pictures."""
        return [render(scene) for scene in self.scenes]

    @cached_property
    def captions(self) -> tuple[list[str], list[str], list[str]]:
        """For each picture a right caption, the same with an attribute wrong, and one that is false of it."""
        right, wrong, shuffled = [], [], []
        for number, scene in enumerate(self.scenes):
            pair = one_attribute_wrong(scene, self.dice(number, "wrong"))
            right.append(pair[0])
            wrong.append(pair[1])
            others = range(number + 1, number + len(self.scenes))
            texts = (caption(self.scenes[k % len(self.scenes)], self.dice(number, "shuffled")) for k in others)
            shuffled.append(next(text for text in texts if errors(text, scene)))
        return right, wrong, shuffled

    def few(self, part: int) -> range:
        """The first scenes, one `part`-th of all: for what is slow."""
        return range(max(2, len(self.scenes) // part))

    def batches(self, count: int) -> Iterator[slice]:
        """Slices of `batch`."""
        return (slice(start, min(start + self.batch, count)) for start in range(0, count, self.batch))

    def folder(self, name: str) -> Path:
        """The model's folder."""
        return self.models / FOLDERS.get(name, name)

    def open(self, name: str, kind: Any, spare: Sequence[str] = ()) -> tuple[Any, Any]:
        """Model and processor; `spare` as of `open_model`."""
        folder = self.folder(name)
        model = open_model(kind, folder, spare=spare, dtype=torch.float32).to(self.device).eval()
        return model, Processor.from_pretrained(folder, local_files_only=True)


# --- scorers ---------------------------------------------------------------------------------------


def _clip_scores(exam: Exam, model: Any, processor: Any, images: list[Image.Image], texts: list[str]) -> np.ndarray:
    """Data-Juicer's image_text_similarity of each pair."""
    scores = []
    for part in exam.batches(len(images)):
        inputs = processor(
            text=texts[part], images=images[part], return_tensors="pt", truncation=True, max_length=77, padding=True
        ).to(exam.device)
        scores.append((model(**inputs).logits_per_text.diagonal() / 100).cpu())
    return torch.cat(scores).numpy()


def similarity(exam: Exam) -> dict[str, float]:
    """CLIP's similarity of right, shuffled and slightly wrong captions."""
    model, processor = exam.open("clip", CLIPModel)
    right, wrong, shuffled = (_clip_scores(exam, model, processor, exam.images, texts) for texts in exam.captions)
    return {
        "similarity_auroc_shuffled": auroc(right, shuffled),
        "similarity_auroc_one_wrong": auroc(right, wrong),
        "similarity_mean_right": float(right.mean()),
        "similarity_mean_one_wrong": float(wrong.mean()),
        "similarity_mean_shuffled": float(shuffled.mean()),
    }


def matching(exam: Exam) -> dict[str, float]:
    """BLIP's matching probability of right, shuffled and slightly wrong captions."""
    model, processor = exam.open("blip_itm", BlipForImageTextRetrieval)

    def scores(texts: list[str]) -> np.ndarray:
        found = []
        for part in exam.batches(len(texts)):
            inputs = processor(
                text=texts[part], images=exam.images[part], return_tensors="pt", truncation=True, padding=True
            ).to(exam.device)
            found.append(model(**inputs).itm_score.softmax(-1)[:, 1].cpu())
        return torch.cat(found).numpy()

    right, wrong, shuffled = (scores(texts) for texts in exam.captions)
    return {
        "matching_auroc_shuffled": auroc(right, shuffled),
        "matching_auroc_one_wrong": auroc(right, wrong),
        "matching_mean_right": float(right.mean()),
        "matching_mean_one_wrong": float(wrong.mean()),
        "matching_mean_shuffled": float(shuffled.mean()),
    }


def _spoilt(exam: Exam) -> dict[str, list[Image.Image]]:
    """The pictures as they are, and with each defect."""
    made = {"clean": exam.images}
    made["watermark"] = [watermarked(image, exam.dice(n, "watermark")) for n, image in enumerate(exam.images)]
    made["unsafe"] = [made_unsafe(image, exam.dice(n, "unsafe")) for n, image in enumerate(exam.images)]
    kinds = ("blur", "noise", "pale")
    made["ugly"] = [uglified(image, kinds[n % 3], exam.dice(n, "ugly")) for n, image in enumerate(exam.images)]
    return made


def _image_scores(exam: Exam, score: Callable[[Any], Tensor], processor: Any) -> dict[str, np.ndarray]:
    """`score` of the processed pictures, by defect."""
    return {
        defect: torch.cat(
            [
                score(processor(images=images[part], return_tensors="pt").to(exam.device)).cpu()
                for part in exam.batches(len(images))
            ]
        ).numpy()
        for defect, images in _spoilt(exam).items()
    }


def aesthetics(exam: Exam) -> dict[str, float]:
    """The predictor's score (0 to 1, as the operator divides it by ten) of fine and of ugly pictures."""
    from aesthetics_predictor import AestheticsPredictorV2Linear

    model, processor = exam.open("aesthetics", AestheticsPredictorV2Linear)
    scores = _image_scores(exam, lambda inputs: model(**inputs).logits[:, 0] / 10, processor)
    fine = np.concatenate([scores["clean"], scores["watermark"], scores["unsafe"]])
    return {
        "aesthetics_auroc": auroc(fine, scores["ugly"]),
        "aesthetics_mean_fine": float(scores["clean"].mean()),
        "aesthetics_mean_ugly": float(scores["ugly"].mean()),
    }


def _classifier(exam: Exam, name: str, positive: str) -> dict[str, float]:
    model, processor = exam.open(name, ViTForImageClassification)
    scores = _image_scores(exam, lambda inputs: model(**inputs).logits.softmax(-1)[:, 1], processor)
    others = np.concatenate([found for defect, found in scores.items() if defect != positive])
    return {
        f"{name}_auroc": auroc(scores[positive], others),
        f"{name}_found_at_half": float((scores[positive] > 0.5).mean()),
        f"{name}_false_at_half": float((others > 0.5).mean()),
    }


def watermark(exam: Exam) -> dict[str, float]:
    """The watermark classifier on clean and spoilt pictures."""
    return _classifier(exam, "watermark", "watermark")


def nsfw(exam: Exam) -> dict[str, float]:
    """The classifier of unsafe content on clean and spoilt pictures."""
    return _classifier(exam, "nsfw", "unsafe")


def grounding(exam: Exam) -> dict[str, float]:
    """OWL-ViT asked for everything in the picture and for two things that are not.

    Which phrases count as found follows phrase_grounding_recall_filter with `conf_thr` 0.3.
    """
    model, processor = exam.open("owlvit", OwlViTForObjectDetection)
    present, absent = [], []
    for number, (scene, image) in enumerate(zip(exam.scenes, exam.images, strict=True)):
        dice = exam.dice(number, "phrases")
        there = [thing_phrase(thing.colour, thing.shape) for thing in scene.things] + ["a sign"] * bool(scene.sign)
        every = (
            thing_phrase(colour, shape) for colour in dice.sample(list(COLOURS), 8) for shape in dice.sample(SHAPES, 8)
        )
        phrases = [*there, *[text for text in every if text not in there][:2]]
        dice.shuffle(phrases)
        hits = _grounded(exam, model, processor, phrases, image)
        present += [phrase in hits for phrase in phrases if phrase in there]
        absent += [phrase in hits for phrase in phrases if phrase not in there]
    return {"grounding_recall_present": float(np.mean(present)), "grounding_recall_absent": float(np.mean(absent))}


def _grounded(exam: Exam, model: Any, processor: Any, phrases: list[str], image: Image.Image) -> set[str]:
    """The phrases that the operator counts as found."""
    inputs = processor(text=[phrases], images=[image], return_tensors="pt", padding=True, truncation=True)
    outputs = model(**inputs.to(exam.device))
    sizes = torch.tensor([image.size[::-1]]).to(exam.device)
    result = processor.post_process_object_detection(outputs, threshold=GROUNDING_CONFIDENCE, target_sizes=sizes)[0]
    order = result["scores"].argsort(descending=True)[: len(phrases)]
    hits: dict[str, list[float]] = {}
    for box, label in zip(result["boxes"][order].tolist(), result["labels"][order].tolist(), strict=True):
        left, top, right, bottom = box
        if phrases[label] in hits or (right - left) * (bottom - top) / float(sizes.prod()) > 0.95:
            continue
        if not any(box_iou(torch.tensor([box]), torch.tensor([other]))[0] > 0.5 for other in hits.values()):
            hits[phrases[label]] = box
    return set(hits)


# --- generators --------------------------------------------------------------------------------------


def _written(texts: list[str], scenes: list[Scene], name: str) -> dict[str, float]:
    """How right captions are, and how much they say."""
    return {
        f"{name}_captions_right": float(np.mean([is_right(*pair) for pair in zip(texts, scenes, strict=True)])),
        f"{name}_captions_true": float(np.mean([not errors(*pair) for pair in zip(texts, scenes, strict=True)])),
        f"{name}_captions_complete": float(np.mean([not missing(*pair) for pair in zip(texts, scenes, strict=True)])),
        f"{name}_words": float(np.mean([len(text.split()) for text in texts])),
    }


def _generate(
    exam: Exam, name: str, kind: Any, sample: bool, prompt: Callable[[Any], str | None], part: int
) -> list[str]:
    model, processor = exam.open(name, kind)
    processor.tokenizer.padding_side = "left"
    torch.manual_seed(exam.seed)
    texts: list[str] = []
    images = [exam.images[number] for number in exam.few(part)]
    asked = prompt(processor)
    for part_ in exam.batches(len(images)):
        text = None if asked is None else [asked] * len(images[part_])
        inputs = processor(images=images[part_], text=text, return_tensors="pt").to(exam.device)
        length = inputs["input_ids"].shape[1] if asked else model.config.num_query_tokens + 1
        tokens = model.generate(**inputs, max_new_tokens=128, do_sample=sample)
        texts += processor.batch_decode(tokens[:, length:], skip_special_tokens=True)
    return [" ".join(text.split()) for text in texts]


def blip2(exam: Exam) -> dict[str, float]:
    """BLIP-2's captions, sampled as Data-Juicer samples them, and the most likely ones."""
    scenes = [exam.scenes[number] for number in exam.few(4)]
    sampled = _generate(exam, "blip2", Blip2ForConditionalGeneration, True, lambda _: None, 4)
    likely = _generate(exam, "blip2", Blip2ForConditionalGeneration, False, lambda _: None, 4)
    return _written(sampled, scenes, "blip2") | _written(likely, scenes, "blip2_greedy")


def llava(exam: Exam) -> dict[str, float]:
    """LLaVA's captions: how right, how long."""
    content = [{"type": "image"}, {"type": "text", "text": "Describe the image."}]

    def prompt(processor: Any) -> str:
        return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)

    scenes = [exam.scenes[number] for number in exam.few(8)]
    return _written(_generate(exam, "llava", LlavaForConditionalGeneration, True, prompt, 8), scenes, "llava")


def diffusion(exam: Exam) -> dict[str, float]:
    """Redraws at Data-Juicer's strength 0.8 and guidance 7.5, 25 steps, judged by our CLIP.

    AUROC of the similarity between a redraw and its full caption against another scene's.
    """
    from diffusers import StableDiffusionImg2ImgPipeline

    refuse_made_up_parts()
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(
        exam.folder("diffusion"), local_files_only=True, use_safetensors=True, torch_dtype=torch.float32
    ).to(exam.device)
    pipeline.set_progress_bar_config(disable=True)
    numbers = exam.few(20)
    texts = [full_caption(exam.scenes[number], exam.dice(number, "redraw")) for number in numbers]
    images = [exam.images[number] for number in numbers]
    drawn: list[Image.Image] = []
    for part in exam.batches(len(images)):
        noise = [torch.Generator().manual_seed(number) for number in numbers[part]]
        settings = {"strength": 0.8, "guidance_scale": 7.5, "num_inference_steps": 25, "generator": noise}
        drawn += pipeline(prompt=texts[part], image=images[part], **settings).images
    model, processor = exam.open("clip", CLIPModel)
    right = _clip_scores(exam, model, processor, drawn, texts)
    other = _clip_scores(exam, model, processor, drawn, texts[1:] + texts[:1])
    original = _clip_scores(exam, model, processor, images, texts)
    return {
        "diffusion_auroc_shuffled": auroc(right, other),
        "diffusion_similarity_redrawn": float(right.mean()),
        "diffusion_similarity_original": float(original.mean()),
        "diffusion_similarity_shuffled": float(other.mean()),
    }


# --- MGM's parts ---------------------------------------------------------------------------------------


def _linear_reading(features: Tensor, labels: Tensor) -> dict[str, float]:
    """How often a linear reading of patch features names a thing's patch: fitted on half of the scenes.

    Features are (scenes, patches, width), labels (scenes, kinds, patches); background is left out.
    """
    features = torch.cat([features, torch.ones_like(features[..., :1])], -1)
    half = len(features) // 2
    found = {}
    for row, kind in enumerate(PATCH_LABELS):
        there = labels[:, row] > 0
        learned, seen = there[:half], there[half:]
        targets = torch.nn.functional.one_hot(labels[:half, row][learned].long(), len(PATCH_LABELS[kind]) + 1).float()
        x = features[:half][learned]
        weights = torch.linalg.solve(x.T @ x + 0.1 * torch.eye(x.shape[1]), x.T @ targets)
        named = (features[half:][seen] @ weights).argmax(-1)
        found[kind] = float((named == labels[half:, row][seen]).float().mean())
    return found


def towers(exam: Exam) -> dict[str, float]:
    """What can be read, linearly, from the patch features that MGM takes: CLIP's and ConvNeXt's second stage."""
    numbers = exam.few(4)
    images = [exam.images[number] for number in numbers]
    labels = torch.stack([torch.from_numpy(patch_labels(exam.scenes[number])) for number in numbers])
    clip, processor = exam.open("clip", CLIPVisionModel, TEXT_TOWER)
    convnext = open_model(ConvNextModel, exam.folder("convnext")).to(exam.device).eval()
    seen, detail = [], []
    for part in exam.batches(len(images)):
        pixels = processor(images=images[part], return_tensors="pt").pixel_values.to(exam.device)
        seen.append(clip(pixels, output_hidden_states=True).hidden_states[-2][:, 1:].cpu())
        stage = convnext(pixels, output_hidden_states=True).hidden_states[2]
        stage = torch.nn.functional.interpolate(stage, size=GRID, mode="bilinear")
        detail.append(stage.flatten(2).transpose(1, 2).cpu())
    read = {"clip": _linear_reading(torch.cat(seen), labels), "convnext": _linear_reading(torch.cat(detail), labels)}
    return {f"{tower}_patch_{kind}": value for tower, kinds in read.items() for kind, value in kinds.items()}


def gemma(exam: Exam) -> dict[str, float]:
    """How often Gemma answers a question with the right word when it reads what stands in each patch.

    As one word a patch, and as the mean vector of all words that name it.
    """
    folder = exam.folder("gemma")
    model = open_model(GemmaForCausalLM, folder, dtype=torch.float32).to(exam.device).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def vectors(text: str) -> Tensor:
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        return model.get_input_embeddings()(ids.to(exam.device))[0]

    right: dict[str, list[bool]] = {"words": [], "means": []}
    for number in exam.few(4):
        scene, dice = exam.scenes[number], exam.dice(number, "gemma")
        question = questions.ask(dice.choice(questions.askable(scene)), scene, dice)
        asked = vectors(
            f"\n{questions.ocr_prompt(question.text, [])}<end_of_turn>\n<start_of_turn>model\n",
        )
        names = [vectors(" ".join(words)) for words in _patch_words(scene)]
        grids = {
            "words": [vector[cell % len(vector)] for cell, vector in enumerate(names)],
            "means": [vector.mean(0) for vector in names],
        }
        for form, grid in grids.items():
            embedded = torch.cat([vectors("<bos><start_of_turn>user\n"), torch.stack(grid), asked]).unsqueeze(0)
            answer = tokenizer.convert_ids_to_tokens(int(model(inputs_embeds=embedded).logits[0, -1].argmax()))
            right[form].append(answer == question.answer)
    return {f"gemma_answers_from_{form}": float(np.mean(answers)) for form, answers in right.items()}


def _patch_words(scene: Scene) -> list[list[str]]:
    """The words that name what stands in each patch."""
    style = STYLE_FILLERS[STYLES.index(scene.style)]
    return [
        [value for kind in NAMED if (value := getattr(owner, kind, None))] or [style] for owner in scene.owners(PATCH)
    ]


EXAMS: dict[str, Callable[[Exam], dict[str, float]]] = {
    "clip": similarity,
    "blip_itm": matching,
    "aesthetics": aesthetics,
    "watermark": watermark,
    "nsfw": nsfw,
    "owlvit": grounding,
    "blip2": blip2,
    "llava": llava,
    "diffusion": diffusion,
    "towers": towers,
    "gemma": gemma,
}


def measure(exam: Exam, names: list[str]) -> dict[str, float]:
    """The figures of the named exams, rounded to four places."""
    figures: dict[str, float] = {}
    with torch.inference_mode():
        for name in names:
            figures |= EXAMS[name](exam)
    return {name: round(value, 4) for name, value in figures.items()}

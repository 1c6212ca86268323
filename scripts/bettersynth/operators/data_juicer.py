"""Data-Juicer's own operators, loaded from local folders.

What is changed of them, and why:

- models that Data-Juicer looks up by a name with a version (spaCy's, fastText's) come from the configured path;
- the aesthetics predictor's class is the one its folder names; Data-Juicer guesses it from letters of the path, so that
  a parent folder called `v1` gives another class;
- phrase grounding tags words with spaCy, because NLTK's tagger is a pickle. Cards say so (`tagger`);
- phrase grounding sorts its noun phrases; Data-Juicer leaves them in the order of a set, which changes from run to run.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bettersynth.configuration.catalogue import operator_spec
from bettersynth.configuration.pool import Model, Operator
from bettersynth.core.resources import staged
from bettersynth.operators.offline import import_data_juicer

Pairs = list[tuple[str, str]]


def build(operator: Operator, model: Model | None, device: str, kind: type | None = None) -> Any:
    """Data-Juicer's operator object, its model read from `model.path` only.

    `device` is `cpu` or `cuda`; `kind` is a subclass to build in place of Data-Juicer's own class. Raises
    FileNotFoundError or ValueError when the model folder cannot be used.
    """
    spec = operator_spec(operator.op)
    model_utils = import_data_juicer()
    arguments: dict[str, Any] = {**spec.completed(operator.parameters), "accelerator": device}
    if spec.model_argument == "spacy":
        model_utils.check_model = _fixed_path(f"{_existing(model)}.tar.gz")  # it opens the folder of that stem
    elif spec.model_argument == "fasttext":
        model_utils.check_model = _fixed_path(str(_existing(model)))
    elif spec.model_argument:
        arguments[spec.model_argument] = str(check_model_folder(_existing(model)))
    if operator.op == "image_aesthetics_filter":
        model_utils.MODEL_FUNCTION_MAPPING["simple_aesthetics"] = load_aesthetics_predictor
    if operator.op == "phrase_grounding_recall_filter":
        staged("punkt_en")
        model_utils.MODEL_FUNCTION_MAPPING["nltk_pos_tagger"] = load_tagger
        _sort_noun_phrases()
    built = (kind or _operator_class(operator.op))(**arguments)
    if operator.op == "image_aesthetics_filter":
        built.need_normalized_by_ten = True  # every class of the package scores 0…10; Data-Juicer asks the path's name
    if spec.model_argument:
        model_utils.get_model(built.model_key, None, built.use_cuda())  # now, not with the first record
    return built


def score(built: Any, text: str, images: list[str]) -> dict[str, Any]:
    """The stats that the operator gives one record; `images` are absolute paths."""
    from data_juicer.utils.constant import Fields

    batch = {"text": [text], "images": [images], Fields.stats: [{}]}
    return built.compute_stats_batched(batch)[Fields.stats][0]


def check_model_folder(folder: Path) -> Path:
    """The folder, when it holds a configuration and safetensors weights; pickled weights are never opened."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: no config.json; this is not a Hugging Face model folder")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
        found = f"only {', '.join(pickled)}, which may run code when opened" if pickled else "no weights at all"
        raise ValueError(f"{folder}: {found}; convert the model with `save_pretrained(…, safe_serialization=True)`")
    return folder


def model_architecture(folder: Path) -> str:
    """The class that the model folder was saved from."""
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]


def load_aesthetics_predictor(pretrained_model_name_or_path: str, **parameters: Any) -> tuple[Any, Any]:
    """`(model, processor)` of the aesthetics class that the folder names; a loader for Data-Juicer's table."""
    import aesthetics_predictor
    from transformers import CLIPProcessor

    name = model_architecture(Path(pretrained_model_name_or_path))
    if not name.startswith("AestheticsPredictor") or not hasattr(aesthetics_predictor, name):
        raise ValueError(f"{pretrained_model_name_or_path}: {name} is no class of simple-aesthetics-predictor")
    device = parameters.pop("device", "cpu")
    processor = CLIPProcessor.from_pretrained(pretrained_model_name_or_path, **parameters)
    model = getattr(aesthetics_predictor, name).from_pretrained(pretrained_model_name_or_path, **parameters)
    return model.to(device), processor


class Tagger:
    """A tagger in NLTK's form, `tokens -> [(token, Penn tag)]`, from spaCy."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def __call__(self, tokens: list[str]) -> Pairs:
        return self.many([tokens])[0]

    def many(self, texts: list[list[str]]) -> list[Pairs]:
        """The tags of many texts, in batches."""
        from spacy.tokens import Doc

        documents = self._pipeline.pipe(Doc(self._pipeline.vocab, words=tokens) for tokens in texts)
        return [[(token.text, token.tag_) for token in document] for document in documents]


def load_tagger(**parameters: Any) -> Tagger:
    """The tagger for phrase grounding; a loader for Data-Juicer's table."""
    import spacy

    return Tagger(spacy.load(staged("spacy_en"), exclude=["parser", "senter", "ner", "lemmatizer"]))


def _existing(model: Model | None) -> Path:
    if model is None:
        raise ValueError("the operator loads a model; name one of `models` in its `model`")
    path = Path(model.path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such model; put it there or change its `path` in `models`")
    return path.resolve()


def _fixed_path(path: str) -> Callable[..., str]:
    """A stand-in for Data-Juicer's look-up of a model by name."""

    def check_model(name: str, force: bool = False) -> str:
        if force:  # Data-Juicer could not open the model and would now fetch it again
            raise ValueError(f"{path.removesuffix('.tar.gz')}: cannot be opened as the model {name}")
        return path

    return check_model


def _sort_noun_phrases() -> None:
    module: Any = importlib.import_module("data_juicer.ops.filter.phrase_grounding_recall_filter")
    if not hasattr(module, "unsorted_run_ner"):
        module.unsorted_run_ner = module.run_ner
        module.run_ner = lambda caption, tagger=None: sorted(module.unsorted_run_ner(caption, tagger))


def _operator_class(name: str) -> type:
    importlib.import_module("data_juicer.ops")
    from data_juicer.ops.base_op import OPERATORS

    return OPERATORS.modules[name]

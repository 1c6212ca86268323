"""A trained model's card, `README.md` in its folder: what it was made from, how it did, and how to open it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bettersynth.core.publish import publish, read_json, versions

VERSIONS = "## Versions"
OPEN = """\
```python
# with this project's folder `scripts` on PYTHONPATH
from pathlib import Path
from bettersynth.training.mgm.generation import Answerer, Question

answerer = Answerer.open("{folder}", precision="fp16")  # fp32 on a CPU
questions = [Question(1, "What is in the picture?", Path("picture.jpg"))]
print(dict(answerer.answer(questions, max_new_tokens=64, batch=1)))
```

`answerer.model` is a transformers model, `MGMForConditionalGeneration.from_pretrained("{folder}")`.
"""


def write_model_card(run: Path, folder: Path, finetuned: dict[str, Any] | None = None) -> None:
    """Write the card of the model that the run's folder `run` made into `folder`.

    `finetuned` is stage 2's card, read from the run if not given. Scores are those that the run has so far.
    """
    stages = {name: run / name / "card.json" for name in ("pretrain", "finetune")}
    cards = {name: read_json(path) for name, path in stages.items() if path.exists()}
    if finetuned is not None:
        cards["finetune"] = finetuned
    results = None
    while results != (found := _results(run)):  # the job that scores the other benchmark may publish meanwhile
        results = found
        with publish(folder / "README.md") as temporary:
            temporary.write_text("\n".join(_lines(cards, results, folder)), encoding="utf-8")


def model_card(run: Path, folder: Path) -> str:
    """The card of a run's model, but for the versions of the libraries that it was written with."""
    cards = {name: read_json(path) for name in ("pretrain", "finetune") if (path := run / name / "card.json").exists()}
    text = "\n".join(_lines(cards, _results(run), folder))
    return text.partition(VERSIONS)[0]


def _results(run: Path) -> list[dict[str, Any]]:
    results = [read_json(path) for path in sorted((run / "evaluation").glob("*/result.json"))]
    return [result for result in results if result["status"] != "stopped"]


def _lines(cards: dict[str, dict[str, Any]], results: list[dict[str, Any]], folder: Path) -> Iterator[str]:
    made = cards["finetune"]
    yield from (f"# MGM, recipe `{made['recipe']}`, seed {made['seed']}", "")
    yield "An MGM (Mini-Gemini) with Gemma, trained on a selection of image–caption pairs and an instruction set."
    yield from ("", "## Open it", "", OPEN.format(folder=folder.name), "## Data and training", "")
    yield from _table(
        ["stage", "rows", "steps", "first loss", "last loss", "mean of the last fifth", "data sha256"],
        (
            [
                name,
                *(card[key] for key in ("rows", "steps", "first_loss", "last_loss", "loss")),
                f"`{card['inputs']['data_sha256']}`",
            ]
            for name, card in cards.items()
        ),
    )
    if kit := made["inputs"].get("kit"):
        yield from ("", f"Trained by the program of the contest's kit, commit {kit['commit'] or 'unknown'}.")
    yield from ("", "Made from:", "")
    yield from _table(["part", "sha256"], ([f"`{part}`", f"`{sha}`"] for part, sha in _parts(made["inputs"])))
    yield from ("", "## Scores", "")
    if results:
        yield from _table(["benchmark", "accuracy"], ([r["benchmark"], f"{r['accuracy']:.4f}"] for r in results))
    else:
        yield "Not evaluated yet."
    yield from ("", VERSIONS, "")
    yield ", ".join(f"{name} {version}" for name, version in made.get("versions", versions()).items()) + ".\n"


def _parts(inputs: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if start := inputs.get("start_sha256"):
        yield "model trained further", start
    yield from inputs.get("models_sha256", {}).items()
    yield "connector of stage 1", inputs["connector_sha256"]


def _table(head: list[str], rows: Iterable[list[Any]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(map(str, row))} |"

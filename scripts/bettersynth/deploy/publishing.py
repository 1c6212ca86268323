"""A dataset or a trained model as a repository of the hub: prepared in a folder, and uploaded when asked to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from bettersynth.configuration.verb import Generator
from bettersynth.core.errors import PersonError
from bettersynth.core.publish import publish, publish_folder, read_json, sha256_file
from bettersynth.core.records import POOL
from bettersynth.pool.images import ImageRoots
from bettersynth.pool.rows import load_records, read_rows
from bettersynth.training.export import Exported, write_huggingface, write_parquet
from bettersynth.workflow.manifest import read_manifest
from bettersynth.workflow.run import Run

CARD = "README.md"
SUMS = "SHA256SUMS"
UNSTATED = "not stated"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGEST = "n>1M"


class PublishError(PersonError, RuntimeError):
    """Nothing can be published; the message says what to do."""


class Prepared(NamedTuple):
    """A repository as it would be uploaded."""

    kind: Literal["dataset", "model"]
    files: dict[str, Path]
    """Name in the repository → file."""
    unstated: list[str]
    """Keys of the configuration that would state a licence that the card cannot."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files.values())


def prepare_dataset(name: str, run: Run, *, images: bool) -> Prepared:
    """A dataset as Parquet, with its pictures or without, with its card and checksums.

    They lie in `publish/NAME` of the results. Raises PublishError when the dataset is not made.
    """
    layout = run.layout
    if not layout.rows(name).exists():
        raise PublishError(f"{name} is not made yet: make run CONFIG={run.config_file}")
    records = load_records(read_rows(name, layout), layout, run.plan)
    roots, place = ImageRoots(run.configuration.pool, layout).load(), layout.root / "publish" / name
    with publish_folder(place) as folder:
        (folder / "data").mkdir()
        exported = Exported(name, records, roots, run.configuration, layout, folder / "data", place / "data")
        (write_huggingface if images else write_parquet)(exported)
        data = sorted((folder / "data").iterdir())
        licences = _licences(name, run)
        front = {
            "pretty_name": name,
            "license": _one(licence for _, _, licence in licences),
            "task_categories": ["image-to-text"],
            "size_categories": [next((word for most, word in SIZES if records.num_rows < most), LARGEST)],
            "configs": [{"config_name": "default", "data_files": "data/*.parquet"}],
        }
        lines = _dataset_lines(name, run, records.num_rows, images, licences, data)
        _write_card(folder / CARD, front, lines)
        _write_sums(folder)
    unstated = [f"pool.files.{what}.licence" for what, _, licence in licences if licence == UNSTATED]
    return Prepared("dataset", _files(place), unstated)


def prepare_model(checkpoint: Path, name: str, run: Run) -> Prepared:
    """A trained model's own files, with the card of its folder under a head that the hub reads.

    Weights are not copied: card and checksums lie in `publish/NAME` of the results, the rest where it is.
    """
    place = run.layout.root / "publish" / name
    listed = read_manifest(run.configuration).get("models", {})
    parts = run.configuration.training.architecture if run.configuration.training else None
    used = [part for part in (parts.model_dump().values() if parts else ()) if part in run.configuration.models]
    licences = [listed.get(part, {}).get("licence", UNSTATED) for part in used]
    front = {
        "license": _one(licences),
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
    }
    own = checkpoint / CARD
    lines = own.read_text(encoding="utf-8").splitlines() if own.exists() else [f"# {name}"]
    parts_table = _table(["part", "licence"], [[f"`{one}`", kind] for one, kind in zip(used, licences, strict=True)])
    files = {path: file for path, file in _files(checkpoint).items() if path not in (CARD, SUMS)}
    with publish_folder(place) as folder:
        _write_card(folder / CARD, front, [*lines, "", "## Licences of its parts", "", *parts_table])
        _write_sums(folder, files)
    unstated = [f"models.{one}" for one, kind in zip(used, licences, strict=True) if kind == UNSTATED]
    return Prepared("model", files | _files(place), unstated)


def upload(prepared: Prepared, repository: str, *, public: bool, message: str) -> str:
    """Put the files into a repository of the hub, which is made where it is not there, private; returns the commit.

    `huggingface_hub` does it, so its variables count. Raises PublishError without a token, or when the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        raise PublishError("HF_HUB_OFFLINE is set, and this uploads: env -u HF_HUB_OFFLINE make publish …")
    if get_token() is None:
        raise PublishError("uploading needs a token that may write: HF_TOKEN=…, or `hf auth login`")
    api = HfApi()
    operations = [CommitOperationAdd(name, str(path)) for name, path in sorted(prepared.files.items())]
    try:
        api.create_repo(repository, repo_type=prepared.kind, private=not public, exist_ok=True)
        done = api.create_commit(repository, operations, commit_message=message, repo_type=prepared.kind)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise PublishError(f"{constants.ENDPOINT} did not take {repository}: {error}") from error
    return str(done.oid)


# --- cards ---------------------------------------------------------------------------------------


def _dataset_lines(
    name: str, run: Run, rows: int, images: bool, licences: list[tuple[str, str, str]], data: list[Path]
) -> Iterator[str]:
    pictures = "with their pictures" if images else "without pictures: `images` are paths in the sources"
    yield from (f"# {name}", "", f"{rows:,} image–caption pairs, {pictures}.", "", "## How they were chosen", "")
    yield from _table(["dataset", "of", "step", "rows in", "added", "dropped", "rows"], _funnel(name, run))
    yield from ("", "Why rows were dropped:", "")
    yield from _table(["dataset", "reason", "rows"], _reasons(name, run))
    yield from ("", "## Sources and their licences", "")
    yield from _table(["source", "from", "licence"], [list(one) for one in licences])
    yield from ("", "## Files", "")
    sizes = ([f"`data/{path.name}`", f"{path.stat().st_size:,}", f"`{sha256_file(path)}`"] for path in data)
    yield from _table(["file", "bytes", "sha256"], sizes)


def _funnel(name: str, run: Run) -> Iterator[list[Any]]:
    """A line for each dataset from the pool on: what was done, thresholds included, and what came of it."""
    pool = read_json(run.layout.dataset_card(POOL))
    yield [POOL, "", "the raw pairs that could be read", "", "", "", f"{pool['rows']:,}"]
    for step in run.plan.lineage(name):
        node, ledger = run.plan.dataset(step), read_json(run.layout.dataset_card(step))["ledger"]
        counts = (ledger["in"], ledger["added"], sum(ledger["dropped"].values()), ledger["out"])
        sentence = node.verb.sentence(run.configuration)
        yield [step, ", ".join(node.parents), sentence, *(f"{count:,}" for count in counts)]


def _reasons(name: str, run: Run) -> Iterator[list[Any]]:
    for step in run.plan.lineage(name):
        for reason, count in read_json(run.layout.dataset_card(step))["ledger"]["dropped"].items():
            yield [step, reason, f"{count:,}"]


def _licences(name: str, run: Run) -> list[tuple[str, str, str]]:
    """Name, origin and licence of each file of the pool, and of the model of each generator on the way."""
    files = [(file.name, file.path, file.licence or UNSTATED) for file in run.configuration.pool.files]
    listed = read_manifest(run.configuration).get("models", {})
    models = {}
    for step in run.plan.lineage(name):
        verb = run.plan.dataset(step).verb
        entry = verb.entry(run.configuration) if isinstance(verb, Generator) else None
        if entry is not None:
            models[entry.model] = listed.get(entry.model, {})
    generated = [
        (model, f"made {facts.get('hub') or 'by a local model'}", f"model: {facts.get('licence', UNSTATED)}")
        for model, facts in models.items()
    ]
    return [*files, *generated]


def _one(licences: Iterable[str]) -> str:
    """The licence that all have, as the hub names it; `other` where they differ or one is not stated."""
    found = {licence.removeprefix("model: ") for licence in licences}
    return found.pop() if len(found) == 1 and UNSTATED not in found else "other"


def _table(head: list[str], rows: Iterable[list[Any]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |"


def _write_card(path: Path, front: dict[str, Any], lines: Iterable[str]) -> None:
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    with publish(path) as temporary:
        temporary.write_text(f"---\n{head}---\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


def _write_sums(folder: Path, others: dict[str, Path] | None = None) -> None:
    """`SHA256SUMS` of the folder's files and of others that go with them, as `sha256sum --check` reads it."""
    files = _files(folder) | (others or {})
    lines = [f"{sha256_file(path)}  {name}" for name, path in sorted(files.items())]
    (folder / SUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}

"""Data-Juicer: local files only.

It installs packages while it runs, fetches models by name, lets NLTK load pickles and download word lists, and lets
Pillow fill up damaged images. All of that is switched off here.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from bettersynth.runtime.patches import nltk, pillow
from bettersynth.runtime.patches.versions import made_for


class MissingPackageError(ImportError):
    """Data-Juicer asked for a package that is not installed."""


def keep_caches(folder: str | Path) -> None:
    """What Data-Juicer writes at import goes there; nothing is read back."""
    home = Path(folder).resolve()
    os.environ["DATA_JUICER_CACHE_HOME"] = str(home)
    os.environ["DATA_JUICER_MODELS_CACHE"] = str(home / "models")
    os.environ["DATA_JUICER_ASSETS_CACHE"] = str(home / "assets")
    os.environ.pop("DATA_JUICER_EXTERNAL_MODELS_HOME", None)


def import_data_juicer() -> Any:
    """Data-Juicer's `model_utils`, with every way to the network closed."""
    from loguru import logger

    made_for("py-data-juicer")
    lazy_loader: Any = importlib.import_module("data_juicer.utils.lazy_loader")
    pillow.refuse_truncated()
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    lazy_loader.LazyLoader._install_package = classmethod(_refuse_install)

    model_utils: Any = importlib.import_module("data_juicer.utils.model_utils")
    nltk_utils: Any = importlib.import_module("data_juicer.utils.nltk_utils")
    model_utils.check_model = _refuse_download
    model_utils._MODELS_WITHOUT_FILE_LOCK.clear()  # loaded once by the job, not once more to have them downloaded
    nltk_utils.patch_nltk_pickle_security = lambda: True  # it lets NLTK load any pickle
    nltk.forbid_downloads()
    return model_utils


@contextmanager
def same_threads() -> Iterator[None]:
    """Some of its operators switch torch to one thread, for whatever else the process computes."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def answer_lookup(path: str) -> None:
    """Let Data-Juicer look a model up by a name of its own at `path`, or below it where it is a folder."""

    def check_model(name: str, force: bool = False) -> str:
        if force:  # Data-Juicer could not open the model and would now fetch it again
            raise ValueError(f"{path.removesuffix('.tar.gz')}: cannot be opened as the model {name}")
        return str(Path(path, name)) if Path(path).is_dir() else path

    model_utils: Any = importlib.import_module("data_juicer.utils.model_utils")
    model_utils.check_model = check_model


def read_members(image: Callable[[str], Any], contents: Callable[[str], bytes]) -> None:
    """Let its operators read pictures in archives: by `image` and `contents` where a path leads through one."""
    mm_utils: Any = importlib.import_module("data_juicer.utils.mm_utils")
    if hasattr(mm_utils, "load_file_image"):
        return
    mm_utils.load_file_image = mm_utils.load_image
    stock = {name: getattr(mm_utils, name) for name in ("load_image", "load_file_byte", "get_file_size")}

    def load_image(path_or_bytes: Any) -> Any:
        inside = isinstance(path_or_bytes, str) and _leads_through(path_or_bytes)
        return image(path_or_bytes) if inside else stock["load_image"](path_or_bytes)

    def load_file_byte(path: str) -> bytes:
        return contents(path) if _leads_through(path) else stock["load_file_byte"](path)

    def get_file_size(path: str) -> int:
        return len(contents(path)) if _leads_through(path) else stock["get_file_size"](path)

    ours = {"load_image": load_image, "load_file_byte": load_file_byte, "get_file_size": get_file_size}
    for module in [module for name, module in sys.modules.items() if name.startswith("data_juicer.")]:
        for name, function in stock.items():  # modules that are imported have their own names for them
            if vars(module).get(name) is function:
                setattr(module, name, ours[name])


def _leads_through(path: str) -> bool:
    """Whether a file is where a folder would be."""
    try:
        os.stat(path)  # noqa: PTH116
    except NotADirectoryError:
        return True
    except OSError:
        pass
    return False


def sort_noun_phrases() -> None:
    """Let phrase grounding sort its noun phrases; it leaves them in the order of a set, another in every process."""
    made_for("py-data-juicer")
    module: Any = importlib.import_module("data_juicer.ops.filter.phrase_grounding_recall_filter")
    if not hasattr(module, "unsorted_run_ner"):
        module.unsorted_run_ner = module.run_ner
        module.run_ner = lambda caption, tagger=None: sorted(module.unsorted_run_ner(caption, tagger))


def _refuse_install(cls: type, package: str, pip_args: Any = None) -> bool:
    """Stand in for Data-Juicer's installer: content when the package is there under another module name."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        raise MissingPackageError(
            f"Data-Juicer needs the package `{package}`, which is not installed; "
            "add it to envs/requirements.in, lock it and run `make setup`"
        ) from None
    return True


def _refuse_download(name: str, force: bool = False) -> str:
    """Stand in for Data-Juicer's model download."""
    raise FileNotFoundError(f"Data-Juicer asked for the model {name}, which no entry of `models` supplies")

"""Make Data-Juicer work from local files only.

Data-Juicer installs packages while it runs, fetches models by name, and asks NLTK to download word lists. All three
are switched off here. `prepare` must be called before transformers, data_juicer or nltk is imported: they read their
environment once.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

from bettersynth.core.offline import ENVIRONMENT
from bettersynth.core.resources import MODELS, NLTK_DATA


class MissingPackageError(ImportError):
    """Data-Juicer asked for a package that is not installed."""


def prepare(cache: str | Path, max_pixels: int | None = None) -> None:
    """Set the environment and, if it is used, Data-Juicer up for work without a network.

    `cache` is a folder for what Data-Juicer writes at import; nothing there is read back. `max_pixels` is the largest
    image that PIL decodes: it looks at the header and raises before it decodes a larger one.
    """
    os.environ.update(ENVIRONMENT)
    os.environ["NLTK_DATA"] = str((MODELS / NLTK_DATA).resolve())
    home = Path(cache).resolve()
    os.environ["DATA_JUICER_CACHE_HOME"] = str(home)
    os.environ["DATA_JUICER_MODELS_CACHE"] = str(home / "models")
    os.environ["DATA_JUICER_ASSETS_CACHE"] = str(home / "assets")
    os.environ.pop("DATA_JUICER_EXTERNAL_MODELS_HOME", None)
    use_pillow_only()
    if max_pixels is not None:
        limit_pixels(max_pixels)


def use_pillow_only() -> None:
    """Hide torchvision from transformers, so that images are resized by Pillow wherever a job runs.

    Its fast image processors give slightly other pixels: scores would depend on whether it is installed.
    """
    if "torchvision" not in sys.modules:
        sys.modules["torchvision"] = None  # type: ignore[assignment]


def limit_pixels(max_pixels: int) -> None:
    """Refuse to decode a larger image, whoever opens it."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def import_data_juicer() -> Any:
    """Data-Juicer's `model_utils`, with every way to the network closed.

    Data-Juicer lets PIL fill up truncated images when it is imported; that is taken back, so that a damaged image is an
    error here as everywhere else.
    """
    from loguru import logger
    from PIL import ImageFile

    lazy_loader: Any = importlib.import_module("data_juicer.utils.lazy_loader")
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    lazy_loader.LazyLoader._install_package = classmethod(_refuse_install)

    model_utils: Any = importlib.import_module("data_juicer.utils.model_utils")
    nltk_utils: Any = importlib.import_module("data_juicer.utils.nltk_utils")
    nltk: Any = importlib.import_module("nltk")
    model_utils.check_model = _refuse_download
    model_utils._MODELS_WITHOUT_FILE_LOCK.clear()  # loaded once by the job, not once more to have them downloaded
    nltk_utils.patch_nltk_pickle_security = lambda: True  # it lets NLTK load any pickle
    nltk.download = lambda *arguments, **options: False
    return model_utils


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

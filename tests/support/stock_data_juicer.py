"""Run Data-Juicer's own executor or analyzer, in a process of its own, on a JSONL of records: what ours must equal.

`executor_stats` and `analyzed` do it; the process runs `python stock_data_juicer.py configuration.json`, with keys
`dataset_path`, `export_path`, `work_dir`, `process`, and for the analyzer `correlation`.
Two things only are not stock, because their data cannot be had without a network: NLTK's tagger is spaCy's, and NLTK
downloads nothing.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def executor_stats(process, records, images, folder, assets):
    """What Data-Juicer's executor writes of records: id -> stats of those it keeps.

    `process` lists filters with their arguments, keep ranges wide open; `images` is the folder of the records' images;
    `assets` are files for its cache of models, name -> path.
    """
    export = _run(process, records, images, folder, assets)
    rows = [json.loads(line) for line in export.read_text(encoding="utf-8").splitlines()]
    return {row["id"]: row["__dj__stats__"] for row in rows}


def analyzed(process, records, images, folder):
    """What `dj-analyze` makes of records: id -> stats, the path of its `overall.csv` and of its correlations."""
    correlation = folder / "correlation.csv"
    export = _run(process, records, images, folder, {}, correlation=str(correlation))
    lines = export.with_name("kept_stats.jsonl").read_text(encoding="utf-8").splitlines()
    stats = [json.loads(line)["__dj__stats__"] for line in lines]
    names = [record.id for record in records]
    return dict(zip(names, stats, strict=True)), next(folder.glob("*/analysis/overall.csv")), correlation


def _run(process, records, images, folder, assets, **further):
    """Run Data-Juicer and return the path of its export."""
    cache = folder / "cache" / "models"
    cache.mkdir(parents=True)
    for name, path in assets.items():
        (cache / name).symlink_to(path)
    dataset, export, settings = folder / "records.jsonl", folder / "out" / "kept.jsonl", folder / "settings.json"
    with dataset.open("w", encoding="utf-8") as file:
        for record in records:
            paths = [str(images / image) for image in record.images]
            file.write(json.dumps({"id": record.id, "text": record.text, "images": paths}) + "\n")
    given = {"dataset_path": str(dataset), "export_path": str(export), "work_dir": str(folder), "process": process}
    settings.write_text(json.dumps(given | further))
    environment = {
        **os.environ,
        "DATA_JUICER_CACHE_HOME": str(folder / "cache"),
        "HF_HOME": str(folder / "hf"),
        "NLTK_DATA": str(REPOSITORY / "models" / "nltk_data"),
        "HF_HUB_OFFLINE": "1",
        "UV_OFFLINE": "1",
        "PIP_NO_INDEX": "1",
        "PYTHONHASHSEED": "7",
    }
    for name in ("DATA_JUICER_MODELS_CACHE", "DATA_JUICER_ASSETS_CACHE"):
        environment.pop(name, None)
    command = [sys.executable, str(Path(__file__)), str(settings)]
    finished = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-4000:]
    return export


def spacy_tagger(**parameters):
    """NLTK's `pos_tag` on spaCy's English model."""
    import spacy
    from spacy.tokens import Doc

    language = spacy.load("models/en_core_web_md-3.8.0")
    return lambda tokens: [(token.text, token.tag_) for token in language(Doc(language.vocab, words=tokens))]


def main() -> None:
    """Process the dataset, every operator's keep range wide open and the stats kept in the export; or analyze it."""
    sys.modules["torchvision"] = None  # the slow image processors
    import nltk

    nltk.download = lambda *arguments, **options: False
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    correlation = settings.pop("correlation", None)
    from data_juicer.analysis import CorrelationAnalysis
    from data_juicer.config import init_configs
    from data_juicer.core import Analyzer, DefaultExecutor
    from data_juicer.utils import model_utils

    model_utils.MODEL_FUNCTION_MAPPING["nltk_pos_tagger"] = spacy_tagger
    path = Path(settings["work_dir"]) / "recipe.json"
    recipe = {
        **settings,
        "np": 1,
        "skip_op_error": False,
        "use_cache": False,
        "open_monitor": False,
        "keep_stats_in_res_ds": True,
        "op_fusion": False,
        "strict_preflight": False,  # it takes floats for no numbers between 0 and 1
    }
    path.write_text(json.dumps(recipe), encoding="utf-8")
    configuration = init_configs(["--config", str(path)])
    if correlation is None:
        DefaultExecutor(configuration).run()
    else:
        dataset = Analyzer(configuration).run()
        CorrelationAnalysis(dataset, settings["work_dir"]).analyze().to_csv(correlation)  # drawn only, otherwise


if __name__ == "__main__":
    main()

"""Run Data-Juicer's own executor, in its own process, on a JSONL of records: what our scores must equal.

Usage: `python stock_data_juicer.py configuration.json`, with keys `dataset_path`, `export_path`, `work_dir`, `process`.
Two things only are not stock, because their data cannot be had without a network: NLTK's tagger is spaCy's, and NLTK
downloads nothing.
"""

import json
import sys
from pathlib import Path

sys.modules["torchvision"] = None  # the slow image processors

import nltk  # noqa: E402

nltk.download = lambda *arguments, **options: False


def spacy_tagger(**parameters):
    """NLTK's `pos_tag` on spaCy's English model."""
    import spacy
    from spacy.tokens import Doc

    language = spacy.load("models/en_core_web_md-3.8.0")
    return lambda tokens: [(token.text, token.tag_) for token in language(Doc(language.vocab, words=tokens))]


def main() -> None:
    """Process the dataset with every operator's keep range wide open and the stats kept in the export."""
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    from data_juicer.config import init_configs
    from data_juicer.core import DefaultExecutor
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
    }
    path.write_text(json.dumps(recipe), encoding="utf-8")
    DefaultExecutor(init_configs(["--config", str(path)])).run()


if __name__ == "__main__":
    main()

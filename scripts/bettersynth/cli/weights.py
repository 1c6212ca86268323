#!/usr/bin/env python3
"""Bring published weights in and ours out, under their published names.

python -m bettersynth.cli.weights convnext open_clip_model.safetensors models/convnext_large
python -m bettersynth.cli.weights import MGM-2B models/mgm_2b --vision-tower … --vision-tower-aux …
python -m bettersynth.cli.weights export results/contest/runs/best/seed-1/finetune/checkpoint MGM-2B-best
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bettersynth.training.mgm import published


def main() -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    convnext = commands.add_parser("convnext", help="OpenCLIP's ConvNeXt as a folder for `vision_tower_aux`")
    convnext.add_argument("source", type=Path, help="OpenCLIP's open_clip_model.safetensors")
    whole = commands.add_parser("import", help="a published MGM-2B as a folder of ours")
    whole.add_argument("source", type=Path, help="folder with config.json, safetensors and tokenizer")
    whole.add_argument("--vision-tower", type=Path, required=True, help="folder of CLIP ViT-L/14-336")
    whole.add_argument("--vision-tower-aux", type=Path, required=True, help="folder that `convnext` made")
    export = commands.add_parser("export", help="a trained checkpoint as the published program reads it")
    export.add_argument("source", type=Path, help="a run's finetune/checkpoint")
    export.add_argument("--vision-tower", default=published.CLIP_FOLDER, help="(default: %(default)s)")
    export.add_argument("--vision-tower-aux", default=published.CONVNEXT_FOLDER, help="(default: %(default)s)")
    for command in (convnext, whole, export):
        command.add_argument("folder", type=Path, help="folder to write")
    options = parser.parse_args()
    if options.folder.exists():
        sys.exit(f"{options.folder} is there already; remove it or name another folder")
    try:
        if options.command == "convnext":
            published.convert_open_clip(options.source, options.folder)
            return
        towers = {"vision_tower": options.vision_tower, "vision_tower_aux": options.vision_tower_aux}
        convert = published.import_published if options.command == "import" else published.export_published
        convert(options.source, options.folder, **towers)
    except (published.PublishedWeightsError, FileNotFoundError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

"""Weights between forms: OpenCLIP's ConvNeXt, a published MGM-2B, a trained checkpoint.

bettersynth weights convnext open_clip_model.safetensors models/convnext_large
bettersynth weights import MGM-2B models/mgm_2b --vision-tower … --vision-tower-aux …
bettersynth weights export results/contest/runs/best/seed-1/finetune/checkpoint MGM-2B-best
"""

from __future__ import annotations

from pathlib import Path

import click

from bettersynth.cli.options import FILE
from bettersynth.core.errors import PersonError
from bettersynth.training.mgm import published


@click.group(help=(__doc__ or "").replace("\n\n", "\n\n\b\n"))
def command() -> None:
    """Its commands write a folder that is not there yet."""


@command.command("convnext")
@click.argument("source", type=FILE)
@click.argument("folder", type=FILE)
def convnext(source: Path, folder: Path) -> None:
    """OpenCLIP's open_clip_model.safetensors as a folder for `vision_tower_aux`."""
    published.convert_open_clip(source, _new(folder))


@command.command("import")
@click.argument("source", type=FILE)
@click.argument("folder", type=FILE)
@click.option("--vision-tower", type=FILE, required=True, help="folder of CLIP ViT-L/14-336")
@click.option("--vision-tower-aux", type=FILE, required=True, help="folder that `convnext` made")
def import_(source: Path, folder: Path, vision_tower: Path, vision_tower_aux: Path) -> None:
    """A published MGM-2B (config.json, safetensors, tokenizer) as a folder of ours."""
    published.import_published(source, _new(folder), vision_tower=vision_tower, vision_tower_aux=vision_tower_aux)


@command.command("export")
@click.argument("source", type=FILE)
@click.argument("folder", type=FILE)
@click.option("--vision-tower", default=published.CLIP_FOLDER, show_default=True)
@click.option("--vision-tower-aux", default=published.CONVNEXT_FOLDER, show_default=True)
def export(source: Path, folder: Path, vision_tower: str, vision_tower_aux: str) -> None:
    """A trained checkpoint (a run's finetune/checkpoint) as the published program reads it."""
    published.export_published(source, _new(folder), vision_tower=vision_tower, vision_tower_aux=vision_tower_aux)


def _new(folder: Path) -> Path:
    if folder.exists():
        raise PersonError(f"{folder} is there already; remove it or name another folder")
    return folder

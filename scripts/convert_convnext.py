"""Write OpenCLIP's ConvNeXt, the kit's auxiliary vision tower, as the folder that transformers opens.

python scripts/convert_convnext.py open_clip_model.safetensors models/openclip-convnext-large-d-320-…
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bettersynth.mgm.openclip import convert_convnext

parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
parser.add_argument("weights", type=Path, help="`open_clip_model.safetensors` of the repository on the hub")
parser.add_argument("folder", type=Path, help="folder to write")
parser.add_argument("--image-size", type=int, default=320, help="side of its training images (default: %(default)s)")
arguments = parser.parse_args()
convert_convnext(arguments.weights, arguments.folder, arguments.image_size)
print(arguments.folder)

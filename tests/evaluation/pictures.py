"""Image classifiers with their image processors, packs of them, and folders of real images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image
from torch import Tensor
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import dtscodec
from tests.evaluation.helpers import Made
from tests.models import make_pair, save
from tests.support import make_pack

KINDS = {"vit": "ViTForImageClassification", "resnet": "ResNetForImageClassification"}
"""A model with tensors that transformers renames on loading, and one of convolutions and batch norms."""
PROCESSORS: dict[str, Any] = {
    "vit": lambda: ViTImageProcessorPil(size={"height": 32, "width": 32}),
    "resnet": lambda: ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.875),
}
LABELS = [0, 0, 0, 1, 1, 1, 1]


def make_image_classifier(name: str, root: Path, **settings: Any) -> Made:
    """Save a pair of `tests.models` that takes images, and make its pack, in which all changed tensors are coded."""
    pair = make_pair(name)
    base, fine = save(pair.base, root / "base"), save(pair.fine, root / "fine")
    PROCESSORS[name]().save_pretrained(fine)
    make_pack(base, fine, root / "pack", **{"target": dtscodec.RankShare(0.1), **settings})
    return Made(base, fine, root / "pack")


def picture(seed: int, height: int = 40, width: int = 50) -> Image.Image:
    """Return coarse noise, so that it is not averaged out at 32 x 32."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def write_images(folder: Path, labelled: bool = True) -> Path:
    """Write seven images of different sizes and kinds of file; in folders named after `LABELS`, if labelled."""
    for at, label in enumerate(LABELS):
        path = folder / str(label) if labelled else folder
        path.mkdir(parents=True, exist_ok=True)
        picture(at, 40 + at, 60 - at).save(path / f"{at}{('.png', '.jpg', '.bmp')[at % 3]}")
    return folder


def files(folder: Path) -> list[Path]:
    """Return all images, in the order of their numbers."""
    return sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stem)


def plain_inputs(name: str, folder: Path) -> Tensor:
    """Return the pixel values of the images, each processed alone."""
    processor = PROCESSORS[name]()
    opened = [Image.open(path).convert("RGB") for path in files(folder)]
    return torch.cat([processor(each, return_tensors="pt")["pixel_values"] for each in opened])


def plain_model(name: str, directory: Path) -> Any:
    """Load the model by transformers alone."""
    return getattr(hf, KINDS[name]).from_pretrained(directory, dtype=torch.float32).eval()

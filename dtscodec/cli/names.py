"""Names of tasks, from the paths of fine-tunes."""

import os
import re
from pathlib import Path

_SUFFIXES = (".dts.safetensors", ".safetensors.index.json", ".bin.index.json", ".safetensors", ".bin", ".pt", ".pth")
_GENERIC = re.compile(r"(model|pytorch_model)([-.].*)?")


def task_name(path: str) -> str:
    """The name of a fine-tune: its file's without ending, or the directory's for a file named as any model's.

    >>> task_name("runs/movie/model.safetensors"), task_name("movie.safetensors"), task_name("runs/movie/")
    ('movie', 'movie', 'movie')
    >>> task_name("hf://me/movie@main"), task_name("hf://me/movie")
    ('movie', 'movie')
    """
    place = Path(path.partition("@")[0] if path.startswith("hf://") else path)
    name = place.name
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            name = name.removesuffix(suffix)
            return Path(os.path.abspath(place)).parent.name if _GENERIC.fullmatch(name) else name
    return place.resolve().name

"""Names of tasks, from the paths of fine-tunes."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from dtscodec.errors import EncodeError

_SUFFIXES = (".dts.safetensors", ".safetensors.index.json", ".bin.index.json", ".safetensors", ".bin", ".pt", ".pth")
_GENERIC = re.compile(r"(model|pytorch_model)([-.].*)?")


def task_name(path: str) -> str:
    """Return the task of a fine-tune: its file's name without extension, or its directory's if that is generic.

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


def name_fine_tunes(fine_tunes: Sequence[str]) -> dict[str, str]:
    """Return the paths of fine-tunes by task: NAME of ``NAME=PATH``, or else `task_name`.

    Raises
    ------
    EncodeError
        A name is not printable, or occurs twice.
    """
    named: dict[str, str] = {}
    for text in fine_tunes:
        name, equals, path = text.partition("=")
        # A path may contain an equals sign itself.
        if not equals or Path(text).exists() or "/" in name:
            name, path = task_name(text), text
        if not name or not name.isprintable():
            raise EncodeError(f"{text}: expected a printable name, got {name!r}; write NAME={path}")
        if name in named:
            raise EncodeError(f"{path}: expected a name of its own, got {name!r} again; write NAME={path}")
        named[name] = path
    return named

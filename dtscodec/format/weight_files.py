"""Names of a model directory's weight files, and folders with weights of their own (spec section 4.6)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dtscodec.format.dtypes import MAX_NAME_BYTES
from dtscodec.format.naming import FILE_SUFFIXES, is_valid_component, utf8

DEFAULT_STEM = "model"
"""The stem that transformers loads."""

VARIANT_STEMS = (DEFAULT_STEM, "diffusion_pytorch_model")
"""Stems that transformers and diffusers extend by the name of a variant, such as ``fp16``."""


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """Names under which a framework expects the weight files of a model directory.

    Parameters
    ----------
    stem : str
        The name without its ending: ``model``, ``diffusion_pytorch_model.fp16``.

    Raises
    ------
    ValueError
        The stem is not valid (rule F3).

    Examples
    --------
    >>> WeightFiles("model").single, WeightFiles("model").index
    ('model.safetensors', 'model.safetensors.index.json')
    >>> WeightFiles("model.fp16").shard(1, 2), WeightFiles("model.fp16").index
    ('model.fp16-00001-of-00002.safetensors', 'model.safetensors.index.fp16.json')
    """

    stem: str = DEFAULT_STEM

    def __post_init__(self) -> None:
        if not is_valid_stem(self.stem):
            raise ValueError(f"expected a stem of file names (F3), got {self.stem!r:.60}")

    @property
    def single(self) -> str:
        """Name of the only file, where there are no shards."""
        return f"{self.stem}.safetensors"

    def shard(self, number: int, count: int) -> str:
        """Return the name of a shard.

        Parameters
        ----------
        number : int
            The shard, from 1.
        count : int
            Number of shards.
        """
        return f"{self.stem}-{number:05}-of-{count:05}.safetensors"

    @property
    def index(self) -> str:
        """Name of the index of shards."""
        name, _, variant = self.stem.partition(".")
        if variant and name in VARIANT_STEMS:
            return f"{name}.safetensors.index.{variant}.json"
        return f"{self.stem}.safetensors.index.json"


def is_valid_stem(stem: str) -> bool:
    """Return whether a text may be the stem of weight files (spec section 4.6, F3).

    >>> is_valid_stem("diffusion_pytorch_model.fp16"), is_valid_stem("unet/model"), is_valid_stem("")
    (True, False, False)
    """
    return is_valid_component(stem) and "/" not in stem and len(utf8(stem)) <= MAX_NAME_BYTES


def is_valid_folder(folder: str) -> bool:
    """Return whether a path may be a folder of weights (spec section 4.6, F3).

    >>> is_valid_folder("2_Dense"), is_valid_folder("1_Router/0_Dense"), is_valid_folder("../2_Dense")
    (True, True, False)
    """
    parts = folder.split("/")
    # So that no folder has the name of a file that is carried or written beside it.
    is_file_name = any(part.endswith((*FILE_SUFFIXES, ".safetensors")) for part in parts)
    return not is_file_name and all(map(is_valid_component, parts)) and len(utf8(folder)) <= MAX_NAME_BYTES


def split_folder(name: str, folders: Sequence[str]) -> tuple[str | None, str]:
    """Split a tensor's name into the folder that it belongs to, if any, and its name there.

    Parameters
    ----------
    name : str
        The tensor.
    folders : sequence of str
        The folders of weights. The longest that fits is the tensor's.

    Examples
    --------
    >>> split_folder("2_Dense/linear.weight", ["2_Dense"]), split_folder("pooler.weight", ["2_Dense"])
    (('2_Dense', 'linear.weight'), (None, 'pooler.weight'))
    """
    if "/" not in name:
        return None, name
    found = max((folder for folder in folders if name.startswith(f"{folder}/")), key=len, default=None)
    return found, name if found is None else name[len(found) + 1 :]


def used_folders(names: Iterable[str], folders: Sequence[str]) -> tuple[str, ...]:
    """Return the folders that tensors belong to, in their order.

    Parameters
    ----------
    names : iterable of str
        The tensors.
    folders : sequence of str
        Folders of weights.

    Examples
    --------
    >>> used_folders(["2_Dense/linear.weight"], ["2_Dense", "3_Dense"])
    ('2_Dense',)
    """
    used = {split_folder(name, folders)[0] for name in names} if folders else set()
    return tuple(folder for folder in folders if folder in used)

"""The tensors of weight files by their headers (spec section 15.1)."""

from collections.abc import Mapping

from dtscodec.errors import CheckpointError
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.primitives.safetensors_header import SafetensorsHeader, parse_header
from dtscodec.format.weight_files import split_folder


def is_whole(files: Mapping[str, bytes], specs: Mapping[str, TensorSpec], folders: tuple[str, ...]) -> bool:
    """Return whether weight files together have tensors of these names and specs, each once.

    Parameters
    ----------
    files : mapping of str to bytes
        Length and header of safetensors files, and indices of shards, by name.
    specs : mapping of str to TensorSpec
        The tensors.
    folders : tuple of str
        Folders with weights of their own, whose tensors' names begin with the folder.
    """
    found: dict[str, TensorSpec] = {}
    for name, data in files.items():
        if not name.endswith(".safetensors"):
            continue
        try:
            tensors = tensors_of_header(name, data, folders)
        except CheckpointError:
            return False
        if found.keys() & tensors.keys():
            return False
        found |= tensors
    return found == dict(specs)


def tensors_of_header(name: str, data: bytes, folders: tuple[str, ...]) -> dict[str, TensorSpec]:
    """Return the tensors of a weight file by their names in the checkpoint, in the order of their bytes.

    Parameters
    ----------
    name : str
        The file, relative to the checkpoint's directory.
    data : bytes
        Length and header.
    folders : tuple of str
        Folders with weights of their own.

    Raises
    ------
    CheckpointError
        The header is not valid.
    """
    if int.from_bytes(data[:8], "little") != len(data) - 8:
        raise CheckpointError(f"{name}: expected a header of {len(data) - 8} bytes")
    header: SafetensorsHeader = parse_header(data[8:], name)
    folder, _ = split_folder(name, folders)
    prefix = f"{folder}/" if folder else ""
    entries = sorted(header.tensors.items(), key=lambda item: item[1][1:])
    return {prefix + key: entry.spec for key, entry in entries}

"""Writing a checkpoint of any kind atomically, one tensor at a time."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.checkpoints.containers.torch_archive import write_torch_archive
from dtscodec.checkpoints.directories.file_names import TORCH_ENDINGS
from dtscodec.files.atomic import atomic_directory, atomic_file
from dtscodec.files.output_file import output_errors, output_file
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import TensorSpec, bits_of
from dtscodec.format.naming import is_shard_index, valid_file_name
from dtscodec.format.primitives.safetensors_header import header_bytes
from dtscodec.format.residual.weight_headers import is_whole, tensors_of_header
from dtscodec.format.weight_files import DEFAULT_STEM, VARIANT_STEMS, WeightFiles, is_valid_folder, split_folder
from dtscodec.progress import ProgressCallback, no_progress

SHARD_BYTES = 5_000_000_000
"""Largest shard by default: what the Hub serves well."""

_NOTHING: Mapping[str, str] = MappingProxyType({})
_NO_FILES: Mapping[str, bytes] = MappingProxyType({})

Read = Callable[[str], Bytes]
Create = Callable[[str], AbstractContextManager[BinaryIO]]


def write_checkpoint(
    out: Path,
    specs: Specs,
    read: Read,
    *,
    metadata: Mapping[str, str] = _NOTHING,
    shard_bytes: int = SHARD_BYTES,
    ties: Mapping[str, str] = _NOTHING,
    files: Mapping[str, bytes] = _NO_FILES,
    originals: Mapping[str, bytes] = _NO_FILES,
    stem: str = DEFAULT_STEM,
    folders: Sequence[str] = (),
    force: bool = False,
    inputs: Iterable[Path] = (),
    progress: ProgressCallback = no_progress,
    finish: Callable[[], None] = lambda: None,
) -> None:
    """Write a checkpoint; the inverse of `open_checkpoint`, which reads back the same specs and bytes.

    Parameters
    ----------
    out : Path
        `*.safetensors` for one file; `*.bin`, `*.pt` or `*.pth` for one file of torch's; else a directory in the
        layout of Hugging Face.
    specs : mapping
        Specs of all tensors by name.
    read : callable
        Takes a name and returns the tensor's bytes, uint8 [nbytes]. It is called once per tensor or, in files of
        torch's, once per storage.
    metadata : mapping
        Metadata for the header of safetensors files. Files of torch's have none.
    shard_bytes : int
        Most tensor bytes in a file of a directory, unless a single tensor has more.
    ties : mapping
        Name -> name of the tensor of equal spec and bytes, whose storage it shares in files of torch's.
    files : mapping
        Auxiliary files for a directory: relative name -> content. Must be empty for a single file.
    originals : mapping of str to bytes
        Weight files to restore, as `dtscodec.checkpoints.weight_headers.read_weight_headers` returns them; a directory
        then has no other weight files. Of those for a single file, a header is used if it is the only one.
    stem : str
        Stem of a directory's weight files; see `WeightFiles`.
    folders : sequence of str
        Folders of a directory with weights of their own. Names of their tensors begin with the folder and a slash,
        which a single file has and the folder's file lacks. A folder gets one file, of any size.
    force : bool
        Replace an output that exists.
    inputs : iterable of Path
        Files that are read meanwhile and must not be replaced.
    progress : callable
        Called with the bytes of each tensor written.
    finish : callable
        Called when all tensors are written, before the output appears. If it raises, no output is left.

    Raises
    ------
    OutputError
        The output exists, or cannot be written. Where possible this is raised before any tensor is read.
    ValueError
        Arguments contradict each other.
    """
    out = Path(out)
    _check_ties(specs, ties)
    if originals and not is_whole(originals, specs, tuple(folders)):
        raise ValueError(f"expected weight files of all tensors, each once, got {sorted(originals)}")
    read = partial(_read_checked, specs, read, progress)
    if is_single_file(out):
        if files:
            raise ValueError(f"expected no files beside the single file {out}, got {sorted(files)}")
        with atomic_file(out, force, inputs) as file:
            if out.suffix == ".safetensors":
                _write_single(file, specs, read, metadata, originals)
            else:
                write_torch_archive(file, specs, read, ties)
            # The caller's last check, while the output can still be discarded.
            finish()
        return
    if odd := [name for name in files if not valid_file_name(name)]:
        raise ValueError(f"expected names of small files (F1), got {odd}")
    if odd := [folder for folder in folders if not is_valid_folder(folder)]:
        raise ValueError(f"expected folders of weights (F3), got {odd}")
    names = WeightFiles(stem)
    with atomic_directory(out, force, inputs, partial(_is_ours, stem)) as directory:
        create = partial(_create, directory, out)
        for name, data in sorted(files.items()):
            with create(name) as file:
                file.write(data)
        if originals:
            _write_originals(create, originals, read, tuple(folders))
            finish()
            return
        own = _write_folders(create, specs, read, metadata, folders)
        # A directory may have weights in folders only.
        if own or not folders:
            _write_shards(create, names, own, read, metadata, shard_bytes)
        finish()


def is_single_file(out: Path) -> bool:
    """Return whether a checkpoint of this name is written as one file, not as a directory.

    Parameters
    ----------
    out : Path
        The output.

    Examples
    --------
    >>> is_single_file(Path("a/model.safetensors")), is_single_file(Path("a/model"))
    (True, False)
    """
    return out.suffix == ".safetensors" or out.suffix in TORCH_ENDINGS


def _create(directory: Path, shown: Path, name: str) -> AbstractContextManager[BinaryIO]:
    """Return a new file in a directory, which messages call `shown`."""
    path = directory / name
    with output_errors(shown / name):
        path.parent.mkdir(parents=True, exist_ok=True)
    return output_file(path, shown=shown / name)


def _write_folders(
    create: Create, specs: Specs, read: Read, metadata: Mapping[str, str], folders: Sequence[str]
) -> Specs:
    """Write the file of each folder, and return the specs of all other tensors."""
    own: dict[str, TensorSpec] = {}
    within: dict[str, dict[str, TensorSpec]] = {}
    for name, spec in specs.items():
        folder, inner = split_folder(name, folders)
        part = own if folder is None else within.setdefault(folder, {})
        part[inner] = spec
    for folder, inside in within.items():
        with create(f"{folder}/{WeightFiles().single}") as file:
            _write_safetensors(file, _aligned(inside), partial(_read_within, read, folder), metadata)
    return own


def _read_within(read: Read, folder: str, name: str) -> Bytes:
    return read(f"{folder}/{name}")


def _write_shards(
    create: Create, weights: WeightFiles, specs: Specs, read: Read, metadata: Mapping[str, str], shard_bytes: int
) -> None:
    """Write one file, or several and their index."""
    # Cut before anything is written: file names contain the number of shards.
    shards = list(_cut(specs, shard_bytes))
    names = [weights.shard(i, len(shards)) for i in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = [weights.single]
    for name, shard in zip(names, shards, strict=True):
        with create(name) as file:
            _write_safetensors(file, _aligned(shard), read, metadata)
    if len(shards) > 1:
        total = sum(spec.nbytes for spec in specs.values())
        weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        with create(weights.index) as file:
            file.write((json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode())


def _cut(specs: Specs, shard_bytes: int) -> Iterator[dict[str, TensorSpec]]:
    """Yield the tensors of each shard: in order of name, as many as fit; at least one shard."""
    shard: dict[str, TensorSpec] = {}
    size = 0
    for name in sorted(specs):
        # A tensor larger than a shard gets one to itself.
        if shard and size + specs[name].nbytes > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = specs[name]
        size += specs[name].nbytes
    yield shard


def _aligned(specs: Specs) -> dict[str, TensorSpec]:
    """Sort tensors by size of element, largest first, so that each begins at a multiple of its element's size."""
    return dict(sorted(specs.items(), key=lambda item: (-bits_of(item[1].dtype), item[0])))


def _write_single(
    file: BinaryIO, specs: Specs, read: Read, metadata: Mapping[str, str], originals: Mapping[str, bytes]
) -> None:
    """Write one safetensors file: with the header of the only original, else with one of ours."""
    if len(originals) == 1:
        ((name, data),) = originals.items()
        own = tensors_of_header(name, data, ())
        # Names of tensors in a folder begin with it in a single file.
        if own.keys() == specs.keys():
            _write_tensors(file, data, own, read)
            return
    _write_safetensors(file, _aligned(specs), read, metadata)


def _write_originals(create: Create, originals: Mapping[str, bytes], read: Read, folders: tuple[str, ...]) -> None:
    """Write weight files byte for byte as they were."""
    for name, data in originals.items():
        with create(name) as file:
            if name.endswith(".safetensors"):
                _write_tensors(file, data, tensors_of_header(name, data, folders), read)
            else:
                file.write(data)


def _write_tensors(file: BinaryIO, header: bytes, names: Iterable[str], read: Read) -> None:
    file.write(header)
    for name in names:
        file.write(read(name).data)


def _write_safetensors(file: BinaryIO, specs: Specs, read: Read, metadata: Mapping[str, str]) -> None:
    _write_tensors(file, header_bytes(metadata, specs), specs, read)


def _read_checked(specs: Specs, read: Read, progress: ProgressCallback, name: str) -> Bytes:
    data = read(name)
    if data.nbytes != specs[name].nbytes:
        raise ValueError(f"{name!r}: expected {specs[name].nbytes} bytes for {specs[name]}, got {data.nbytes}")
    progress(data.nbytes)
    return data


def _check_ties(specs: Specs, ties: Mapping[str, str]) -> None:
    for name, to in ties.items():
        if to in ties or name not in specs or specs.get(to) != specs[name]:
            raise ValueError(f"expected {name!r} to be tied to an untied tensor of equal spec, got {to!r}")


def _is_ours(stem: str, name: str) -> bool:
    """Return whether a file may be deleted with a directory that is replaced: a file that we could have written."""
    last = name.split("/")[-1]
    usual = any(last.startswith((f"{own}.", f"{own}-")) for own in (*VARIANT_STEMS, "consolidated", stem))
    return (usual and last.endswith(".safetensors")) or is_shard_index(last) or valid_file_name(name)

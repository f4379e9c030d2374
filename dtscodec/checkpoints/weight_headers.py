"""What weight files hold beside tensors: headers of safetensors files, and indices of shards, byte for byte."""

from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.containers.exact_pack import PackedCheckpoint
from dtscodec.format.naming import is_shard_index
from dtscodec.format.primitives.safetensors_header import HEADER_LIMIT
from dtscodec.format.residual.weight_headers import is_whole
from dtscodec.storage.open_file import BY_RANGE, open_file
from dtscodec.storage.storage_errors import read_errors


def read_weight_headers(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Return length and header of each safetensors file, and each index of shards; for `dtscodec.checkpoints.write`.

    Parameters
    ----------
    checkpoint : Checkpoint
        The checkpoint.

    Returns
    -------
    dict of str to bytes
        By name in the checkpoint's directory, ascending. Empty if a file is of another kind, if tensors are in memory,
        or if the checkpoint does not give all tensors as the files have them.

    Raises
    ------
    CheckpointError
        A file cannot be read.
    """
    if isinstance(checkpoint, PackedCheckpoint):
        return checkpoint.weight_headers()
    directory, names = checkpoint.directory, sorted(checkpoint.weight_files)
    if directory is None or not all(name.endswith(".safetensors") or is_shard_index(name) for name in names):
        return {}
    found: dict[str, bytes] = {}
    for name in names:
        with read_errors(directory / name):
            if is_shard_index(name.split("/")[-1]):
                found[name] = (directory / name).read_bytes()
                continue
            file = open_file(directory / name, BY_RANGE)
            try:
                length = int.from_bytes(file.read(0, 8), "little")
                found[name] = file.read(0, 8 + min(length, HEADER_LIMIT))
            finally:
                file.close()
    return found if is_whole(found, checkpoint.specs, checkpoint.folders) else {}

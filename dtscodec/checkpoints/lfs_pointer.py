"""Pointers of Git LFS, in place of files that were not downloaded."""

import re
from pathlib import Path

from dtscodec.errors import CheckpointError, Remedy

_MAX_BYTES = 1024
"""Size below which a pointer is, by the specification of Git LFS."""

_POINTER = re.compile(rb"version https?://[^\n]*git-lfs[^\n]*\n(?:[^\n]*\n)*?oid sha256:([0-9a-f]{64})\nsize (\d+)\n?")


def check_no_pointer(path: Path, data: bytes) -> None:
    """Raise CheckpointError if the content of a file is a pointer of Git LFS.

    Parameters
    ----------
    path : Path
        The file, for the message.
    data : bytes
        Its content.
    """
    found = _POINTER.match(data) if len(data) < _MAX_BYTES else None
    if found:
        size, oid = int(found[2]), found[1].decode()
        problem = f"{path}: expected a file of {size:,} bytes (sha256 {oid[:12]}...), got its Git LFS pointer"
        raise CheckpointError(problem, Remedy("run 'git lfs pull' in the repository, or download the file"))

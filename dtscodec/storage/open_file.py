"""Opening a file by range, wherever it lies."""

from pathlib import Path

from dtscodec.files.range_reader import LocalFile
from dtscodec.storage.access import Access
from dtscodec.storage.hub_path import HubPath
from dtscodec.storage.paths import is_remote
from dtscodec.storage.remote_file import RemoteFile
from dtscodec.storage.storage_errors import pack_errors, read_errors


def open_file(path: Path, access: Access, *, is_pack: bool = False) -> LocalFile | RemoteFile:
    """Open a file for reading by range.

    Parameters
    ----------
    path : Path
        A local path or a remote one. A file of the Hub that is in its client's cache is read there.
    access : Access
        How remote files are read.
    is_pack : bool
        Whether it is read as a pack, whose digests are checked; see `RemoteFile`.

    Raises
    ------
    CheckpointError, PackNotFoundError
        A remote file cannot be read; of packs the latter.
    OSError
        A local file cannot be opened.
    """
    if isinstance(path, HubPath):
        with pack_errors(path) if is_pack else read_errors(path):
            cached = path.local() if access.whole else path.cached()
        if cached is not None:
            return LocalFile(cached)
    return RemoteFile(path, access.staging, is_pack=is_pack) if is_remote(path) else LocalFile(path)

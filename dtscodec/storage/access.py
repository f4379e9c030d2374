"""How files in remote storage are read."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Access:
    """How files in remote storage are read. Local files are read where they are.

    Parameters
    ----------
    staging : Path, optional
        A folder for ranges of remote files (`dtscodec.storage.staging`), so that each is transferred once; without it
        every read is a transfer.
    whole : bool
        Whether all of a file will be read: files of the Hub then go through its client's cache. Else only what is
        read is transferred.
    """

    staging: Path | None = None
    whole: bool = False


WHOLE = Access(whole=True)
BY_RANGE = Access()

"""Files of a model directory that are not read, and why."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PassedOverFile:
    """A file, or a folder of files, beside the weights that were read.

    Parameters
    ----------
    file : str
        Path relative to the model directory; that of a folder ends with a slash.
    reason : str
        Why it was not read, as a clause.
    """

    file: str
    reason: str

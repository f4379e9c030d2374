"""Resuming an interrupted run: its journal, and the message that says how."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dtscodec.cli import console
from dtscodec.cli.remedies import message
from dtscodec.errors import BackendError, CheckpointError, JournalMismatchError, OutputError
from dtscodec.storage.paths import is_remote

if TYPE_CHECKING:
    from dtscodec.encoding.journal import Journal


def journal_path(out: Path, is_directory: bool) -> Path:
    """Return the path of a run's journal: next to its output, or in the working directory if the output is remote.

    Parameters
    ----------
    out : Path
        The pack or the directory of packs.
    is_directory : bool
        Whether it is a directory of packs, which then holds the journal.
    """
    if is_directory:
        return Path("dtscodec.part") if is_remote(out) else out / "dtscodec.part"
    return Path(f"{out.name}.part") if is_remote(out) else Path(f"{out}.part")


@contextmanager
def open_journal(part: Path, fresh: bool) -> Iterator["Journal"]:
    """Open the journal of a run. If an error ends the run and the journal remains, its message says how to resume.

    Parameters
    ----------
    part : Path
        The journal.
    fresh : bool
        Discard the results of an earlier run.

    Raises
    ------
    OutputError
        The journal cannot be written, is in use by another process, or the file is no journal.
    """
    from dtscodec.encoding.journal import Journal

    journal = Journal(part, fresh)  # Errors here are about the file itself: nothing can be resumed from it.
    try:
        with journal:
            if len(journal):
                console.print_note(f"{len(journal)} results of an earlier run in {part}")
            yield journal
    except (KeyboardInterrupt, Exception) as error:
        # Without a journal, or with one of other inputs, there is nothing to resume.
        if not part.exists() or isinstance(error, JournalMismatchError):
            raise
        how_to_resume = (
            f"results are stored in {part}: the same command resumes the run if its inputs are unchanged, "
            "--no-resume starts afresh"
        )
        # Other errors keep their class and traceback; a note of its own then says how to resume.
        if not isinstance(error, (KeyboardInterrupt, CheckpointError, OutputError, BackendError)):
            console.print_note(how_to_resume)
            raise
        raise type(error)("; ".join([*filter(None, [message(error)]), how_to_resume])) from error

"""Resuming a run that was interrupted: its journal, and what is said of it."""

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
    """Return the path of a run's journal: beside the output, or in this directory if that is remote."""
    if is_directory:
        return Path("dtscodec.part") if is_remote(out) else out / "dtscodec.part"
    return Path(f"{out.name}.part") if is_remote(out) else Path(f"{out}.part")


@contextmanager
def open_journal(part: Path, fresh: bool) -> Iterator["Journal"]:
    """Open the journal of a run. If an error ends the run and the journal stays, its message says how to resume."""
    from dtscodec.encoding.journal import Journal

    try:
        with Journal(part, fresh) as journal:
            if len(journal):
                console.print_note(f"{len(journal)} results of an earlier run in {part}")
            yield journal
    except (KeyboardInterrupt, Exception) as error:
        if not part.exists() or isinstance(error, JournalMismatchError):
            raise
        how_to_resume = (
            f"results are stored in {part}: the same command resumes the run if its inputs are unchanged, "
            "--no-resume starts afresh"
        )
        if not isinstance(error, (KeyboardInterrupt, CheckpointError, OutputError, BackendError)):
            console.print_note(how_to_resume)
            raise
        raise type(error)("; ".join([*filter(None, [message(error)]), how_to_resume])) from error

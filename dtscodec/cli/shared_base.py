"""``dtscodec encode --merge``: a base for the packs of a directory, merged from their fine-tunes."""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dtscodec.cli import merge_options, show
from dtscodec.cli.progress import progress_bar
from dtscodec.cli.total import total_bytes
from dtscodec.errors import OutputError
from dtscodec.remote.place import is_remote

if TYPE_CHECKING:
    from dtscodec.merging.sizes import Distances


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("a base merged from the fine-tunes")
    group.add_argument(
        "--merge",
        metavar="METHOD",
        choices=merge_options.METHODS,
        help="take the base argument for a fine-tune, too, and merge them all into the base of -o DIR: "
        + ", ".join(merge_options.METHODS),
    )
    group.add_argument(
        "--base", dest="pretrained", help="what they are fine-tunes of; every method but average needs it"
    )
    group.add_argument("--plain-base", action="store_true", help="store a plain checkpoint, not a compressed one")
    merge_options.add_to(parser)


def of(options: argparse.Namespace) -> "SharedBase | None":
    """The base that is asked for; None if there is one already."""
    parser: argparse.ArgumentParser = options.parser
    if not options.merge:
        if options.pretrained or options.plain_base or options.grams or merge_options.given(options):
            parser.error("options of a merged base need --merge METHOD")
        return None
    if not options.output:
        parser.error("--merge needs a directory: -o DIR")
    if is_remote(options.output):
        raise OutputError(f"{options.output}: expected a local directory for a merged base; copy it when it is made")
    return SharedBase(options)


class SharedBase:
    """A base that is to be made, and what there is to say of it then."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._method = merge_options.method_of(options.merge, options)
        self._made: list[Path] = []
        self.figures: dict[str, dict[str, float]] = {}
        """By task, for the index of the directory."""

    def make(self, directory: Path, fine_tunes: Mapping[str, str], resumes: bool) -> str:
        """Make the base, if an earlier run has not; its path.

        Parameters
        ----------
        directory : Path
        fine_tunes : mapping
            Paths by task.
        resumes : bool
            Whether an earlier run was cut off while it encoded: then the base must stay as it is.
        """
        from dtscodec.codec.folder_index import read_folder
        from dtscodec.merging.shared_base import BASE_NAME, distances_from, figures_of, is_made_by

        path, names, options = directory / BASE_NAME, list(fine_tunes), self._options
        folder = read_folder(directory)
        if others := sorted(folder.packs.keys() - fine_tunes.keys()) if folder else []:
            detail = f"expected no packs of another base, got {others[0]!r}; merge all its tasks, or choose another -o"
            raise OutputError(f"{directory}: {detail}")
        if resumes and is_made_by(path, self._method, names):
            distances = distances_from(path, fine_tunes, options.pretrained, options.raw)
        else:
            distances = self._make(directory, fine_tunes)
        self.figures = figures_of(distances, names)
        return str(path)

    def _make(self, directory: Path, fine_tunes: Mapping[str, str]) -> "tuple[Distances, ...]":
        from dtscodec.cli.merge import describe
        from dtscodec.merging.merger import reads
        from dtscodec.merging.shared_base import make_base

        options = self._options
        with progress_bar("merge", reads(self._method) * total_bytes(fine_tunes.values())) as progress:
            report, self._made = make_base(
                directory,
                fine_tunes,
                self._method,
                options.pretrained,
                raw=options.raw,
                grams=options.grams,
                plain=options.plain_base,
                files=not options.no_files,
                force=options.force,
                device=options.device,
                progress=progress,
            )
        stored = f"stored in {show.size(report.path.stat().st_size)}"
        show.lines(f"{describe(report, list(fine_tunes))}; {stored}, {report.seconds:.1f} s: {report.path}")
        return report.distances

    @contextmanager
    def undone_without(self, part: Path) -> Iterator[None]:
        """Remove the base again if encoding fails and no finished tensors are kept for another run."""
        try:
            yield
        except BaseException:
            for path in () if part.exists() else self._made:
                path.unlink(missing_ok=True)
            raise

"""``dtscodec encode --merge``: a base for the packs of a directory, merged from their fine-tunes."""

import argparse
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from dtscodec.cli import console, merge_options
from dtscodec.cli.progress import progress_bar
from dtscodec.cli.total import total_bytes
from dtscodec.errors import OutputError, Remedy
from dtscodec.files.directory_rollback import all_or_nothing
from dtscodec.merging.methods.registry import METHODS
from dtscodec.storage.paths import is_remote

if TYPE_CHECKING:
    from dtscodec.encoding.journal import Journal
    from dtscodec.merging.distances import Distances


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("a base merged from the fine-tunes")
    group.add_argument(
        "--merge",
        metavar="METHOD",
        choices=tuple(METHODS),
        help="take the base argument for a fine-tune, too, and merge them all into the base of -o DIR: "
        + ", ".join(METHODS),
    )
    group.add_argument(
        "--base", dest="pretrained", help="what they are fine-tunes of; every method but average needs it"
    )
    group.add_argument("--plain-base", action="store_true", help="store a plain checkpoint, not a compressed one")
    merge_options.add_options(parser)


def of(options: argparse.Namespace) -> "SharedBase | None":
    """The base that is asked for; None if there is one already."""
    parser: argparse.ArgumentParser = options.parser
    if not options.merge:
        if options.pretrained or options.plain_base or options.grams or merge_options.given(options):
            parser.error("options of a merged base need --merge METHOD")
        return None
    if options.map:
        parser.error("--map is for a base that is there; names of fine-tunes that --merge takes agree but for a prefix")
    if not options.output:
        parser.error("--merge needs a directory: -o DIR")
    if is_remote(options.output):
        raise OutputError(
            f"{options.output}: expected a local directory for a merged base", Remedy("copy it when it is made")
        )
    return SharedBase(options)


class SharedBase:
    """A base that is to be made, and what there is to say of it then."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._method = merge_options.make_method(argparse.Namespace(**vars(options) | {"method": options.merge}))
        self._made: list[Path] = []
        self.figures: dict[str, dict[str, float]] = {}
        """By task, for the index of the directory."""

    def make(self, directory: Path, fine_tunes: Mapping[str, str], journal: "Journal") -> str:
        """Make the base, if an earlier run has not; its path.

        Parameters
        ----------
        directory : Path
        fine_tunes : mapping
            Paths by task.
        journal : Journal
            Is told what it depends on: a run that was cut off while it encoded goes on with the base that it made.
        """
        from dtscodec.merging.family_base import BASE_NAME, figures_of, key_of_base
        from dtscodec.packs.directory_index import read_folder

        path, options = directory / BASE_NAME, self._options
        folder = read_folder(directory)
        if others := sorted(folder.packs.keys() - fine_tunes.keys()) if folder else []:
            detail = f"expected no packs of another base, got {others[0]!r}; merge all its tasks, or choose another -o"
            raise OutputError(f"{directory}: {detail}")
        settings = {"raw": options.raw, "grams": options.grams, "plain": options.plain_base}
        known = journal.begin(key_of_base(path, fine_tunes, self._method, options.pretrained, **settings))
        if known and path.exists():
            self.figures = known
        else:
            self.figures = figures_of(self._make(directory, fine_tunes), list(fine_tunes))
            journal.done(self.figures)
        return str(path)

    def _make(self, directory: Path, fine_tunes: Mapping[str, str]) -> "tuple[Distances, ...]":
        from dtscodec.cli.merge import describe
        from dtscodec.merging.family_base import make_base

        options = self._options
        with progress_bar("merge", self._method.reads * total_bytes(fine_tunes.values())) as progress:
            report, made = make_base(
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
        self._made += made
        stored = f"stored in {console.size(report.path.stat().st_size)}"
        console.lines(f"{describe(report, list(fine_tunes))}; {stored}, {report.seconds:.1f} s: {report.path}")
        return report.distances

    def all_or_nothing(self, directory: Path, outputs: Iterable[Path], part: Path) -> AbstractContextManager[None]:
        """A context that leaves the directory as it was if encoding fails for good; see `kept_files`."""
        from dtscodec.merging.family_base import BASE_NAME
        from dtscodec.packs.directory_index import INDEX_NAME

        self._made += [directory / BASE_NAME, directory / INDEX_NAME, *outputs]
        return all_or_nothing(directory, self._made, part)

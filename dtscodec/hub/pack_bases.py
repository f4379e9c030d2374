"""Bases of packs: their checks, and the base in a repository's index, which serves packs that record no base."""

from pathlib import Path
from typing import cast

from dtscodec.errors import ConfigError, Remedy
from dtscodec.hub.repository import LocalPack
from dtscodec.packs.directory_index import DirectoryIndex
from dtscodec.storage.hub_path import HubPath, parse_hub_path
from dtscodec.storage.storage_errors import read_errors


def index_base(packs: list[LocalPack], named: str | None, known: DirectoryIndex | None) -> str | None:
    """Check the base of each pack, and return the base for the index, with its commit; None if no pack needs one.

    Parameters
    ----------
    packs : list of LocalPack
        The packs of the push.
    named : str, optional
        Name on the Hub of the base of all packs; by default the one that each pack records, else that of the index.
    known : DirectoryIndex, optional
        Index of the repository before the push.

    Raises
    ------
    ConfigError
        The base of a pack is not known, or differs from that of other packs that record none.
    BaseMismatchError
        A base lacks tensors or rows that a pack needs.
    """
    needs = [pack for pack in packs if pack.base_digest is not None]
    names = {pack.task: _name_of_base(pack, named, known) for pack in needs}
    # Open each base once, for all packs that name it.
    paths = {
        name: _checked_path(name, [pack for pack in needs if names[pack.task] == name])
        for name in dict.fromkeys(names.values())
    }
    if not needs:
        return None
    # The index has a single base: it is for packs that record none.
    serves = next((pack for pack in needs if pack.base is None), needs[0])
    return _shared_base(str(paths[names[serves.task]]), packs, known, is_needed=serves.base is None)


def _name_of_base(pack: LocalPack, named: str | None, known: DirectoryIndex | None) -> str:
    name = named or pack.base or (known.base if known else None)
    if name is None:
        detail = "expected packs that remember their base on the Hub, got one that does not"
        raise ConfigError(f"{pack.task}: {detail}", Remedy("name it with {base}", {"base": "'hf://user/repo'"}))
    return name


def _shared_base(base: str, packs: list[LocalPack], known: DirectoryIndex | None, is_needed: bool) -> str:
    """Return the base for the index: that of packs that stay in the repository, unless these packs need another."""
    others = known is not None and known.packs.keys() - {pack.task for pack in packs}
    if known is None or not others or known.base in (None, base):
        return base
    if is_needed:
        detail = f"expected packs of {known.base} as others in the repository, got some of {base}"
        raise ConfigError(f"{detail}", Remedy("push them to a repository of their own"))
    return str(known.base)


def _checked_path(base: str, packs: list[LocalPack]) -> HubPath:
    """Return the path of a base, checked to have the tensors that packs need; their content is checked on use."""
    from dtscodec.checkpoints.open import open_checkpoint
    from dtscodec.packs.pack import Pack

    with read_errors(cast(Path, base)):
        path = parse_hub_path(base)
    with open_checkpoint(str(path)) as checkpoint:
        for local in packs:
            with Pack(local.path) as pack:
                for entry in pack.index.tensors:
                    entry.check_base(checkpoint.specs, checkpoint.location)
    return path

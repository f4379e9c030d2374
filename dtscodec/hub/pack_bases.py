"""Which base packs need, and the one that a repository's index names: it serves packs that do not remember theirs."""

from pathlib import Path
from typing import cast

from dtscodec.errors import ConfigError, Remedy
from dtscodec.hub.repository import LocalPack
from dtscodec.packs.directory_index import DirectoryIndex
from dtscodec.storage.hub_path import HubPath, parse_hub_path
from dtscodec.storage.storage_errors import read_errors


def base_of(packs: list[LocalPack], named: str | None, known: DirectoryIndex | None) -> str | None:
    """The base that the index is to name, at a commit, after the base of each pack was checked.

    Parameters
    ----------
    packs : list of LocalPack
    named : str, optional
        The Hub's name of the base of all packs. By default each remembers its own, or has that of the index.
    known : DirectoryIndex, optional
        The index as it is.

    Raises
    ------
    ConfigError
        The base of a pack is not known, or is not that of others that do not remember theirs.
    BaseMismatchError
        A base lacks what a pack needs.
    """
    needs = [pack for pack in packs if pack.base_digest is not None]
    names = {pack.task: _name_of_base(pack, named, known) for pack in needs}
    places = {
        name: _checked_place(name, [pack for pack in needs if names[pack.task] == name])
        for name in dict.fromkeys(names.values())
    }
    if not needs:
        return None
    serves = next((pack for pack in needs if pack.base is None), needs[0])
    return _shared_base(str(places[names[serves.task]]), packs, known, is_needed=serves.base is None)


def _name_of_base(pack: LocalPack, named: str | None, known: DirectoryIndex | None) -> str:
    name = named or pack.base or (known.base if known else None)
    if name is None:
        detail = "expected packs that remember their base on the Hub, got one that does not"
        raise ConfigError(f"{pack.task}: {detail}", Remedy("name it with {base}", {"base": "'hf://user/repo'"}))
    return name


def _shared_base(base: str, packs: list[LocalPack], known: DirectoryIndex | None, is_needed: bool) -> str:
    """The base of these packs, or of others that stay: theirs, unless these need the index to name their own."""
    others = known is not None and known.packs.keys() - {pack.task for pack in packs}
    if known is None or not others or known.base in (None, base):
        return base
    if is_needed:
        detail = f"expected packs of {known.base} as others in the repository, got some of {base}"
        raise ConfigError(f"{detail}", Remedy("push them to a repository of their own"))
    return str(known.base)


def _checked_place(base: str, packs: list[LocalPack]) -> HubPath:
    """Where a base lies; it has the tensors that packs need, or BaseMismatchError. Content is checked at use."""
    from dtscodec.checkpoints.open import open_checkpoint
    from dtscodec.packs.pack import Pack

    with read_errors(cast(Path, base)):
        place = parse_hub_path(base)
    with open_checkpoint(str(place)) as checkpoint:
        for local in packs:
            with Pack(local.path) as pack:
                for entry in pack.index.tensors:
                    entry.check_base(checkpoint.specs, checkpoint.location)
    return place

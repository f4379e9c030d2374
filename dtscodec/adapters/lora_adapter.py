"""A LoRA adapter as PEFT saved it, by the model's tensors that it changes."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dtscodec.adapters.lora_pair import LoraPair
from dtscodec.adapters.lora_settings import LoraSettings
from dtscodec.adapters.peft_config import MERGE_FIRST, parse_settings
from dtscodec.adapters.peft_names import PREFIX, AdapterName, Part, parse_name
from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.directories.file_names import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.format.dtypes import CODED_DTYPES
from dtscodec.storage.listing import list_directory
from dtscodec.storage.open_file import WHOLE
from dtscodec.storage.storage_errors import read_errors

_PAIRS: tuple[tuple[Part, Part], ...] = (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B"))
"""Parts that make up a pair: of a layer, and of an embedding."""


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Rows of an embedding that replace those of some tokens.

    Parameters
    ----------
    indices : sequence of int
        The tokens.
    rows : StoredTensor
        One row for each, [tokens, width].

    Raises
    ------
    ValueError
        There is not one row for each token.
    """

    indices: tuple[int, ...]
    rows: StoredTensor

    def __post_init__(self) -> None:
        shape = self.rows.spec.shape
        if len(shape) != 2 or shape[0] != len(self.indices) or self.rows.spec.dtype not in CODED_DTYPES:
            expected = f"{len(self.indices)} rows of floats, one for each of trainable_token_indices"
            raise ValueError(f"{self.rows.name}: expected {expected}, got {self.rows.spec}")


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """A LoRA adapter. All names are those of the model in memory, without PEFT's prefix.

    Parameters
    ----------
    settings : LoraSettings
        Ranks and scales of the pairs.
    pairs : mapping of str to LoraPair
        A and B by module.
    whole : mapping of str to StoredTensor
        Tensors that replace those of the model, by their names: `modules_to_save`, biases, embeddings of a model whose
        vocabulary has grown.
    originals : mapping of str to StoredTensor
        Copies of the model's tensors as they were before the training, by their names. Of a model whose vocabulary has
        grown they have its rows.
    tokens : mapping of str to TokenRows
        Rows of embeddings, by the names of the embeddings' tensors.
    biases : mapping of str to StoredTensor
        Biases of B, by the names of the biases that they are added to with the pairs' scales.

    Raises
    ------
    ValueError
        The rank of a pair is not the one in the settings, or the rows of tokens in the settings are missing.
    """

    settings: LoraSettings
    pairs: Mapping[str, LoraPair]
    whole: Mapping[str, StoredTensor]
    originals: Mapping[str, StoredTensor] = field(default_factory=dict)
    tokens: Mapping[str, TokenRows] = field(default_factory=dict)
    biases: Mapping[str, StoredTensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for module, pair in self.pairs.items():
            # The scale depends on the rank, so the configuration must state the true one.
            if pair.rank != (expected := self.settings.rank_of(module)):
                raise ValueError(f"{module}: expected the rank {expected} of {ADAPTER_CONFIG}, got {pair.rank}")
        if self.settings.token_indices and not self.tokens:
            raise ValueError(
                f"expected the rows of the tokens in trainable_token_indices of {ADAPTER_CONFIG}, got none"
            )

    def is_saved_module(self, name: str) -> bool:
        """Return whether a tensor is of one of the `modules_to_save`, given the tensor's name."""
        parts = name.split(".")
        modules = [".".join(parts[:end]) for end in range(1, len(parts))]
        # As PEFT compares them: a name in the settings is the end of the module's.
        return any(module.endswith(tuple(self.settings.modules_to_save)) for module in modules)


def read_adapter(directory: Path) -> LoraAdapter:
    """Read an adapter that PEFT saved; the inverse of `write_adapter`.

    Parameters
    ----------
    directory : Path
        The adapter's directory, local or on the Hub.

    Raises
    ------
    CheckpointError
        The adapter is missing, malformed, or no plain LoRA.
    """
    config = directory / ADAPTER_CONFIG
    with read_errors(config):
        if not config.is_file():
            raise _no_adapter(directory)
        settings = parse_settings(config.read_bytes(), str(config))
    weights = weights_of(directory)
    with open_checkpoint(weights, WHOLE) as checkpoint:
        try:
            return _read_tensors(checkpoint, settings, weights)
        except CheckpointError:
            raise
        except ValueError as error:
            raise CheckpointError(f"{weights}: {error}") from error


def _no_adapter(directory: Path) -> CheckpointError:
    """Return the error on a path that is not the directory of an adapter."""
    expected = f"{directory}: expected the directory of an adapter that PEFT saved, got"
    if directory.is_file():
        return CheckpointError(f"{expected} a file", Remedy("name the directory that it is in"))
    if not directory.is_dir():
        return CheckpointError(f"{expected} nothing of that name")
    # PEFT saves all adapters but the default one in folders of their names.
    folders = list_directory(directory).folders
    found = [folder for folder in folders if (directory / folder / ADAPTER_CONFIG).is_file()]
    remedy = Remedy.literal(f"name the folder of one of the adapters in it: {', '.join(found)}") if found else None
    return CheckpointError(f"{expected} one without {ADAPTER_CONFIG}", remedy)


def weights_of(directory: Path) -> Path:
    """Return the file that holds an adapter's tensors.

    Parameters
    ----------
    directory : Path
        The adapter's directory, local or on the Hub.

    Raises
    ------
    CheckpointError
        There is no such file.
    """
    with read_errors(directory):
        for name in ADAPTER_WEIGHTS:
            if (directory / name).is_file():
                return directory / name
    raise CheckpointError(f"{directory}: expected {' or '.join(ADAPTER_WEIGHTS)}, got neither")


def _read_tensors(checkpoint: Checkpoint, settings: LoraSettings, location: Path) -> LoraAdapter:
    if not checkpoint.specs:
        problem = f"{location}: expected the tensors of an adapter, got none"
        raise CheckpointError(problem, Remedy("save the adapter again with PEFT, from the model that was trained"))
    found: dict[Part, dict[str, StoredTensor]] = defaultdict(dict)
    for key, name in _parse_names(checkpoint, location).items():
        stored = StoredTensor(name.tensor, checkpoint.specs[key], checkpoint.read(key))
        if not stored.spec.elements:
            problem = f"{stored.name}: expected the elements of {key}, got none, as DeepSpeed ZeRO-3 saves its shards"
            raise CheckpointError(problem, Remedy("save the adapter again after gathering the parameters"))
        # An embedding that was saved twice, as a module to save and for its grown vocabulary, has two names.
        known = found[name.part].setdefault(name.tensor, stored)
        if name.part == "trained" and ".modules_to_save." in key:
            found[name.part][name.tensor] = stored
        elif name.part != "trained" and known is not stored and bytes(known.data) != bytes(stored.data):
            raise ValueError(f"{key!r}: expected one tensor of this part, got two")
    return LoraAdapter(
        settings,
        _pairs(found),
        found["trained"],
        found["original"],
        {name: _tokens(settings, stored) for name, stored in found["tokens"].items()},
        {name: _matrix(stored, "lora_bias") for name, stored in found["lora_bias"].items()},
    )


def _parse_names(checkpoint: Checkpoint, location: Path) -> dict[str, AdapterName]:
    """Parse all names in an adapter's file, which must be those of one adapter."""
    names = {}
    for key in checkpoint.specs:
        if (name := parse_name(key)) is None:
            if PREFIX not in key:
                problem = f"{location}: expected tensors under {PREFIX!r}, got {key!r:.80}"
                raise CheckpointError(problem, Remedy("save the adapter with PEFT"))
            problem = f"{location}: expected the tensors of a plain LoRA, got {key!r:.80}"
            raise CheckpointError(problem, MERGE_FIRST)
        names[key] = name
    adapters = sorted({name.adapter for name in names.values() if name.adapter is not None})
    if len(adapters) > 1:
        problem = f"{location}: expected the tensors of one adapter, got those of {', '.join(map(repr, adapters))}"
        raise CheckpointError(problem, Remedy("save one alone with PEFT (save_pretrained)"))
    return names


def _pairs(found: Mapping[Part, Mapping[str, StoredTensor]]) -> dict[str, LoraPair]:
    """Return an adapter's pairs by module."""
    pairs: dict[str, LoraPair] = {}
    for tensor in sorted({name for parts in _PAIRS for part in parts for name in found[part]}):
        module = tensor.removesuffix(".weight")
        parts = [part for both in _PAIRS for part in both if tensor in found[part]]
        # PEFT has names of its own for the matrices of an embedding.
        if tuple(parts) not in _PAIRS:
            raise ValueError(f"{module}: expected an A and a B, got {', '.join(parts)}")
        a, b = (_matrix(found[part][tensor], part) for part in parts)
        try:
            pairs[module] = LoraPair(a.tensor(), b.tensor(), parts[0] == "lora_embedding_A")
        except ValueError as error:
            raise ValueError(f"{module}: {error}") from error
    return pairs


def _matrix(stored: StoredTensor, part: Part) -> StoredTensor:
    if stored.spec.dtype not in CODED_DTYPES:
        raise ValueError(f"{stored.name}: expected {part} in F16, BF16, F32 or F64, got {stored.spec}")
    return stored


def _tokens(settings: LoraSettings, stored: StoredTensor) -> TokenRows:
    return TokenRows(tuple(settings.tokens_of(stored.name.removesuffix(".weight"))), stored)

"""`config.json` of a model that an adapter changes: vocabulary, labels, class, tied embeddings."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtscodec.adapters.model_layers import CONFIG
from dtscodec.checkpoints.quantized.quantization_settings import without_quantization
from dtscodec.errors import CheckpointError
from dtscodec.storage.storage_errors import read_errors


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The content of `config.json`.

    Parameters
    ----------
    document : mapping
        The JSON object.
    """

    document: Mapping[str, Any]

    @classmethod
    def read(cls, directory: Path) -> "ModelConfig | None":
        """Read the configuration of a model directory; None if it has none.

        Parameters
        ----------
        directory : Path
            The directory.

        Raises
        ------
        CheckpointError
            It cannot be read, or is not a JSON object.
        """
        path = directory / CONFIG
        with read_errors(path):
            if not path.is_file():
                return None
            data = path.read_bytes()
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: expected JSON, got {error}") from error
        if not isinstance(document, dict):
            raise CheckpointError(f"{path}: expected an object, got {document!r:.60}")
        return cls(document)

    @property
    def may_tie(self) -> bool:
        """True unless the configuration excludes that the model ties its head to its embedding."""
        return any(part.get("tie_word_embeddings") is not False for part in self._parts())

    @property
    def ties(self) -> bool:
        """True if the configuration states that the model ties its head to its embedding."""
        return any(part.get("tie_word_embeddings") is True for part in self._parts())

    @property
    def vocabularies(self) -> frozenset[int]:
        """Sizes of the model's vocabularies: of the whole model, and of its parts."""
        return frozenset(part["vocab_size"] for part in self._parts() if isinstance(part.get("vocab_size"), int))

    @property
    def labels(self) -> int:
        """Number of labels of a classifier; 2 is the default of transformers."""
        found = self.document.get("id2label")
        return len(found) if isinstance(found, dict) else 2

    def unquantized(self) -> "ModelConfig":
        """Return the configuration for weights that are not quantized."""
        return ModelConfig(without_quantization(self.document))

    def with_class(self, name: str) -> "ModelConfig":
        """Return the configuration for a model of another class."""
        return ModelConfig({**self.document, "architectures": [name]})

    def with_labels(self, count: int) -> "ModelConfig":
        """Return the configuration for a number of labels, which get the names that transformers gives them."""
        names = [f"LABEL_{i}" for i in range(count)]
        ids = {"id2label": {str(i): name for i, name in enumerate(names)}}
        return ModelConfig({**self.document, **ids, "label2id": {name: i for i, name in enumerate(names)}})

    def with_vocabulary(self, old: int, new: int) -> "ModelConfig":
        """Return the configuration for another size of the vocabulary, wherever it has the old one."""
        return self._changed("vocab_size", old, new)

    def untied(self) -> "ModelConfig":
        """Return the configuration without the tying of embeddings."""
        changed = self._changed("tie_word_embeddings", True, False)
        return ModelConfig({**changed.document, "tie_word_embeddings": False})

    def to_bytes(self) -> bytes:
        """Return the file's content, in the form in which transformers writes it."""
        return (json.dumps(self.document, indent=2, sort_keys=True) + "\n").encode()

    def _parts(self) -> list[Mapping[str, Any]]:
        """Return the whole document, and the configurations of parts of the model in it."""
        return [self.document, *(value for value in self.document.values() if isinstance(value, dict))]

    def _changed(self, key: str, old: object, new: object) -> "ModelConfig":
        def change(part: Mapping[str, Any]) -> dict[str, Any]:
            found = {name: change(value) if isinstance(value, dict) else value for name, value in part.items()}
            # By identity for truth values: in Python 1 equals true.
            if type(found.get(key)) is type(old) and found[key] == old:
                found[key] = new
            return found

        return ModelConfig(change(self.document))

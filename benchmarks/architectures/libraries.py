"""How each library saves, loads and runs its models: transformers, diffusers, sentence-transformers."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dtscodec.evaluation.transformers_library import quiet_transformers

SEED = 5
"""For weights that are not in a directory, such as a new head's: the same in every load."""


class LoadError(Exception):
    """The library reports tensors that are missing, unexpected or of another shape."""


@dataclass(frozen=True)
class Library:
    """How a library saves, loads and runs its models. Subclasses differ in what is not common to all of them."""

    name: str

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write a model's directory."""
        with quiet():
            model.save_pretrained(str(folder))  # type: ignore[operator]

    def load(self, like: nn.Module, folder: Path, strict: bool = True) -> Any:
        """Load a directory as a model of the class of `like`.

        Parameters
        ----------
        like : Module
        folder : Path
        strict : bool
            Raise `LoadError` unless the directory has exactly the model's tensors.
        """
        torch.manual_seed(SEED)
        with quiet():
            model, report = type(like).from_pretrained(str(folder), output_loading_info=True)  # type: ignore[attr-defined]
        if strict and any(report.values()):
            raise LoadError(", ".join(f"{key}: {sorted(map(str, value))}" for key, value in report.items() if value))
        return model.eval()

    def outputs(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return a model's outputs, [rows, ...]."""
        with torch.no_grad(), quiet():
            outputs: Tensor = model(**inputs).logits
        return outputs

    def adapted(self, model: Any) -> Any:
        """Return the module that an adapter of PEFT wraps."""
        return model

    def with_adapted(self, model: Any, adapted: Any) -> Any:
        """Return the model with another module in the place of the one that an adapter wraps."""
        return adapted


class Diffusers(Library):
    """Models of diffusers."""

    def outputs(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the predicted noise."""
        with torch.no_grad(), quiet():
            outputs: Tensor = model(**inputs).sample
        return outputs


class SentenceTransformers(Library):
    """Models of sentence-transformers: a transformer, and modules with weights of their own in folders."""

    def load(self, like: nn.Module, folder: Path, strict: bool = True) -> Any:
        """Load a directory; the library checks the tensors of all modules itself."""
        from sentence_transformers import SentenceTransformer

        with quiet():
            return SentenceTransformer(str(folder), device="cpu").eval()

    def outputs(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the embeddings."""
        with torch.no_grad(), quiet():
            outputs: Tensor = model(dict(inputs))["sentence_embedding"]
        return outputs

    def adapted(self, model: Any) -> Any:
        """Return the transformer."""
        return model[0].auto_model

    def with_adapted(self, model: Any, adapted: Any) -> Any:
        """Return the model with another transformer."""
        model[0].auto_model = adapted
        return model


TRANSFORMERS, DIFFUSERS = Library("transformers"), Diffusers("diffusers")
SENTENCE_TRANSFORMERS = SentenceTransformers("sentence-transformers")


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore the libraries' warnings, except that keys of an adapter do not fit the model."""
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*adapter keys.*")
        yield

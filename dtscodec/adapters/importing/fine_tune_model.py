"""The model that results from a base and an adapter: its class, sizes and ties, and its `config.json`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from dtscodec.adapters.importing.counterparts import NAME_TRAINED_BASE
from dtscodec.adapters.importing.model_config import ModelConfig
from dtscodec.adapters.importing.model_outline import ModelOutline, class_for_task, outline_model, untie
from dtscodec.adapters.lora_settings import LoraSettings
from dtscodec.adapters.peft_config import MERGE_FIRST
from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.errors import EncodeError, Remedy

Shape = tuple[int, ...]

SAVE_EMBEDDINGS = Remedy("save the adapter again with save_embedding_layers=True, from the model that was trained")


@dataclass(frozen=True, slots=True)
class FineTuneModel:
    """The model of a fine-tune.

    Parameters
    ----------
    config : ModelConfig
        Its configuration.
    outline : ModelOutline
        Names, shapes and ties of its tensors.
    changes : tuple of str
        Differences of the configuration from the base's, in words.
    """

    config: ModelConfig
    outline: ModelOutline
    changes: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: ModelConfig, base: Specs) -> "FineTuneModel | None":
        """Return the base's own model; None if transformers cannot build it.

        Parameters
        ----------
        config : ModelConfig
            The base's configuration.
        base : mapping of str to TensorSpec
            The base's tensors.
        """
        outline = outline_model(config, base)
        return None if outline is None else cls(config, outline)

    def with_heads(self, heads: Collection[str], settings: LoraSettings, base: Specs) -> "FineTuneModel":
        """Return the model of the class with the new heads, if the adapter's settings determine it; else this model.

        Parameters
        ----------
        heads : collection of str
            Tensors of the adapter that the base lacks.
        settings : LoraSettings
            Task and class of the model.
        base : mapping of str to TensorSpec
            The base's tensors.
        """
        if not set(heads) - self.outline.shapes.keys():
            return self
        for name in (settings.model_class, class_for_task(self.config, settings.task_type)):
            if name is None or name == self.outline.model:
                continue
            config = self.config.with_class(name)
            outline = outline_model(config, base)
            if outline is not None and set(heads) <= outline.shapes.keys():
                return FineTuneModel(config, outline, (*self.changes, f"architectures {self.outline.model} -> {name}"))
        return self

    def untied(self) -> "FineTuneModel":
        """Return the same model without tied embeddings."""
        config = untie(self.config)
        changes = self.changes if config is self.config else (*self.changes, "tie_word_embeddings true -> false")
        return FineTuneModel(config, self.outline, changes)

    def with_sizes(self, shapes: Mapping[str, Shape], heads: Collection[str], base: Specs) -> "FineTuneModel":
        """Return the model with the vocabulary and the number of labels that the fine-tune's tensors have.

        Parameters
        ----------
        shapes : mapping of str to tuple of int
            Shapes of the fine-tune's tensors, by their names in memory.
        heads : collection of str
            Names of the tensors that may be those of a classifier's head.
        base : mapping of str to TensorSpec
            The base's tensors.

        Raises
        ------
        EncodeError
            A tensor's shape is not the one that the model has for it.
        """
        model = self
        for name, shape in sorted(shapes.items()):
            old = self.outline.shapes.get(name)
            if old is None or old == shape or not old or not shape or old[1:] != shape[1:]:
                continue
            if old[0] in self.config.vocabularies:
                model = model._with(model.config.with_vocabulary(old[0], shape[0]), "vocab_size", old[0], shape[0])
            elif old[0] == self.config.labels and name in heads:
                model = model._with(model.config.with_labels(shape[0]), "labels", old[0], shape[0])
        if model.config is not self.config:
            outline = outline_model(model.config, base)
            model = model if outline is None else replace(model, outline=outline)
        model._check(shapes)
        return model

    def _with(self, config: ModelConfig, key: str, old: int, new: int) -> "FineTuneModel":
        change = f"{key} {old} -> {new}"
        return self if change in self.changes else FineTuneModel(config, self.outline, (*self.changes, change))

    def _check(self, shapes: Mapping[str, Shape]) -> None:
        """Refuse a tensor whose shape is not the model's: one that has not grown with the vocabulary, for example."""
        for name, shape in sorted(shapes.items()):
            expected = self.outline.shapes.get(name)
            if expected is None or expected == shape:
                continue
            problem = f"{name}: expected {list(expected)}, as the fine-tune's {self.outline.model} has it"
            if not any(change.startswith("vocab_size") for change in self.changes):
                raise EncodeError(f"{problem}, got {list(shape)}", NAME_TRAINED_BASE)
            problem += f", got {list(shape)}: the adapter lacks the part for the added tokens"
            raise EncodeError(problem, SAVE_EMBEDDINGS if len(shape) == 2 and shape[0] > 1 else MERGE_FIRST)

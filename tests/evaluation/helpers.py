"""Model directories with tokenizers, packs of them, and plain figures to compare with."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

import dtscodec
from dtscodec.evaluation.compare_behaviour import Behaviour
from tests.models import VOCABULARY, make_pair, save
from tests.support import make_pack

TEXTS = [
    "w5 w6 w7",
    "w8",
    "w9 w10 w11 w12 w13 w14 w15",
    "w100 w3 w100 w3",
    "w20 w21 unheard-of w22 w23",
    " ".join(f"w{i % 90}" for i in range(80)),  # more than there are positions
    "w31 w32",
]
LABELS = [0, 1, 1, 0, 1, 0, 0]
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]


def save_tokenizer(folder: Path, ends: bool, padding: bool = True, words: int = VOCABULARY - len(SPECIAL)) -> None:
    """Write a tokenizer of the words w0, w1, ...

    With `ends` it adds [CLS] before and [SEP] after a text; with `padding` it has a padding token.
    """
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *(f"w{i}" for i in range(words))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if ends:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    names = {"unk_token": "[UNK]", "eos_token": "[SEP]", **({"pad_token": "[PAD]"} if padding else {})}
    fast = hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)  # type: ignore[no-untyped-call]
    fast.save_pretrained(folder)


@dataclass
class Made:
    """A base, a fine-tune of it with configuration and tokenizer, and a pack."""

    base: Path
    fine: Path
    pack: Path

    def compare(self, samples: Path, **options: Any) -> Behaviour:
        return dtscodec.compare_behaviour(self.pack, self.fine, self.base, samples=samples, **options)

    def restored(self) -> Path:
        out = self.base.parent / "restored"
        if not out.exists():
            with dtscodec.decode(self.pack, self.base) as decoded:
                decoded.save(out)
        return out


def make(name: str, root: Path, padding: bool = True, **settings: Any) -> Made:
    """Save a pair of `tests.models`, and make its pack, in which all changed tensors are coded."""
    pair = make_pair(name)
    base, fine = save(pair.base, root / "base"), save(pair.fine, root / "fine")
    save_tokenizer(fine, ends=name == "bert", padding=padding)
    make_pack(base, fine, root / "pack", **{"target": dtscodec.RankShare(0.1), **settings})
    return Made(base, fine, root / "pack")


def write_texts(path: Path, labels: list[int] | None = None) -> Path:
    """Write the texts above as JSON lines."""
    entries = [{"text": text} | ({"label": labels[i]} if labels else {}) for i, text in enumerate(TEXTS)]
    path.write_text("\n".join(map(json.dumps, entries)))
    return path


def broken(folder: Path, out: Path, name: str, value: float = float("nan")) -> Path:
    """Copy a model directory, with one element of a tensor replaced."""
    shutil.copytree(folder, out)
    tensors = load_file(out / "model.safetensors")
    tensors[name].view(-1)[0] = value
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    return out


def change_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


# The definitions, one text at a time and without padding


def plain_logits(folder: Path, name: str, positions: int) -> list[tuple[Tensor, Tensor]]:
    """Return tokens and logits of each text, in float64."""
    model = getattr(hf, name).from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(positions)
    results = []
    for text in TEXTS:
        tokens = torch.tensor([tokenizer.encode(text).ids])
        with torch.no_grad():
            results.append((tokens[0], model(input_ids=tokens).logits[0].double()))
    return results


def plain_kl(fine: Tensor, decoded: Tensor) -> Tensor:
    """Return KL(fine || decoded) of each row of logits."""
    p, q = fine.softmax(dim=-1), decoded.softmax(dim=-1)
    return (p * (p.log() - q.log())).sum(dim=-1)

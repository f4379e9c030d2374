"""Error of `attach` in bfloat16, beside that of the decoded checkpoint: ``python -m benchmarks.attach_bfloat16``.

A Llama of 8 layers with random weights holds the base in bfloat16. A task's delta of rank 8 has a share of the base's
norm in every matrix. The logits of 8 x 64 tokens are compared with those of two models in float32: the decoded
checkpoint, and the same before its weights are rounded to bfloat16 (base plus delta).
"""

import argparse
import copy
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dtscodec
from benchmarks.common.environment import environment

RECORD = Path(__file__).with_suffix(".json")
RANK = 8
DECODED, EXACT = "decoded checkpoint", "base plus delta"
LIMITS = {DECODED: 1.75, EXACT: 1.5}
"""The most that the root mean square error of `attach` may be, in units of that of the decoded checkpoint, by what both
are compared with. The decoded checkpoint's weights hold the dither of their rounding, which `attach` does not have."""


@dataclass(frozen=True, slots=True)
class Row:
    """Differences of logits from a model in float32: root mean squares, and the largest."""

    share: float
    seed: int
    reference: str
    effect: float
    decoded: float
    attached: float
    largest_decoded: float
    largest_attached: float

    @property
    def ratios(self) -> dict[str, float]:
        """The errors of `attach` in units of those of the decoded checkpoint."""
        return {
            "ratio": self.attached / self.decoded,
            "largest_ratio": self.largest_attached / self.largest_decoded,
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row for each delta; 1 if one is beyond the limit."""
    parser = argparse.ArgumentParser(description="Error of attach in bfloat16")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name}")
    options = parser.parse_args(argv)
    rows = [
        row
        for share in (0.05, 0.3, 1.0)
        for seed in range(3)
        for row in measure(options.width, options.layers, share, seed)
    ]
    print("| delta / base | reference in float32 | effect | decoded, bfloat16 | attach, bfloat16 | ratio | largest |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        ratios = " | ".join(f"{ratio:.2f}" for ratio in row.ratios.values())
        figures = f"{row.effect:.3f} | {row.decoded:.4f} | {row.attached:.4f} | {ratios}"
        print(f"| {row.share} | {row.reference} | {figures} |")
    if options.record:
        document = {**environment(), "rows": [{**asdict(row), **row.ratios} for row in rows]}
        RECORD.write_text(json.dumps(document, indent=2) + "\n")
    return int(any(row.ratios["ratio"] > LIMITS[row.reference] for row in rows))


def measure(width: int, layers: int, share: float, seed: int) -> list[Row]:
    """Make a model and a pack, and compare what they predict.

    Parameters
    ----------
    width, layers : int
        Of the model.
    share : float
        Norm of each matrix's delta, in units of the matrix's own.
    seed : int
        Seed of weights, delta and tokens.
    """
    torch.manual_seed(seed)
    model = _model(width, layers)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = torch.randint(0, model.config.vocab_size, (8, 64))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        config = dtscodec.EncodeConfig(target=dtscodec.Rank(RANK))
        pack = dtscodec.encode(base, _fine_tune(base, share), f"{folder}/pack", config).path
        decoded = copy.deepcopy(model)
        dtscodec.apply_(decoded, pack)
        rounded, wide = copy.deepcopy(decoded).float(), copy.deepcopy(model).float()
        # Side branches in float32 add the delta before anything is rounded to bfloat16.
        references = {DECODED: _logits(rounded, ids), EXACT: _attached(wide, pack, ids, base)}
        own, plain, attached = _logits(decoded, ids), _logits(model, ids), _attached(model, pack, ids)
    return [
        Row(
            share,
            seed,
            name,
            _rms(true - plain),
            _rms(own - true),
            _rms(attached - true),
            float((own - true).abs().max()),
            float((attached - true).abs().max()),
        )
        for name, true in references.items()
    ]


def _model(width: int, layers: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=width, intermediate_size=width * 11 // 4, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=1024, max_position_embeddings=256, initializer_range=width**-0.5,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    return model.eval().bfloat16()


def _fine_tune(base: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    fine = {}
    for name, tensor in base.items():
        if tensor.dim() == 2:
            delta = torch.randn(tensor.shape[0], RANK) @ torch.randn(RANK, tensor.shape[1])
            delta *= share * tensor.float().norm() / delta.norm()
        else:
            delta = 0.02 * torch.randn(tensor.shape)
        fine[name] = (tensor.float() + delta).bfloat16()
    return fine


def _logits(model: Any, ids: Tensor) -> Tensor:
    logits: Tensor = model(ids).logits
    return logits.float()


def _attached(model: Any, pack: Path, ids: Tensor, base: dict[str, Tensor] | None = None) -> Tensor:
    with dtscodec.attach(model, {"task": pack}, base) as attached, attached.serve("task"):
        return _logits(model, ids)


def _rms(difference: Tensor) -> float:
    return float(difference.square().mean().sqrt())


if __name__ == "__main__":
    raise SystemExit(main())

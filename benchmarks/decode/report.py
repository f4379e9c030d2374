"""The result of the benchmark as a page."""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.common.markdown import markdown_table


def decoding_page(result: Mapping[str, Any]) -> str:
    """The page that `RESULT.md` holds, of the parts that are known."""
    made = {name: part for name, part in result.items() if name in _PARTS}
    sections = [_PARTS[name](part["rows"]) + f"\n\n{_where(part)}" for name, part in made.items()]
    return "\n\n".join(["# Cost of decoding", "Printed by `python -m benchmarks.decode`.", *sections]) + "\n"


def _where(part: Mapping[str, Any]) -> str:
    machine, versions = part["machine"], part["versions"]
    return (
        f"{part['date']}: {machine['processor']}, {machine['cores']} cores, {part['threads']} threads, "
        f"torch {versions['torch']}, Python {versions['python']}; medians, ways in turn."
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def _matrix(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        ours, floor = row["seconds"]["ours"], row["seconds"]["floor"]
        lines.append([row["dtype"], str(row["rank"]), _ms(ours), _ms(floor), f"{ours / floor:.2f}"])
    intro = (
        "The floor is `torch.addmm` of ready-made dense float32 factors into an existing tensor; for bf16 with casts."
    )
    table = markdown_table(["dtype", "rank", "ours", "floor", "ours / floor"], lines)
    return f"## One matrix of 4096 x 4096\n\n{intro}\n\n{table}"


def _timed(title: str, intro: str) -> Callable[[list[dict[str, Any]]], str]:
    def section(rows: list[dict[str, Any]]) -> str:
        lines = []
        for row in rows:
            ours, floor, load = (row["seconds"][name] for name in ("ours", "floor", "load the fine-tune"))
            lines.append([row["size"], _ms(ours), _ms(floor), f"{ours / floor:.2f}", _ms(load), f"{ours / load:.2f}"])
        head = ["size", "ours", "floor", "ours / floor", "load the fine-tune", "ours / load"]
        return f"## {title}\n\n{intro}\n\n{markdown_table(head, lines)}"

    return section


def _side(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        seconds, tokens = row["seconds"], row["tokens_per_second"]
        lines.append(
            [
                row["size"],
                f"{row['batch'][0]} x {row['batch'][1]}",
                str(row["tasks"]),
                f"{tokens['merged']:,.0f}",
                f"{tokens['attached']:,.0f}",
                f"{tokens['LoRA']:,.0f}" if "LoRA" in tokens else "",
                f"{seconds['attached'] / seconds['merged'] - 1:+.0%}",
                f"{seconds['LoRA'] / seconds['merged'] - 1:+.0%}" if "LoRA" in seconds else "",
                f"{row['operations']:+.0%}",
            ]
        )
    head = ["size", "batch", "tasks", "merged", "attached", "LoRA", "attached takes", "LoRA takes", "operations"]
    intro = (
        "Tokens a second of the model of 22.7 M parameters; how much more time than the merged model the others take; "
        "how many operations the linear layers' factors add to their weights'. The LoRA (`peft`) has the first pack's "
        "ranks, layer by layer."
    )
    return f"## Packs beside the model\n\n{intro}\n\n{markdown_table(head, lines)}"


def _resident(rows: list[dict[str, Any]]) -> str:
    row = rows[0]
    share = row["anonymous_bytes"] / row["checkpoint_bytes"]
    return (
        f"## Memory\n\n{row['packs']} different packs of {row['size']}, attached at once, add "
        f"{row['anonymous_bytes'] / 1e6:.1f} MB of anonymous memory: {share:.1%} of one float32 checkpoint "
        f"({row['checkpoint_bytes'] / 1e6:.1f} MB). Their files take {row['pack_bytes'] / 1e6:.1f} MB, their tensors "
        f"in memory {row['tensor_bytes'] / 1e6:.1f} MB."
    )


_FLOOR = (
    "The floor: for each matrix `torch.addmm` of ready-made dense float32 factors into an existing tensor, a sum or a "
    "copy for what has no factors, and "
)
_PARTS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "matrix": _matrix,
    "switch": _timed(
        "From one task to another, in a resident model of 22.7 M parameters",
        _FLOOR
        + "a copy of what the old task changed and the new one does not. Loading: `safetensors.torch.load_file` from "
        "a warm page cache, and `load_state_dict`.",
    ),
    "checkpoint": _timed(
        "A whole checkpoint of 22.7 M parameters into memory",
        _FLOOR
        + "a copy of what did not change. Decoding also checks the base's digests once, opens the pack and checks "
        "its own. Loading: `safetensors.torch.load_file` from a warm page cache, which maps the file.",
    ),
    "side": _side,
    "resident": _resident,
}
PARTS = tuple(_PARTS)

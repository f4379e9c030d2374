"""The demo's result: as a JSON document, and as the table it prints."""

import json
from pathlib import Path
from typing import Any

from benchmarks.common.markdown import percent


def write(result: dict[str, Any], path: Path) -> None:
    """Write a result as JSON that a diff can be read of."""
    path.write_text(json.dumps(result, indent=2) + "\n")


def table(result: dict[str, Any]) -> str:
    """Result as text, for a terminal of 80 columns."""
    settings, size, seconds = result["settings"], result["bytes"], result["seconds"]
    rows = [
        ("", "accuracy", "agreement", "KL", "bytes on disk", "share"),
        ("base, fine-tune's head", *_fidelity(result, "base"), "", ""),
        ("fine-tune", *_fidelity(result, "finetune"), f"{size['checkpoint']:,}", "100 %"),
        ("decoded pack", *_fidelity(result, "decoded"), f"{size['pack']:,}", percent(result["share"], 2)),
    ]
    return "\n".join(
        [
            f"MiniLM-L6 fine-tuned on {settings['n_train']:,} {settings['domain']} texts, "
            f"tested on {result['n_test']:,} others",
            "",
            *(_line(row) for row in rows),
            "",
            f"encode {seconds['encode']:.1f} s, decode {seconds['decode']:.1f} s, as commands, on "
            f"{result['machine']['cores']} cores",
            "agreement and KL: with and from the fine-tune's predictions; KL in nats, mean over texts",
            f"always the more frequent class: accuracy {percent(result['majority'])}",
        ]
    )


def _fidelity(result: dict[str, Any], model: str) -> tuple[str, str, str]:
    figures = result["fidelity"][model]
    if model == "finetune":
        return percent(figures["accuracy"]), "", ""
    return percent(figures["accuracy"]), percent(figures["agreement"]), f"{figures['kl']:.4f}"


def _line(row: tuple[str, ...]) -> str:
    widths = (22, 9, 10, 7, 14, 8)
    numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
    return " ".join([row[0].ljust(widths[0]), *numbers]).rstrip()

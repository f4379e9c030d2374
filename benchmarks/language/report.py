"""The result of a run as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.common.markdown import markdown_table, percent
from benchmarks.language.bench import BEST, OURS
from benchmarks.language.summary import SHARES


def language_page(result: Mapping[str, Any]) -> str:
    """Return all tables of a result (the content of ``result.json``)."""
    parts = [
        _head(result),
        "## What is to hold\n\n" + _promises(result["promises"]),
        "## The fine-tunes\n\n" + models_table(result["models"]),
        "## KL by size, geometric mean\n\n" + _sizes(result, "kl"),
        "## Agreement of next tokens by size, mean\n\n" + _sizes(result, "agreement"),
        "## What to expect by kind of fine-tune\n\n" + _by_task(result["by_task"]),
        "## Peers: KL by that of `best` at equal bytes\n\n" + _peers(result["peers"], result["tasks"]),
        "## Each task, all test tokens\n\n" + _rows(result["rows"]),
        "## A merged LoRA, and another training seed\n\n" + _rows(result["others"]),
        "## Time\n\n" + _time(result["seconds"]),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _head(result: Mapping[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    suffix = "" if result["plan"] == "whole" else f" --{result['plan']}"
    sentences = (
        f"Printed by `python -m benchmarks.language{suffix}` on {result['date']}: {machine['processor']}, "
        f"{machine['cores']} cores, torch {versions['torch']}, transformers {versions['transformers']}, Python "
        f"{versions['python']}.",
        "SmolLM2-135M-Instruct in bf16 (269 MB) and full fine-tunes of it.",
        "Test texts have at most 128 tokens and were not trained on.",
        f"Sweeps are judged on {result['few']:,} tokens, rows by task on {result['tokens']:,}.",
        "Our packs are decoded to bf16, as users have them; what peers decode is added to the base in fp32, where "
        "nothing is lost to rounding. Rows *in fp32* are our packs by that rule, and peers are compared with them. "
        "Forward passes are in fp32.",
        "Calibration uses 64 other texts.",
        "Every byte counts: of our presets the whole file; of peers codes, scales and indices, while norms stay the "
        "base's at no cost.",
        "KL is that from the fine-tune, in nats a token. Standard errors have texts as units.",
        f"Means are over {', '.join(result['tasks'])}.",
    )
    return "# Language models\n\n" + " ".join(sentences)


def _promises(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [[row["text"], row["measured"], "holds" if row["holds"] else "**does not hold**"] for row in rows]
    return markdown_table(["", "measured", ""], cells)


def models_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the table of bases and fine-tunes."""
    head = ["task", "perplexity", "KL of the base", "base agrees", "exact match", "weights changed", "delta's norm"]
    cells = [
        [
            row["task"],
            f"{row['base_perplexity']:.3g} -> {row['perplexity']:.3g}",
            f"{row['kl']:.3f} ± {row['kl_error']:.3f}",
            percent(row["agreement"]),
            ""
            if row["exact_match"] is None
            else f"{percent(row['base_exact_match'])} -> {percent(row['exact_match'])}",
            percent(row["changed"]),
            percent(row["relative_norm"], 2),
        ]
        for row in rows
    ]
    return markdown_table(head, cells)


def _sizes(result: Mapping[str, Any], figure: str) -> str:
    """Return a table with a row for each method, ours first, and a column for each size."""
    table = result["sizes"]
    shown = [method for method in table if any(table[method])]  # Others were not run on all tasks.
    order = [method for method in OURS if method in shown]
    order += sorted((method for method in shown if method not in OURS), key=str.lower)
    rows = [
        [f"**{method}**" if method in OURS[:2] else method, *(_cell(cell, figure) for cell in table[method])]
        for method in order
    ]
    return markdown_table(["method", *(percent(share, 2) for share in SHARES)], rows)


def _by_task(table: Mapping[str, Mapping[str, Sequence[Mapping[str, float] | None]]]) -> str:
    rows = [
        [method, task, *("-" if c is None else f"{percent(c['agreement'])}, {percent(c['closed'])}" for c in cells)]
        for method, tasks in table.items()
        for task, cells in tasks.items()
    ]
    note = "Agreement of next tokens with the fine-tune, and the share of the base's KL that the pack closes."
    return markdown_table(["method", "task", *(percent(share, 2) for share in SHARES)], rows) + f"\n\n{note}"


def _cell(cell: Mapping[str, float] | None, figure: str) -> str:
    if cell is None:
        return "-"
    return percent(cell[figure]) if figure == "agreement" else f"{cell[figure]:.2g}"


def _peers(peers: Mapping[str, Mapping[str, Any]], tasks: Sequence[str]) -> str:
    rows = [
        [
            peer,
            f"{BEST}, data-free or calibrated" if row["calibrated"] else f"{BEST}, data-free",
            "all" if len(row["tasks"]) == len(tasks) else ", ".join(row["tasks"]),
            *(_ratio(cell) for cell in row["at"]),
            f"{_ratio(row['lowest'])} at {percent(row['lowest']['share'], 2)}" if row["lowest"] else "-",
        ]
        for peer, row in peers.items()
    ]
    note = (
        "Each peer at its best setting, which is chosen on one task. Peers that are far from `best` there are not run "
        "on the others. In brackets the distance in standard errors; below -2 the peer is better. The last column is "
        "where a peer comes nearest between 0.05 % and 8 %."
    )
    head = ["peer", "against", "tasks", *(percent(share, 2) for share in SHARES), "nearest"]
    return markdown_table(head, rows) + f"\n\n{note}"


def _ratio(cell: Mapping[str, float] | None) -> str:
    return "-" if cell is None else f"{cell['ratio']:.3g} ({cell['errors']:+.1f})"


def _rows(rows: Iterable[Mapping[str, Any]]) -> str:
    head = ["task", "method", "asked for", "bytes", "share", "KL", "agrees", "perplexity", "KL closed", "exact match"]
    cells = [
        [
            row["task"],
            row["method"],
            row["setting"],
            f"{row['bytes']:,}",
            percent(row["share"], 2),
            f"{row['kl']:.5f} ± {row['kl_error']:.5f}",
            percent(row["agreement"]),
            f"{row['perplexity']:.4g}",
            percent(row["closed"]),
            "" if row["exact_match"] is None else percent(row["exact_match"]),
            f"{row['encode_seconds']:.0f} s",
        ]
        for row in rows
    ]
    return markdown_table([*head, "encode"], cells)


def _time(seconds: Mapping[str, float]) -> str:
    total = sum(seconds.values())
    parts = ", ".join(f"{method} {value / 3600:.1f}" for method, value in sorted(seconds.items(), key=lambda x: -x[1]))
    return (
        f"All points take {total / 3600:.1f} hours of one core ({parts}), and training the fine-tunes half an hour "
        "more. Points are kept as they are measured, and a run that was stopped goes on."
    )

"""The result as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common.markdown import markdown_table, percent


def exact_page(result: Mapping[str, Any]) -> str:
    """Return all tables of a result (the content of ``result.json``)."""
    parts = [_head(result)]
    if result["curve"]:
        parts.append("![Bytes and error, from small lossy packs to exact ones](result.png)")
    parts.append("## What is to hold\n\n" + _bars(result["bars"]))
    parts.append("## Settings\n\n" + _settings(result))
    if result["speed"]:
        parts.append("## Times in turn\n\n" + _speed(result["speed"]))
    for pair in _names(result["rows"], "pair"):
        rows = [row for row in result["rows"] if row["pair"] == pair]
        parts.append(f"## {pair[:1].upper()}{pair[1:]}\n\n{_pair(rows)}")
    for run in _names(result["series"], "run"):
        rows = [row for row in result["series"] if row["run"] == run]
        parts.append(f"## Series: {run}\n\n{_series(rows)}")
    if result["curve"]:
        parts.append("## Lossy packs\n\n" + _curve(result["curve"]))
    return "\n\n".join(parts) + "\n"


def _head(result: Mapping[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    suffix = "" if result["plan"] == "whole" else f" --{result['plan']}"
    sentences = [
        f"Printed by `python -m benchmarks.exact{suffix}` on {result['date']}: {machine['processor']}, "
        f"{machine['cores']} cores, torch {versions['torch']}, numpy {versions['numpy']}, Python {versions['python']}; "
        f"peers {', '.join(result['peers'])}.",
        "Every scheme goes from files to files, in a process of its own, on one core; reading and writing count, "
        "starting Python and importing packages do not.",
        "Times are the least of some repeats.",
        "Peers get the base in the fine-tune's names and layout, which takes no time here.",
        "Bits a weight count the whole file.",
        "What came back was compared: *file* is equal by SHA-256, *tensors* are equal bit for bit in a file with "
        "another header.",
        "Memory is the peak of anonymous memory beyond what importing torch takes.",
    ]
    missing = [f"{name} could not be installed: {reason}." for name, reason in result["missing"].items()]
    return "# Exact packs\n\n" + " ".join([*sentences, *missing])


def _bars(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [[row["text"], row["measured"], "holds" if row["holds"] else "**does not hold**"] for row in rows]
    return markdown_table(["", "measured", ""], cells)


def _settings(result: Mapping[str, Any]) -> str:
    settings = {row["scheme"]: row["setting"] for row in result["rows"]}
    lines = [f"- {name}: {setting}." for name, setting in settings.items()]
    stores = {row["store"]: row["setting"] for row in result["series"]}
    lines += [f"- {name}, as a series: {setting}." for name, setting in stores.items()]
    return "\n".join(lines)


def _speed(rows: Sequence[Mapping[str, Any]]) -> str:
    ways = list(rows[0]["seconds"])
    cells = [[row["pair"], *(f"{row['seconds'][way]:.3f}" for way in ways)] for row in rows]
    lead = "Seconds on one core, in one process, each way after the other; the times that bars compare."
    return f"{lead}\n\n{markdown_table(['pair', *ways], cells)}"


def _pair(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["scheme", "bytes", "share", "bits a weight", "encode, s", "decode, s", "lossy decode, s"]
    head += ["memory of encode, MB", "of decode, MB", "equal"]
    cells = [
        [
            row["scheme"],
            f"{row['bytes']:,}",
            percent(row["share"]),
            f"{row['bits']:.2f}",
            f"{row['encode']:.2f}",
            f"{row['decode']:.2f}",
            "" if row["lossy_decode"] is None else f"{row['lossy_decode']:.2f}",
            f"{row['encode_memory'] / 1e6:.0f}",
            f"{row['decode_memory'] / 1e6:.0f}",
            row["equal"],
        ]
        for row in rows
    ]
    first = rows[0]
    return f"{first['raw']:,} bytes, {first['weights']:,} weights.\n\n{markdown_table(head, cells)}"


def _series(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["store", "bytes a save, mean", "share", "bits a weight", "least", "most"]
    head += ["store a save, s", "restore the last, s", "equal"]
    cells = []
    for row in rows:
        mean = sum(row["sizes"]) / len(row["sizes"])
        cells.append(
            [
                row["store"],
                f"{mean:,.0f}",
                percent(row["share"], 2),
                f"{8 * mean / row['weights']:.3f}",
                percent(min(row["sizes"]) / row["raw"], 2),
                percent(max(row["sizes"]) / row["raw"], 2),
                f"{row['add']:.2f}",
                f"{row['restore']:.2f}",
                row["equal"],
            ]
        )
    first = rows[0]
    checked = ", ".join(map(str, first["checked"]))
    lines = f"{len(first['sizes'])} saves of {first['raw']:,} bytes after the base, which is not counted."
    return f"{lines} Saves {checked} were restored and compared.\n\n{markdown_table(head, cells)}"


def _curve(points: Sequence[Mapping[str, Any]]) -> str:
    pairs = _names(points, "pair")
    sizes = _names(points, "size")
    table = {(point["pair"], point["size"]): point for point in points}
    cells = [[size, *(_point(table.get((pair, size))) for pair in pairs)] for size in sizes]
    return "Share of the checkpoint, and relative error of the delta.\n\n" + markdown_table(["size", *pairs], cells)


def _point(point: Mapping[str, Any] | None) -> str:
    return f"{percent(point['share'], 2)}, {point['error']:.3f}" if point else ""


def _names(rows: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))

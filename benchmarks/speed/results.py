"""The result of several runs: each part, and each model, is the last that was measured."""

from collections.abc import Mapping
from typing import Any


def merged(known: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results that are known after a run.

    Parameters
    ----------
    known, fresh : mapping
        Contents of a ``result.json``: by part; of the part `models` by model.

    >>> merged({"many": 1, "models": {"1": "old", "7": "kept"}}, {"models": {"1": "new"}})
    {'many': 1, 'models': {'1': 'new', '7': 'kept'}}
    """
    result = {**known, **fresh}
    if "models" in result:
        models = {**known.get("models", {}), **fresh.get("models", {})}
        result["models"] = dict(sorted(models.items(), key=lambda item: float(item[0])))
    return result


def runs(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All runs of a result, each with its date, machine and versions."""
    parts = [result[name] for name in ("matrices", "factors", "many") if name in result]
    return [*parts, *result.get("models", {}).values()]


def engine_rows(result: Mapping[str, Any], engine: str) -> list[Mapping[str, Any]]:
    """Rows of one engine, models ascending."""
    models = result.get("models", {}).values()
    return [row for model in models for row in model["rows"] if row["engine"] == engine]

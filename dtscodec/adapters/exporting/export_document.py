"""The configuration of an adapter that is exported: `adapter_config.json`."""

from collections.abc import Collection, Mapping
from typing import Any

from dtscodec.adapters.exporting.export_plan import ExportPlan
from dtscodec.adapters.exporting.whole_modules import CLASSIFIERS
from dtscodec.adapters.lora_pair import LoraPair
from dtscodec.adapters.peft_config import settings_document


def export_document(plan: ExportPlan, pairs: Mapping[str, LoraPair], base: str | None) -> dict[str, Any]:
    """Return the adapter's configuration.

    Parameters
    ----------
    plan : ExportPlan
        The changes that the adapter carries.
    pairs : mapping of str to LoraPair
        A and B by module.
    base : str or None
        PEFT's `base_model_name_or_path`.
    """
    layers = plan.layers
    classifier = next((task for end, task in CLASSIFIERS.items() if layers.model.endswith(end)), None)
    return settings_document(
        {module: pair.rank for module, pair in pairs.items()},
        base=base,
        task_type=classifier if plan.has_heads else layers.task,
        target_modules=target_modules(pairs, layers.modules),
        modules_to_save=plan.saved,
        has_biases=bool(plan.biases),
        fan_in_fan_out=any(layers.kinds[module] == "transposed" for module in pairs),
    )


def target_modules(chosen: Collection[str], modules: Collection[str]) -> list[str]:
    """Return PEFT's `target_modules`: last parts of names if no other module has them, else names in full.

    Parameters
    ----------
    chosen : collection of str
        Modules that the adapter changes.
    modules : collection of str
        All modules of the model.

    Examples
    --------
    >>> target_modules(["0.q", "1.q"], ["0.q", "1.q", "0.k"]), target_modules(["0.q"], ["0.q", "1.q"])
    (['q'], ['0.q'])
    """
    # PEFT matches the end of names: use it only if it selects the chosen modules and no others.
    ends = {name.rpartition(".")[2] for name in chosen}
    matched = {name for name in modules if name.rpartition(".")[2] in ends}
    return sorted(ends if matched == set(chosen) else chosen)

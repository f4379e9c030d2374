"""Names of tensors without what wrappers add, and with one spelling where libraries have two."""

import re
from collections import Counter
from collections.abc import Iterable

WRAPPERS = frozenset(
    {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"},
)
"""Components that wrappers put into names: torch.compile, DDP and DeepSpeed, FSDP, activation checkpointing, Fabric.

They stand in front, and again before every submodule that is wrapped by itself.
"""

_SPELLINGS = (
    # Mixture of experts. The router is `gate` on disk and `router` in memory for some architectures.
    (r"block_sparse_moe\.input_linear\.weight", "mlp.experts.gate_up_proj"),
    (r"block_sparse_moe\.output_linear\.weight", "mlp.experts.down_proj"),
    (r"block_sparse_moe\.router\.layer\.", "mlp.gate."),
    (r"block_sparse_moe\.(?:router|gate)\.", "mlp.gate."),
    (r"block_sparse_moe\.", "mlp."),
    (r"mlp\.router\.", "mlp.gate."),
    # Vision transformers.
    (r"encoder\.layer\.(?=\d+\.)", "layers."),
    (r"attention\.attention\.query\.|attention\.self\.query\.|attention\.query\.", "attention.q_proj."),
    (r"attention\.attention\.key\.|attention\.self\.key\.|attention\.key\.", "attention.k_proj."),
    (r"attention\.attention\.value\.|attention\.self\.value\.|attention\.value\.", "attention.v_proj."),
    (r"attention\.self\.relative_position_bias_table$", "attention.relative_position_bias_table"),
    (r"relative_position_bias\.relative_position_bias_table$", "relative_position_bias_table"),
    (r"attention\.output\.dense\.", "attention.o_proj."),
    (r"intermediate\.dense\.", "mlp.fc1."),
    (r"output\.dense\.", "mlp.fc2."),
    # Normalization layers of checkpoints that were converted from TensorFlow.
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
    # Weights of `torch.nn.utils.weight_norm`, which torch 2.1 replaced by a parametrization.
    (r"weight_g$", "parametrizations.weight.original0"),
    (r"weight_v$", "parametrizations.weight.original1"),
    # The output layer of GPT-NeoX.
    (r"embed_out\.", "lm_head."),
)
_PATTERNS = tuple((re.compile(rf"(?:(?<=\.)|^)(?:{old})"), new) for old, new in _SPELLINGS)
"""Names of modules on disk and in memory, as transformers 5 renames them in loading and saving; applied in order."""


def unwrapped_name(name: str) -> str:
    """Return a name without the components of wrappers.

    Parameters
    ----------
    name : str
        Name of a tensor.

    Examples
    --------
    >>> unwrapped_name("_orig_mod.layers.0._fsdp_wrapped_module.attn.weight")
    'layers.0.attn.weight'
    """
    return ".".join(part for part in name.split(".") if part not in WRAPPERS) or name


def canonical_name(name: str) -> str:
    """Return a name without the components of wrappers, and with one spelling of modules that have two.

    Parameters
    ----------
    name : str
        Name of a tensor.

    Examples
    --------
    >>> canonical_name("_orig_mod.layers.0._fsdp_wrapped_module.attn.weight")
    'layers.0.attn.weight'
    >>> canonical_name("vit.encoder.layer.0.attention.attention.query.bias")
    'vit.layers.0.attention.q_proj.bias'
    """
    name = unwrapped_name(name)
    for pattern, new in _PATTERNS:
        name = pattern.sub(new, name)
    return name


def by_canonical_name(names: Iterable[str]) -> dict[str, str]:
    """Return canonical name -> name. Where two names become one, both keep their own.

    Parameters
    ----------
    names : iterable of str
        Names of one checkpoint, unique.
    """
    canonical = {name: canonical_name(name) for name in names}
    counts = Counter(canonical.values())
    # A name that keeps itself must not coincide with the canonical name of another.
    own = {name for name, short in canonical.items() if counts[short] > 1}
    return {short: name for name, short in canonical.items() if name not in own and short not in own} | {
        name: name for name in own
    }

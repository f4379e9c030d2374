"""Auxiliary files of a fine-tune: permitted names (spec section 4.5, F1) and limits (section 10)."""

MAX_FILES = 2**16
MAX_FILE_BYTES = 2**30
"""Largest size of one file, and of all files together, in bytes."""

ENDINGS = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".bpe", ".vocab", ".spm")
"""Permitted suffixes: configuration and tokenizers, never code."""


def valid_file_name(name: str) -> bool:
    r"""Return whether a file of this name may be carried (spec section 4.5, F1).

    >>> valid_file_name("1_Pooling/config.json"), valid_file_name("../config.json"), valid_file_name("run.py")
    (True, False, False)
    """
    if not name.endswith(ENDINGS) or name.endswith(".index.json"):
        return False
    return all(map(_valid_component, name.split("/")))


def _valid_component(part: str) -> bool:
    """Return whether a component is valid: no leading dot, backslash, colon, control character or lone surrogate."""
    return (
        bool(part)
        and not part.startswith(".")
        and not any(c in "\\:" or c < " " or "\ud800" <= c <= "\udfff" for c in part)
    )

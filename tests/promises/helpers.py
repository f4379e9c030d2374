"""Texts for promises."""

import random
from pathlib import Path


def write_words(path: Path, count: int) -> Path:
    """Write different texts of the words of `tests.evaluation.helpers.save_tokenizer`, one a line."""
    generator = random.Random(0)
    texts = (" ".join(f"w{generator.randrange(150)}" for _ in range(generator.randrange(5, 20))) for _ in range(count))
    path.write_text("".join(f"{text}\n" for text in texts))
    return path

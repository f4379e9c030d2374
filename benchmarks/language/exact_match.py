"""Exercises that nothing was trained or calibrated on: the share of prompts that a model answers rightly."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.language.texts import ANSWER, digest, exercises, side_of

BATCH = 100
MOST_TOKENS = 16
"""Most tokens that an answer can take; the longest right ones, dates, take 9."""


class ExerciseSheet:
    """Questions of the exercises' test split, with the one right answer of each.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        The models'.
    count : int
        Number of questions: the first ones in the order of their digests.
    """

    def __init__(self, tokenizer: Any, count: int) -> None:
        sources = [source for source in exercises(Path()) if side_of(source) == "test"]
        lines = [line for line, *_ in sorted(sources, key=digest)[:count]]
        # The blank after "=" is part of the answer's first token.
        self.prompts = [line.split(ANSWER)[0] + ANSWER.rstrip() for line in lines]
        self.answers = [" " + line.split(ANSWER)[1] for line in lines]
        self._tokenizer = tokenizer

    def exact_match(self, model: Any) -> float:
        """Return the share of prompts that a model answers with exactly the right text.

        Parameters
        ----------
        model : transformers.PreTrainedModel
            In evaluation mode.
        """
        found = self.generate(model)
        return sum(map(str.__eq__, found, self.answers)) / len(self.answers)

    @torch.inference_mode()
    def generate(self, model: Any) -> list[str]:
        """Return a model's answers: the most probable token each time, up to the end of the line or of the text."""
        (newline,) = self._tokenizer("\n", add_special_tokens=False).input_ids
        stops = [newline, self._tokenizer.eos_token_id]
        answers = [""] * len(self.prompts)
        for rows, ids in self._batches():
            # One length in a batch: nothing is padded.
            prompts = torch.tensor(ids)
            written = model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=MOST_TOKENS,
                do_sample=False,
                eos_token_id=stops,
                pad_token_id=self._tokenizer.eos_token_id,
            )
            for row, tokens in zip(rows, written[:, prompts.shape[1] :].tolist(), strict=True):
                end = next((place for place, token in enumerate(tokens) if token in stops), len(tokens))
                answers[row] = self._tokenizer.decode(tokens[:end])
        return answers

    def _batches(self) -> Iterator[tuple[Sequence[int], list[list[int]]]]:
        """Yield prompts of one length: their rows, and their tokens."""
        ids = self._tokenizer(self.prompts).input_ids
        by_length: dict[int, list[int]] = defaultdict(list)
        for row, tokens in enumerate(ids):
            by_length[len(tokens)].append(row)
        for rows in by_length.values():
            for start in range(0, len(rows), BATCH):
                part = rows[start : start + BATCH]
                yield part, [ids[row] for row in part]

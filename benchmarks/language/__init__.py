"""Full fine-tunes of a language model: bytes against KL, agreement, perplexity and exact match, with peers."""

"""Checkpoint -> pack: deltas are divided into segments, a budget is shared among them, and each is encoded."""

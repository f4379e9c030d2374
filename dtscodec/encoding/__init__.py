"""Checkpoint -> pack: deltas are cut into segments, a budget is shared among them, and each is encoded."""

"""A series: the checkpoints of a training run as exact packs, each against the one before or an anchor."""

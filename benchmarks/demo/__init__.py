"""The main job end to end on real input: fine-tune, encode, decode, compare.

``python -m benchmarks.demo`` fine-tunes MiniLM-L6 on texts of one sentiment domain, packs the result with
the real commands, and measures what the pack costs and what it keeps. The parts are usable alone: ``data``
yields texts, ``finetune`` makes a checkpoint, ``evaluate`` measures one.
"""

"""Presets: how a segment becomes a block."""

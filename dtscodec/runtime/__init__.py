"""Packs in running models: switched in place, attached as side branches, or decoded while a model loads."""

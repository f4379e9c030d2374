"""Bases and fine-tunes made of several fine-tunes."""

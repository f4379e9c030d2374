"""Promises: the smallest pack whose quality on samples is within a bound, and the author's claim about it.

samples -> `splits` -> for some sizes of pack (`trials`, `size_search`): encode, fit, compare -> one pack -> measured
on samples that neither the pack nor its size depends on -> claim.
"""

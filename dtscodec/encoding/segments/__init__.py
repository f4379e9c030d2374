"""A tensor's segments: rows that are unchanged, exact, new, or a delta from the base, dense or known by its factors."""

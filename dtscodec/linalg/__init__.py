"""Linear algebra on deltas: SVD, subspace iteration, spectrum tails, factored matrices, rounding noise."""

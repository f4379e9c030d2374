"""DTS as its authors' code computes it (arXiv 2512.01461), written anew and plainly, to hold ours against."""

import numpy as np


def published_quantizer(values: np.ndarray) -> np.ndarray:
    """Split by sign; of each sign the larger half by magnitude and the rest get their root mean square."""
    decoded = np.zeros(values.shape, np.float64)
    flat, out = values.ravel().astype(np.float64), decoded.reshape(-1)
    for sign in (1, -1):
        members = np.flatnonzero(flat * sign > 0)
        members = members[np.argsort(-np.abs(flat[members]), kind="stable")]
        half = len(members) // 2
        for group in (members[:half], members[half:]):
            if len(group):
                out[group] = sign * np.sqrt(np.mean(flat[group] ** 2))
    return decoded


def published_matrix(delta: np.ndarray, density: float) -> np.ndarray:
    """Truncated SVD at a share of the rank, both factors quantized as one set each."""
    u, s, v = np.linalg.svd(delta.astype(np.float64), full_matrices=False)
    rank = int(density * min(delta.shape))
    decoded: np.ndarray = published_quantizer(u[:, :rank]) * s[:rank] @ published_quantizer(v[:rank])
    return decoded

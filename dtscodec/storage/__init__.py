"""Files in remote storage: paths, ranges that are fetched once, and uploads. Knows no torch."""

"""Files in remote storage: paths, ranges that are transferred once, and uploads. Knows no torch."""

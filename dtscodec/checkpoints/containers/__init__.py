"""One file per kind of container: safetensors, shards, torch.save, tensors in memory, packs of exact tensors."""

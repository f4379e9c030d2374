"""What a layer does beside its weights, by kind of layer."""

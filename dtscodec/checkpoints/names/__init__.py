"""Which tensor of a base is the counterpart of each tensor of a fine-tune."""

"""Evaluation: predictions on samples with a fine-tune's weights, and with those decoded from its pack."""

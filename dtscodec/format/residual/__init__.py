"""The residual layer: what a fine-tune differs by from a prediction of it, losslessly (spec section 15)."""

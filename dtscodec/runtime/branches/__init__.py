"""Side branches, one file per kind of layer."""

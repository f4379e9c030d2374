"""Side branches, one file per kind of layer; `branch` has the base class."""

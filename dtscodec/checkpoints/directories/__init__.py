"""Model directories: the files that hold their weights, folders of modules, and files that are passed over."""

"""Model directories: which of their files hold the weights, folders of modules, and what is passed over."""

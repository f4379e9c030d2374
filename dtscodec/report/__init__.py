"""One page about a pack: facts, gathered once, then pictures and tables of them."""

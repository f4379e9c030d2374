"""Packs in a repository of the Hugging Face Hub: what it holds, its page, and pushing; reading is `dtscodec.remote`."""

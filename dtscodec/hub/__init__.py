"""Packs in a repository of the Hugging Face Hub: contents, model card, push. Reading is `dtscodec.storage`."""

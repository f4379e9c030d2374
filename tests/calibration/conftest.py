from tests.behaviour.conftest import classifier, language_model, texts

__all__ = ["classifier", "language_model", "texts"]

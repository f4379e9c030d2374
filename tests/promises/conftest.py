from tests.evaluation.conftest import classifier, language_model

__all__ = ["classifier", "language_model"]

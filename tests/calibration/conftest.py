from tests.evaluation.conftest import classifier, images, language_model, resnet, texts, vit

__all__ = ["classifier", "images", "language_model", "resnet", "texts", "vit"]

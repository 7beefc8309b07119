"""What lmms-eval finds by entry point; the model itself is imported when it is asked for."""

from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]


def manifest() -> ModelManifest:
    """Named by the entry point in the group `lmms_eval.models`."""
    return ModelManifest(model_id="mgpo", simple_class_path="mgpo.inference.lmms_eval.MGPOModel")

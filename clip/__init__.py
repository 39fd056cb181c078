"""CLIP: tokenizer, towers and weights, with the names that callers of OpenAI's package know."""

from .clip import _MODELS, TextTooLongError, _download, available_models, build_model, load, tokenize

__all__ = ["_MODELS", "TextTooLongError", "_download", "available_models", "build_model", "load", "tokenize"]

"""CLIP: tokenizer, towers and weights, under the names of OpenAI's package."""

from .clip import _MODELS, TextTooLongError, _download, available_models, build_model, load, tokenize

__all__ = ["_MODELS", "TextTooLongError", "_download", "available_models", "build_model", "load", "tokenize"]

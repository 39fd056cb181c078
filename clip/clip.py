"""The entry points of OpenAI's package: `available_models`, `load`, `tokenize`."""

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from .model import CLIP, build_model, convert_weights, resize_positions
from .origins import origin_of
from .preprocess import Compose
from .preprocess import preprocessing as _transform
from .releases import MODELS as _MODELS
from .search import find, load_model
from .simple_tokenizer import END_OF_TEXT, START_OF_TEXT
from .simple_tokenizer import SimpleTokenizer as _Tokenizer

__all__ = ["_MODELS", "TextTooLongError", "_download", "available_models", "build_model", "load", "tokenize"]

_tokenizer = _Tokenizer()


class TextTooLongError(ValueError, RuntimeError):
    """A text has more tokens than the context length. OpenAI's package raises a RuntimeError."""


def available_models() -> list[str]:
    """The model names that `load` accepts."""
    return list(_MODELS)


def _download(url: str, root: str | None = None) -> str:
    """Return the path of the weights at an address of `_MODELS`, downloaded if necessary; see `clip.search.find`."""
    return str(find(url, root))


def load(
    name: str | os.PathLike[str],
    device: str | torch.device | None = None,
    jit: bool = False,
    download_root: str | None = None,
    activation: str | None = None,
    resolution: int | None = None,
) -> tuple[CLIP, Compose]:
    """A CLIP model and the preprocessing of its images.

    Args:
        name: one of `available_models()`, a model of open_clip as ARCHITECTURE/TAG, a repository of the hub as
            hf-hub:OWNER/NAME, or a folder or file of weights in the layout of OpenAI, open_clip or transformers.
        device: device of the model; by default the GPU if there is one.
        jit: must be False; OpenAI's package can return its TorchScript archive instead of a module.
        download_root: cache folder of OpenAI's weights; `~/.cache/clip` by default.
        activation: "quick_gelu", or "gelu" for weights that were trained with it, such as open_clip's of LAION. By
            default what the model's configuration states; needed for a file that is not OpenAI's and has none.
        resolution: pixels of an image's side, where it is not the one that the weights were trained with; see
            `clip.model.resize_positions`.

    Returns:
        The model in eval mode, in fp16 on a GPU (see `convert_weights`) and in fp32 on a CPU, and a callable
        PIL image -> (3, H, W), whose steps are the list `.transforms`.

    Raises:
        ValueError: unknown name, weights that are none of a CLIP or whose activation is unknown, a model that does
            not fit, or `jit` is True.
        FileNotFoundError: the weights cannot be found.
    """
    if jit:
        raise ValueError("jit=True is not supported: load with jit=False, which gives a module with the same weights")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = load_model(name, activation or "", download_root)
    description = origin_of(name).description()
    resize_positions(model, resolution or model.visual.input_resolution)
    if device.type != "cpu":
        convert_weights(model)
    mean, std = (description.mean, description.std) if description else (None, None)
    return model.to(device), _transform(model.visual.input_resolution, mean, std)


def tokenize(texts: str | Sequence[str], context_length: int = 77, truncate: bool = False) -> Tensor:
    """Token ids (N, context_length), int32: start of text, the text, end of text, zeros.

    Args:
        texts: a text, or a sequence of N texts.
        truncate: shorten texts that are too long, keeping the end of text as the last token.

    Raises:
        TextTooLongError: a text is too long and `truncate` is False. It is both a ValueError and a RuntimeError.
    """
    texts = [texts] if isinstance(texts, str) else texts
    start, end = _tokenizer.encoder[START_OF_TEXT], _tokenizer.encoder[END_OF_TEXT]
    result = torch.zeros(len(texts), context_length, dtype=torch.int32)
    for row, text in zip(result, texts, strict=True):
        ids = [start, *_tokenizer.encode(text), end]
        if len(ids) > context_length:
            if not truncate:
                raise TextTooLongError(
                    f"a text of {len(ids)} tokens does not fit the context length of {context_length}: {text!r}; "
                    "shorten it or pass truncate=True"
                )
            ids = [*ids[: context_length - 1], end]
        row[: len(ids)] = torch.tensor(ids)
    return result

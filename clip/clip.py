"""The entry points of OpenAI's package: `available_models`, `load`, `tokenize`."""

import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .model import CLIP, build_model, convert_weights, from_state_dict
from .releases import MODELS as _MODELS
from .search import find, load_state_dict
from .simple_tokenizer import END_OF_TEXT, START_OF_TEXT
from .simple_tokenizer import SimpleTokenizer as _Tokenizer

__all__ = ["_MODELS", "_download", "available_models", "build_model", "load", "tokenize"]

# Mean and standard deviation of the pixels CLIP was trained on, in [0, 1]
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)

_tokenizer = _Tokenizer()


def available_models() -> list[str]:
    """Names that `load` knows."""
    return list(_MODELS)


def _download(url: str, root: str | None = None) -> str:
    """Return the path of the weights at an address of `_MODELS`, downloaded if necessary; see `clip.search.find`."""
    return str(find(url, root))


class _Preprocess:
    """PIL image of any size to (3, n_px, n_px): shorter side resized, centre cut out, pixels normalised."""

    def __init__(self, n_px: int) -> None:
        self.n_px = n_px
        self.mean = torch.tensor(PIXEL_MEAN).view(3, 1, 1)
        self.std = torch.tensor(PIXEL_STD).view(3, 1, 1)

    def __call__(self, image: Image.Image) -> Tensor:
        width, height = image.size
        short = min(width, height)
        if short != self.n_px:
            width, height = int(self.n_px * width / short), int(self.n_px * height / short)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - self.n_px) / 2.0), round((height - self.n_px) / 2.0)
        image = image.crop((left, top, left + self.n_px, top + self.n_px)).convert("RGB")
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255  # (3, H, W)
        return (pixels - self.mean) / self.std

    def __repr__(self) -> str:
        return f"Preprocess(n_px={self.n_px}, bicubic, mean={PIXEL_MEAN}, std={PIXEL_STD})"


def _transform(n_px: int) -> _Preprocess:
    return _Preprocess(n_px)


def load(
    name: str | os.PathLike[str],
    device: str | torch.device | None = None,
    jit: bool = False,
    download_root: str | None = None,
) -> tuple[CLIP, _Preprocess]:
    """A CLIP model and the preprocessing of its images.

    Args:
        name: one of `available_models()`, or a file of weights in OpenAI's layout.
        device: where the model goes; the GPU if there is one, by default.
        jit: OpenAI's package can return its TorchScript archive; this one cannot.
        download_root: cache folder of the weights; `~/.cache/clip` by default.

    Returns:
        The model in eval mode, in fp16 on a GPU and in fp32 on a CPU; a callable PIL image -> (3, H, W).

    Raises:
        ValueError: unknown name, a file that is not a CLIP's, or `jit`.
        FileNotFoundError: the weights are nowhere.
    """
    if jit:
        raise ValueError("jit=True is not supported: load with jit=False, which gives a module with the same weights")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = from_state_dict(load_state_dict(name, download_root))
    if device.type != "cpu":
        convert_weights(model)
    model = model.to(device).eval()
    return model, _transform(model.visual.input_resolution)


def tokenize(texts: str | Sequence[str], context_length: int = 77, truncate: bool = False) -> Tensor:
    """Token ids (N, context_length), int32: start of text, the text, end of text, zeros.

    Args:
        texts: a text, or N of them.
        truncate: cut a text that is too long, its last token replaced by the end of text.

    Raises:
        ValueError: a text does not fit and `truncate` is False.
    """
    texts = [texts] if isinstance(texts, str) else texts
    start, end = _tokenizer.encoder[START_OF_TEXT], _tokenizer.encoder[END_OF_TEXT]
    result = torch.zeros(len(texts), context_length, dtype=torch.int32)
    for row, text in zip(result, texts, strict=True):
        ids = [start, *_tokenizer.encode(text), end]
        if len(ids) > context_length:
            if not truncate:
                raise ValueError(
                    f"a text of {len(ids)} tokens does not fit the context length of {context_length}: {text!r}; "
                    "shorten it or pass truncate=True"
                )
            ids = [*ids[: context_length - 1], end]
        row[: len(ids)] = torch.tensor(ids)
    return result

"""A frozen CLIP that something is learned in: logits of images over the classes.

Letters: B images, K classes, N texts, E joint width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from clip.model import CLIP, add_vision_prompts
from clip.packing import PackedPrompts, index_tokens
from clip.transformer import OWN, VisionTransformer

from .prompts import ContextLearner, fixed_prompts, initial_words, tokenize


def unit(x: Tensor) -> Tensor:
    """`x` in fp32 with every row (last dimension) of length one."""
    return F.normalize(x.float(), dim=-1)


def without_autocast(device: torch.device) -> torch.autocast:
    """The context for logits: a hundred times a cosine, they need all of fp32's digits."""
    return torch.autocast(device.type, enabled=False)


def without_prompts(image_encoder: nn.Module, image: Tensor) -> Tensor:
    """Image features (B, E), not normalised, of a tower without prompt tokens, its own or others."""
    return image_encoder(image, *((None, None) if isinstance(image_encoder, VisionTransformer) else ()))


class FrozenTowersCLIP(nn.Module):
    """exp(logit_scale) · image feature · text featureᵀ, both normalised. Subclasses give `compute_text_features`.

    Text features are kept while nothing that they depend on changes: over an evaluation, or, where the text has
    nothing to learn, over training. They are taken to depend on every parameter and buffer outside the image tower.
    """

    #: Names of modules and parameters outside the image tower that the text features do not depend on
    not_in_text: tuple[str, ...] = ()
    #: A forward pass may be part of a CUDA graph: it reads no values and draws nothing on the host
    capturable = True

    def __init__(self, clip_model: CLIP):
        super().__init__()
        self.image_encoder = clip_model.visual
        self.text_encoder = clip_model.text_encoder()
        self.logit_scale = clip_model.logit_scale
        self._pretrained = {name for name, t in self.state_dict(keep_vars=True).items() if not t.requires_grad}
        self._kept: tuple[Any, Tensor] | None = None
        self._once: list[tuple[Tensor, Tensor]] | None = None

    def compute_text_features(self) -> Tensor:
        """(K, E), normalised."""
        raise NotImplementedError

    def text_tensors(self) -> list[Tensor]:
        """The parameters and buffers that the text features may depend on."""
        free = {"image_encoder", "logit_scale", *self.not_in_text}
        tensors = [t for name, t in (self._parameters | self._buffers).items() if name not in free and t is not None]
        for name, child in self._modules.items():  # not named_parameters: this runs in every step
            if name not in free and child is not None:
                tensors += [*child.parameters(), *child.buffers()]
        return tensors

    def text_features(self) -> Tensor:
        """(K, E), normalised; computed once per state of what they depend on."""
        tensors = self.text_tensors()
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            return self._learned_text_features()
        state = [(t.data_ptr(), t._version) for t in tensors]
        if self._kept is None or self._kept[0] != state:
            with torch.no_grad():
                self._kept = (state, self.compute_text_features())
        return self._kept[1]

    def _learned_text_features(self) -> Tensor:
        if self._once is None:
            return self.compute_text_features()
        if not self._once:
            features = self.compute_text_features()
            self._once.append((features, features.detach().requires_grad_()))
        return self._once[0][1]

    @contextmanager
    def text_features_once(self) -> Iterator[None]:
        """Within it, learned text features are computed once; at its end, their gradients reach what is learned.

        For several losses with a backward pass each, whose gradients add up. The text tower's activations are kept
        until the end.
        """
        self._once = []
        try:
            yield
            for features, copy in self._once:
                if copy.grad is not None:
                    features.backward(copy.grad)
        finally:
            self._once = None

    def kept_text_features(self) -> Tensor | None:
        """The text features that are kept, if there are any."""
        return None if self._kept is None else self._kept[1]

    def forget_text_features(self) -> None:
        self._kept = None

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, E), not normalised, in the precision of the tower."""
        return self.image_encoder(image)

    def frozen_images(self) -> bool:
        """Whether `encode_image` gives what the pretrained image tower does: nothing that is learned changes it."""
        pretrained = {id(tensor) for tensor in self.pretrained_tensors()}
        tensors = [*self.image_encoder.parameters(), *self.image_encoder.buffers()]
        return all(id(tensor) in pretrained and not tensor.requires_grad for tensor in tensors)

    def adapt_image(self, features: Tensor) -> Tensor:
        """The normalised features (B, E) that are compared with texts, of those (B, E) that `encode_image` gave."""
        return unit(features)

    def image_features(self, image: Tensor) -> Tensor:
        """(B, E), normalised."""
        return self.adapt_image(self.encode_image(image))

    @torch.no_grad()
    def without_prompts(self, image: Tensor) -> Tensor:
        """Image features (B, E), normalised, of the pretrained tower: no prompt tokens, no gradient."""
        return unit(without_prompts(self.image_encoder, image))

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """(B, K) in fp32 of normalised features (B, E) and (K, E)."""
        with without_autocast(image_features.device):
            return self.logit_scale.exp().float() * image_features @ text_features.t()

    def from_features(self, features: Tensor) -> Tensor:
        """Logits (B, K) in fp32 of features (B, E) that `encode_image` gave."""
        return self.logits(self.adapt_image(features), self.text_features())

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K) in fp32 of images (B, 3, H, W)."""
        return self.from_features(self.encode_image(image))

    def draw_as_published(self) -> list[nn.Parameter]:
        """Draw what is learned outside the towers anew, in the order of the published code; returns what it drew."""
        learners = [child for child in self.children() if isinstance(child, ContextLearner)]
        return [parameter for learner in learners for parameter in learner.draw_as_published()]

    def pretrained_tensors(self) -> list[Tensor]:
        """CLIP's own parameters and buffers, which are frozen."""
        return [t for name, t in self.state_dict(keep_vars=True).items() if name in self._pretrained]

    def train(self, mode: bool = True) -> FrozenTowersCLIP:
        """BatchNorm stays in eval mode: a frozen ResNet's running statistics are not touched."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        self._kept = None
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> FrozenTowersCLIP:
        self._kept = None
        return super()._apply(fn, recurse)


def owner(kind: type, name: str) -> type:
    """The class that a class has an attribute from."""
    return next(base for base in kind.__mro__ if name in vars(base))


def scores_features(model: nn.Module) -> bool:
    """Whether a model's logits are those of `encode_image`'s features, and `frozen_images` speaks about that method."""
    kind = type(model)
    if not isinstance(model, FrozenTowersCLIP) or owner(kind, "forward") is not FrozenTowersCLIP:
        return False
    return issubclass(owner(kind, "frozen_images"), owner(kind, "encode_image"))


class PromptedCLIP(FrozenTowersCLIP):
    """Text and image prompts from a prompt learner."""

    def __init__(self, clip_model: CLIP, prompt_learner: ContextLearner):
        super().__init__(clip_model)
        self.prompt_learner = prompt_learner

    def encode_text(self) -> Tensor:
        """(K, E), not normalised, in the precision of the tower."""
        embeddings, deep = self.prompt_learner.text_prompts()
        return self.text_encoder(embeddings, self.prompt_learner.layout, deep)

    def encode_image(self, image: Tensor) -> Tensor:
        ctx, deep = self.prompt_learner.vision_prompts()
        if ctx is OWN and deep is OWN:  # also a ResNet, which takes no prompts
            return self.image_encoder(image)
        return self.image_encoder(image, ctx, deep)

    def frozen_images(self) -> bool:
        ctx, deep = self.prompt_learner.vision_prompts()
        return ctx is OWN and deep is OWN and super().frozen_images()

    def compute_text_features(self) -> Tensor:
        return unit(self.encode_text())


class FixedTexts(nn.Module):
    """N fixed texts, ready for the text tower."""

    token_embeddings: Tensor  # (U, Dt)

    def __init__(self, clip_model: CLIP, texts: Sequence[str]):
        super().__init__()
        vocabulary, sequences = index_tokens(tokenize(texts))
        self.layout = PackedPrompts(sequences)
        embeddings = clip_model.token_embedding(torch.tensor(vocabulary)).detach()
        self.register_buffer("token_embeddings", embeddings, persistent=False)


class FixedTextCLIP(FrozenTowersCLIP):
    """Hand-written prompts. A class's feature is the mean of its normalised features, normalised again.

    Args:
        texts: for each template the prompts of the K classes.
    """

    def __init__(self, clip_model: CLIP, texts: Sequence[Sequence[str]]):
        super().__init__(clip_model)
        self.texts = nn.ModuleList(FixedTexts(clip_model, of_template) for of_template in texts)

    def compute_text_features(self) -> Tensor:
        features = [unit(self.text_encoder(t.token_embeddings, t.layout)) for t in self.texts]  # each (K, E)
        return unit(torch.stack(features).mean(dim=0))


def independently_prompted(
    clip_model: CLIP,
    classnames: Sequence[str],
    ctx_init: str,
    n_ctx: tuple[int, int],
    depth: tuple[int, int],
) -> FrozenTowersCLIP:
    """IVLP's model, which later methods build on: each tower has prompts of its own, independent of the other's.

    Args:
        n_ctx, depth: prompt tokens and prompted layers of the text and of the image tower; 0 prompts neither.

    Raises:
        ValueError: both towers are without prompts, or the image tower of a ResNet has some.
    """
    text, vision = (n > 0 and layers > 0 for n, layers in zip(n_ctx, depth, strict=True))
    if not (text or vision):
        raise ValueError("IVLP has nothing to learn: set PROMPT_DEPTH_VISION or PROMPT_DEPTH_TEXT to at least 1")
    if vision:
        add_vision_prompts(clip_model, n_ctx[1], depth[1])
    if not text:
        return FixedTextCLIP(clip_model, [fixed_prompts(ctx_init, classnames)])
    return PromptedCLIP(clip_model, deep_context(clip_model, classnames, ctx_init, n_ctx[0], depth[0]))


def deep_context(clip_model: CLIP, classnames: Sequence[str], ctx_init: str, n_ctx: int, depth: int) -> ContextLearner:
    """IVLP's text prompts: a context at the input, and tokens that the text tower holds for blocks 1 … depth-1."""
    clip_model.transformer.add_prompts(n_ctx, depth)
    return ContextLearner(classnames, clip_model, n_ctx, initial_words(ctx_init, n_ctx))

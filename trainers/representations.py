"""The model of MMRL and MMRL++: tokens in both towers, and a second image feature that is read from them.

Letters: B images, K classes, n representation tokens, R their width, J layers that they enter, r rank, D width of a
tower (Dt text, Dv vision), E joint width.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clip.layout import PromptTokens
from clip.model import CLIP, require_vit
from clip.transformer import PROMPT_STD, VisionTransformer, check_prompt_length

from .prompted_clip import FixedTexts, FrozenTowersCLIP, unit, without_autocast
from .teacher import TextTeacher

SCALE = 100.0  # of the cosines in the logits, whatever the backbone's logit_scale


class SeparateMaps(nn.ModuleList):
    """MMRL: a linear map for each of J layers. All start as copies of one."""

    def __init__(self, R: int, D: int, J: int):
        first = nn.Linear(R, D)
        super().__init__(copy.deepcopy(first) for _ in range(J))

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """J tensors (n, D) of tokens (n, R)."""
        return [project(tokens) for project in self]


class Residual(nn.Module):
    """The map of one layer: what it adds to a shared matrix, of rank r, and its bias."""

    def __init__(self, R: int, D: int, r: int, bias: Tensor):
        super().__init__()
        self.A, self.B = low_rank(D, r, R)
        self.bias = nn.Parameter(bias.detach().clone())

    def forward(self, tokens: Tensor, shared: Tensor) -> Tensor:
        """(n, D) of tokens (n, R) and the shared matrix (D, R)."""
        return F.linear(tokens, shared + self.A @ self.B, self.bias)


class SharedMaps(nn.Module):
    """MMRL++: the maps of J layers share a matrix (D, R), to which each adds one of rank r."""

    def __init__(self, R: int, D: int, J: int, r: int):
        super().__init__()
        first = nn.Linear(R, D)
        self.weight = first.weight
        self.srra = nn.ModuleList(Residual(R, D, r, first.bias) for _ in range(J))

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """J tensors (n, D) of tokens (n, R)."""
        return [own(tokens, self.weight) for own in self.srra]


def low_rank(rows: int, rank: int, columns: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Factors (rows, rank) and (rank, columns), drawn as a Linear's weight and zeros: their product starts as zero."""
    A = nn.Parameter(torch.empty(rows, rank))
    nn.init.kaiming_uniform_(A, a=math.sqrt(5))
    return A, nn.Parameter(torch.zeros(rank, columns))


class RepresentationLearner(nn.Module):
    """Tokens (n, R), and their maps into the towers, under the names of the published checkpoints.

    Args:
        names: of the maps into the image tower and into the text tower.
    """

    def __init__(self, n: int, R: int, names: tuple[str, str], vision: nn.Module, text: nn.Module):
        super().__init__()
        check_prompt_length(n)
        self.compound_rep_tokens = nn.Parameter(torch.randn(n, R) * PROMPT_STD)
        self._names = names
        for name, maps in zip(names, (vision, text), strict=True):
            self.add_module(name, maps)

    def vision_tokens(self) -> list[Tensor]:
        """J tensors (n, Dv)."""
        return self.get_submodule(self._names[0])(self.compound_rep_tokens)

    def text_tokens(self) -> list[Tensor]:
        """J tensors (n, Dt)."""
        return self.get_submodule(self._names[1])(self.compound_rep_tokens)


def check_layers(layers: Sequence[int], clip_model: CLIP) -> list[int]:
    """`layers`, counted from 1; a ValueError unless they ascend and both towers have them."""
    most = min(clip_model.transformer.layers, require_vit(clip_model).transformer.layers)
    if list(layers) != sorted(set(layers)) or not 1 <= min(layers, default=0) <= max(layers, default=0) <= most:
        raise ValueError(
            f"REP_LAYERS is {list(layers)}, expected ascending layers of a tower of {most} layers, counted from 1, such"
            f" as {list(range(most // 2 + 1, most + 1))}"
        )
    return list(layers)


class RepresentationCLIP(FrozenTowersCLIP):
    """A CLIP with representation tokens after the first token of each tower, and two heads.

    The class head reads CLIP's own image feature from the class token, the representation head another one from the
    mean of the n tokens. The text feature is the same for both.

    Args:
        prompts: of the K classes.
        layers: blocks, counted from 1. Before the first of them the tokens are inserted, before each other one a new
            set takes their place.
        alpha: share of the class head in the fusion of the two.
        beta: share of the new set in the tokens; the rest is what the tokens before have become.
    """

    image_encoder: VisionTransformer

    def __init__(
        self,
        clip_model: CLIP,
        learner: RepresentationLearner,
        prompts: Sequence[str],
        layers: Sequence[int],
        alpha: float,
        beta: float = 1.0,
    ):
        super().__init__(clip_model)
        self.representation_learner = learner
        self.texts = FixedTexts(clip_model, prompts)
        self.teacher = TextTeacher(clip_model, [prompts])
        self.layers, self.alpha, self.beta = layers, alpha, beta
        self.fused = True  # False: the class head is all there is

    def entering(self, tokens: Iterable[Tensor]) -> dict[int, PromptTokens]:
        """What enters a tower before each of the J layers, by block."""
        first, *later = zip(self.layers, tokens, strict=True)
        replaced = {layer - 1: PromptTokens(own, position=1, weight=self.beta) for layer, own in later}
        return {first[0] - 1: PromptTokens(first[1], position=1, insert=True), **replaced}

    def compute_text_features(self) -> Tensor:
        entering = self.entering(self.representation_learner.text_tokens())
        return unit(self.text_encoder(self.texts.token_embeddings, self.texts.layout, entering))

    def teacher_features(self) -> Tensor:
        """Text features (K, E), normalised, of the pretrained tower."""
        return self.teacher.features(self.text_encoder)

    def projection(self) -> Tensor:
        """The representation head's matrix (Dv, E), in fp32."""
        return self.image_encoder.get_parameter("proj_rep")

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, 2, E), not normalised, in fp32: for the class head, and for the representation head."""
        tower, tokens = self.image_encoder, self.representation_learner.vision_tokens()
        n = tokens[0].shape[0]
        x = tower.ln_post(tower.encode(image, None, self.entering(tokens), pooled=1 + n))  # (B, 1 + n, Dv)
        of_class, of_tokens = x[:, 0] @ tower.proj, x[:, 1:].float().mean(dim=1) @ self.projection()  # (B, E) each
        return torch.stack([of_class.float(), of_tokens.float()], dim=1)

    def adapt_image(self, features: Tensor) -> Tensor:
        """(B, E), normalised, for the class head: the feature that suits any text."""
        return unit(features[:, 0])

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        with without_autocast(image_features.device):
            return SCALE * image_features @ text_features.t()

    def both_logits(self, features: Tensor, text_features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K) of the class head and of the representation head, for features (B, 2, E) and texts' (K, E)."""
        of_class, of_tokens = unit(features).unbind(dim=1)
        return self.logits(of_class, text_features), self.logits(of_tokens, text_features)

    def fuse(self, by_class: Tensor, by_tokens: Tensor) -> Tensor:
        """The logits (B, K) of both heads as one."""
        return self.alpha * by_class + (1 - self.alpha) * by_tokens

    def from_features(self, features: Tensor) -> Tensor:
        by_class, by_tokens = self.both_logits(features, self.text_features())
        return self.fuse(by_class, by_tokens) if self.fused else by_class


class LowRankCLIP(RepresentationCLIP):
    """MMRL++: the representation head's matrix is the pretrained one and an addition of low rank."""

    def projection(self) -> Tensor:
        tower = self.image_encoder
        return tower.proj.float() + tower.get_parameter("A") @ tower.get_parameter("B")

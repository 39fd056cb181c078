"""The teacher of methods that stay close to the pretrained CLIP: the same frozen towers, without prompts.

For images it is `FrozenTowersCLIP.without_prompts`; this module has the texts.

Letters: B images, K classes, E joint width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clip.model import CLIP
from clip.text import TextEncoder

from .prompted_clip import FixedTexts, PromptedCLIP, unit
from .prompts import DEFAULT_TEMPLATE, IMAGENET_TEMPLATES_SELECT, ContextLearner, fill

# The templates of KgCoOp's teacher, where they are not the data set's own.
KGCOOP_TEMPLATES = {"DescribableTextures": "a photo of a {}, a type of texture."}


def template_of(dataset: Any, published: Mapping[str, str]) -> str:
    """The hand-written prompt of a data set: DATASET.TEMPLATE, else the method's published one, else its own.

    Args:
        published: templates by the registered names of data sets.
    """
    own = getattr(dataset, "template", DEFAULT_TEMPLATE)
    return own if "template" in vars(dataset) else published.get(type(dataset).__name__, own)


def texts_as_named(dataset: Any) -> list[list[str]]:
    """For each template the prompts of the K classes, whose names keep their underscores, as TaskRes and CLAP have it.

    The template is the data set's own; for ImageNet seven others are before it.
    """
    templates = IMAGENET_TEMPLATES_SELECT if type(dataset).__name__ == "ImageNet" else []
    templates = [*templates, getattr(dataset, "template", DEFAULT_TEMPLATE)]
    return [[template.format(name) for name in dataset.classnames] for template in templates]


def texts_of_seven(dataset: Any) -> list[list[str]]:
    """For each template the prompts of the K classes, as Tip-Adapter and LP++ have it.

    The template is the data set's own. ImageNet and its variants have seven others, unless DATASET.TEMPLATE is set.
    """
    seven = type(dataset).__name__.startswith("ImageNet") and "template" not in vars(dataset)
    templates = IMAGENET_TEMPLATES_SELECT if seven else [getattr(dataset, "template", DEFAULT_TEMPLATE)]
    return [fill(template, dataset.classnames) for template in templates]


class TextTeacher:
    """Text features of K classes as the towers give them without prompts, computed when first asked for.

    They take a pass over all texts, which an evaluation does not need, and are kept for the rest of the run.

    Args:
        clip_model: the backbone, in the precision that its towers compute in.
        texts: for each template the prompts of the K classes.
    """

    def __init__(self, clip_model: CLIP, texts: Sequence[Sequence[str]]):
        self._clip_model, self._texts = clip_model, texts
        self._features: Tensor | None = None

    def features(self, text_encoder: TextEncoder) -> Tensor:
        """(K, E) on the device of the text tower: the mean of the raw features over the templates, normalised."""
        device = text_encoder.text_projection.device
        if self._features is None or self._features.device != device:
            self._features = unit(self.mean_features(text_encoder))
        return self._features

    def mean_features(self, text_encoder: TextEncoder) -> Tensor:
        """Raw features (K, E), in fp32: the mean over the templates. Computed at every call."""
        total = sum(self.encode(texts, text_encoder) for texts in self._texts)
        return torch.as_tensor(total) / len(self._texts)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], text_encoder: TextEncoder) -> Tensor:
        """Raw features (N, E), in fp32, of N texts."""
        fixed = FixedTexts(self._clip_model, texts).to(text_encoder.text_projection.device)
        return text_encoder(fixed.token_embeddings, fixed.layout, None).float()


def text_distance(text_features: Tensor, teacher: Tensor) -> Tensor:
    """One minus the mean cosine of the normalised features (K, E) of the same classes."""
    return 1 - (text_features * teacher).sum(dim=-1).mean()


class GuidedCLIP(PromptedCLIP):
    """Learned text prompts whose features are held close to those of hand-written templates.

    Args:
        templates: of the teacher's texts, with {} in place of the class name.
    """

    def __init__(self, clip_model: CLIP, prompt_learner: ContextLearner, classnames: Sequence[str], *templates: str):
        super().__init__(clip_model, prompt_learner)
        self.teacher = TextTeacher(clip_model, [fill(template, classnames) for template in templates])

    def teacher_features(self) -> Tensor:
        """(K, E), normalised."""
        return self.teacher.features(self.text_encoder)

    def logits_and_distance(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) of images (B, 3, H, W), and the distance of the text features from the teacher's."""
        text = self.text_features()
        return self.logits(self.image_features(image), text), text_distance(text, self.teacher_features())

    def draw_as_published(self) -> list[nn.Parameter]:
        """None: where in its sequence the published code builds the teacher's CLIP is not known here."""
        return []

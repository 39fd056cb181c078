"""A toy in the style of a cache on features: similar training images vote for their classes."""

import torch
from torch import nn
from torch.nn import functional as F
from yacs.config import CfgNode

from trainers.base import ClipTrainer
from trainers.prompted_clip import FixedTextCLIP
from trainers.prompts import fill


class CachedCLIP(FixedTextCLIP):
    """Zero-shot logits plus exp(-beta (1 - cosine)) of the keys (N, E) times their labels, one-hot (N, K)."""

    not_in_text = ("keys", "values")

    def __init__(self, clip_model, texts, size, beta=5.5):
        super().__init__(clip_model, texts)
        self.beta = beta
        self.keys = nn.Parameter(torch.zeros(size, clip_model.visual.output_dim))
        self.register_buffer("values", torch.zeros(size, len(texts[0])))

    def from_features(self, features):
        features = self.adapt_image(features)
        votes = torch.exp(-self.beta * (1 - features @ self.keys.t())) @ self.values
        return self.logits(features, self.text_features()) + votes


class ToyCache(ClipTrainer):
    """Learned: the keys, which start from the training images' features."""

    config_node = "TOY"
    registered_name = "toy_cache"

    @classmethod
    def build(cls, options: CfgNode, dataset, clip_model):
        texts = [fill("a photo of a {}.", dataset.classnames)]
        return CachedCLIP(clip_model, texts, len(dataset.train_x))

    def fit(self):
        features, labels = self.train_features()
        with torch.no_grad():
            self.model.keys.copy_(features)
            self.model.values.copy_(F.one_hot(labels, self.num_classes))

"""A toy in the style of distillation: prompts in both towers stay close to what CLIP gives without them."""

import torch
from yacs.config import CfgNode

import clip
from trainers.base import ClipTrainer
from trainers.prompted_clip import independently_prompted, unit
from trainers.prompts import fill


class ToyDistillation(ClipTrainer):
    """Learned: prompts of both towers. Their mean over the steps, a frozen copy that changes, is what a run keeps."""

    config_node = "TOY"
    registered_name = "toy_distillation"

    @classmethod
    def build(cls, options: CfgNode, dataset, clip_model):
        teacher_text = unit(clip_model.encode_text(clip.tokenize(fill("a photo of a {}.", dataset.classnames))))
        model = independently_prompted(clip_model, dataset.classnames, "a photo of a", (2, 2), (3, 3))
        model.register_buffer("teacher_text", teacher_text, persistent=False)
        model.mean_ctx = torch.nn.Parameter(model.prompt_learner.ctx.detach().clone(), requires_grad=False)
        model.register_buffer("steps", torch.zeros(()))
        return model

    def losses(self, image, label):
        teacher = self.model.without_prompts(image)
        image_features, text_features = self.model.image_features(image), self.model.text_features()
        logits = self.model.logits(image_features, text_features)
        return logits, {
            "ce": self.cross_entropy(logits, label),
            "scl_image": 10 * (image_features - teacher).abs().mean(),
            "scl_text": 25 * (text_features - self.model.teacher_text).abs().mean(),
        }

    def update(self, terms):
        loss = super().update(terms)
        with torch.no_grad():
            self.model.steps += 1
            self.model.mean_ctx.lerp_(self.model.prompt_learner.ctx, 1 / self.model.steps)
        return loss

"""Zero-shot CLIP with hand-written prompts (Radford et al. 2021, section 3.1.4), as CoOp evaluates it."""

from __future__ import annotations

from yacs.config import CfgNode

from clip.model import CLIP
from dassl.engine import TRAINER_REGISTRY

from .base import PromptTrainer
from .prompted_clip import FixedTextCLIP
from .prompts import readable

# For datasets that bring no template of their own.
DEFAULT_TEMPLATE = "a photo of a {}."

# The seven templates that work best together on ImageNet, named in the notebook "Prompt Engineering for ImageNet"
# of OpenAI's CLIP repository.
IMAGENET_TEMPLATES_SELECT = [
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
]


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.ZSCLIP = CfgNode()
    cfg.TRAINER.ZSCLIP.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(PromptTrainer):
    """The dataset's own template; nothing is learned."""

    node = "ZSCLIP"

    def templates(self) -> list[str]:
        return [getattr(self.dm.dataset, "template", DEFAULT_TEMPLATE)]

    def build_prompted_clip(self, options: CfgNode, classnames: list[str], clip_model: CLIP) -> FixedTextCLIP:
        templates = self.templates()
        print(f"Prompts: {templates}")
        return FixedTextCLIP(clip_model, [[t.format(readable(c)) for c in classnames] for t in templates])

    def train(self) -> None:  # type: ignore[override]
        """Nothing to train: test only."""
        print("Zero-shot CLIP learns nothing: testing at once")
        self.final_test()

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Nothing to load."""


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(ZeroshotCLIP):
    """The mean feature over seven ImageNet templates and, except for ImageNet itself, the dataset's own."""

    def templates(self) -> list[str]:
        own = [] if self.cfg.DATASET.NAME == "ImageNet" else super().templates()
        return IMAGENET_TEMPLATES_SELECT + own

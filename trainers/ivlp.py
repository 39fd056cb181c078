"""IVLP: independent vision-language prompting, MaPLe without its coupling (Khattak et al., CVPR 2023, table 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yacs.config import CfgNode

from clip.model import CLIP
from dassl.config.checks import text, whole
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.state import has_part

from .base import ClipTrainer
from .checkpoint import TEACHER_TOWER, independent_options
from .precision import PRECISIONS
from .prompted_clip import FrozenTowersCLIP, independently_prompted


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.IVLP = CfgNode()
    cfg.TRAINER.IVLP.N_CTX_VISION = 2  # prompt tokens in the image tower; 0 switches its prompts off
    cfg.TRAINER.IVLP.N_CTX_TEXT = 2  # prompt tokens in the text tower
    cfg.TRAINER.IVLP.CTX_INIT = "a photo of a"  # words whose first N_CTX_TEXT tokens start the context; "" is random
    cfg.TRAINER.IVLP.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp
    cfg.TRAINER.IVLP.PROMPT_DEPTH_VISION = 9  # layers with prompts of their own; 0: language prompting alone
    cfg.TRAINER.IVLP.PROMPT_DEPTH_TEXT = 9  # layers with prompts of their own; 0: vision prompting alone


declare_ranges(
    "TRAINER.IVLP",
    N_CTX_VISION=whole(0, 1000),
    N_CTX_TEXT=whole(0, 73),
    CTX_INIT=text(),
    PREC=PRECISIONS,
    PROMPT_DEPTH_VISION=whole(0, 100),
    PROMPT_DEPTH_TEXT=whole(0, 100),
)


@TRAINER_REGISTRY.register()
class IVLP(ClipTrainer):
    """Learned: `ctx` and the tokens that the two towers own, each side by itself."""

    config_node = "IVLP"
    registered_name = "VLPromptLearner"

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> FrozenTowersCLIP:
        n_ctx = options.N_CTX_TEXT, options.N_CTX_VISION
        depth = options.PROMPT_DEPTH_TEXT, options.PROMPT_DEPTH_VISION
        return independently_prompted(clip_model, dataset.classnames, options.CTX_INIT, n_ctx, depth)

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        taught = any(has_part(name, (TEACHER_TOWER,)) for name in shapes)
        return None if taught else independent_options(shapes)

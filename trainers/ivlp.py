"""IVLP: independent vision-language prompting, MaPLe without its coupling (Khattak et al., CVPR 2023, table 1)."""

from __future__ import annotations

from yacs.config import CfgNode

from clip.model import CLIP, add_vision_prompts
from dassl.engine import TRAINER_REGISTRY

from .base import PromptTrainer
from .prompted_clip import FixedTextCLIP, FrozenTowersCLIP, PromptedCLIP
from .prompts import ContextLearner, fixed_prompts, words_to_learn


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.IVLP = CfgNode()
    cfg.TRAINER.IVLP.N_CTX_VISION = 2  # prompt tokens in the image tower; 0 switches its prompts off
    cfg.TRAINER.IVLP.N_CTX_TEXT = 2  # prompt tokens in the text tower
    cfg.TRAINER.IVLP.CTX_INIT = "a photo of a"  # words whose first N_CTX_TEXT tokens start the context; "" is random
    cfg.TRAINER.IVLP.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp
    cfg.TRAINER.IVLP.PROMPT_DEPTH_VISION = 9  # layers with prompts of their own; 0: language prompting alone
    cfg.TRAINER.IVLP.PROMPT_DEPTH_TEXT = 9  # layers with prompts of their own; 0: vision prompting alone


@TRAINER_REGISTRY.register()
class IVLP(PromptTrainer):
    """Learned: `ctx` and the tokens that the two towers own, each side by itself."""

    node = "IVLP"
    registered_name = "VLPromptLearner"

    def build_prompted_clip(self, options: CfgNode, classnames: list[str], clip_model: CLIP) -> FrozenTowersCLIP:
        vision = options.PROMPT_DEPTH_VISION > 0 and options.N_CTX_VISION > 0
        text = options.PROMPT_DEPTH_TEXT > 0 and options.N_CTX_TEXT > 0
        if not (vision or text):
            raise ValueError("IVLP has nothing to learn: set PROMPT_DEPTH_VISION or PROMPT_DEPTH_TEXT to at least 1")
        if vision:
            add_vision_prompts(clip_model, options.N_CTX_VISION, options.PROMPT_DEPTH_VISION)
        if not text:
            return FixedTextCLIP(clip_model, [fixed_prompts(options.CTX_INIT, classnames)])
        clip_model.transformer.add_prompts(options.N_CTX_TEXT, options.PROMPT_DEPTH_TEXT)
        ctx_init = words_to_learn(options.CTX_INIT, options.N_CTX_TEXT)
        return PromptedCLIP(clip_model, ContextLearner(classnames, clip_model, options.N_CTX_TEXT, ctx_init))

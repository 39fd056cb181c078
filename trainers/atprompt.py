"""ATPrompt: textual-based attribute prompts, on CoOp or MaPLe (Li et al., ICCV 2025, arXiv 2412.09442).

Letters: A attributes, N tokens before each of them, M context tokens, J prompt depth, Dt text width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from clip.layout import PromptTokens
from clip.model import CLIP
from clip.packing import PackedPrompts, index_tokens
from dassl.config.checks import list_of, one_of, text, whole
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY

from .coupled import MultiModalPromptLearner
from .on_base import MethodOnBase
from .prompted_clip import PromptedCLIP
from .prompts import ContextLearner, readable, tokenize

ATT_STD = 0.01  # tokens before attributes start as N(0, 0.01)
MOST = 3  # attributes

_IMAGENET = ("color", "shape")
# The attributes that the authors' search chose, by registered data set (their train.py)
ATTRIBUTES = {
    "ImageNet": _IMAGENET,
    "ImageNetV2": _IMAGENET,
    "ImageNetSketch": _IMAGENET,
    "ImageNetA": _IMAGENET,
    "ImageNetR": _IMAGENET,
    "Caltech101": ("shape", "size"),
    "OxfordPets": ("playfulness", "energy"),
    "StanfordCars": ("luxury",),
    "OxfordFlowers": ("color", "habitat", "growth"),
    "Food101": ("flavor", "preparation"),
    "FGVCAircraft": ("design", "range"),
    "SUN397": ("function",),
    "DescribableTextures": ("pattern", "color", "design"),
    "EuroSAT": ("habitat",),
    "UCF101": ("precision",),
}


def extend_cfg(cfg: CfgNode) -> None:
    """The base's node has N_CTX and PREC; its CTX_INIT is not used, as the context starts random."""
    cfg.TRAINER.ATPROMPT = CfgNode()
    cfg.TRAINER.ATPROMPT.BASE = "CoOp"  # the method that gets attributes: CoOp, MaPLe
    cfg.TRAINER.ATPROMPT.ATTRIBUTES = []  # one to three words; empty: those published for the dataset
    cfg.TRAINER.ATPROMPT.N_ATT = 0  # tokens before each attribute; 0: as many as the base's N_CTX


declare_ranges(
    "TRAINER.ATPROMPT",
    BASE=one_of("CoOp", "MaPLe"),
    ATTRIBUTES=list_of(text()),
    N_ATT=whole(1, 73, or_else={0: "as many as N_CTX"}),
)


def attributes_of(dataset: Any, given: Sequence[str]) -> Sequence[str]:
    """The attributes given, or those published for the data set.

    Raises:
        ValueError: none are known, there are more than three, or one that is not published has several tokens.
    """
    name = type(dataset).__name__
    key = "TRAINER.ATPROMPT.ATTRIBUTES"
    attributes = [readable(attribute) for attribute in given] or ATTRIBUTES.get(name)
    if attributes is None:
        raise ValueError(
            f"no attributes are published for {name}: give one to three words, such as {key} \"['color']\""
        )
    if len(attributes) > MOST:
        raise ValueError(f"{key} has {len(attributes)} entries, expected one to {MOST}")
    published = {attribute for of_dataset in ATTRIBUTES.values() for attribute in of_dataset}
    for attribute, ids in zip(attributes, tokenize(attributes), strict=True):
        if len(ids) != 3 and attribute not in published:
            raise ValueError(
                f"{key}: {attribute!r} is {len(ids) - 2} tokens, expected a word that is one token of CLIP's"
            )
    return attributes


class AttributeContext(ContextLearner):
    """The prompts "<N tokens> attribute … <M tokens> <class name>.".

    `ctx_att1` … `ctx_att3` (N, Dt) are in every checkpoint, since data sets differ in their number of attributes; those
    that the attributes at hand do not use are buffers.
    """

    attributes: Sequence[str]

    def add_attributes(
        self, classnames: Sequence[str], clip_model: CLIP, attributes: Sequence[str], n_att: int
    ) -> AttributeContext:
        """Put the attributes, with learned tokens before each of them, between SOS and the context."""
        M, Dt = self.ctx.shape
        self.attributes = attributes
        parts = [*(("X " * n_att) + attribute for attribute in attributes), " ".join("X" * M)]
        texts = [" ".join([*parts, f"{readable(name)}."]) for name in classnames]
        vocabulary, self.sequences = index_tokens(tokenize(texts))
        # Published code takes each attribute to be one token. "playfulness" is two, so that what follows it is off by
        # one and the last attribute is overwritten; the published numbers of OxfordPets are with that.
        self.ctx_position = 1 + len(attributes) * (n_att + 1)
        starts = [1 + i * (n_att + 1) for i in range(len(attributes))]
        learned = [position for start in starts for position in range(start, start + n_att)]
        learned += range(self.ctx_position, self.ctx_position + M)
        for tokens in self.sequences:
            for row, position in enumerate(learned, start=len(vocabulary)):
                tokens[position] = row
        self.layout = PackedPrompts(self.sequences)
        embeddings = clip_model.token_embedding(torch.tensor(vocabulary)).detach()
        self.register_buffer("token_embeddings", embeddings, persistent=False)
        for i in range(1, MOST + 1):
            tokens_before = torch.randn(n_att, Dt) * ATT_STD
            if i <= len(attributes):
                self.register_parameter(f"ctx_att{i}", nn.Parameter(tokens_before))
            else:
                self.register_buffer(f"ctx_att{i}", tokens_before)
        return self

    def embeddings(self) -> Tensor:
        """(U + A N + M, Dt): the tokens' embeddings, then the learned tokens in the order of the prompt."""
        before = [self.get_parameter(f"ctx_att{i}") for i in range(1, len(self.attributes) + 1)]
        dtype = self.token_embeddings.dtype
        return torch.cat([self.token_embeddings, *(tokens.to(dtype) for tokens in (*before, self.ctx))])


class AttributeMaPLe(AttributeContext, MultiModalPromptLearner):
    """MaPLe's learner. Before text block i, 1 ≤ i ≤ J-1, the context alone is replaced, the attributes flow on."""

    def text_prompts(self) -> tuple[Tensor, Mapping[int, PromptTokens]]:
        deep = enumerate(self.compound_prompts_text, start=1)
        return self.embeddings(), {i: PromptTokens(tokens, self.ctx_position) for i, tokens in deep}


@TRAINER_REGISTRY.register()
class ATPrompt(MethodOnBase):
    """Learned: the base's prompts, and N tokens before each attribute."""

    config_node = "ATPROMPT"
    folders = {"CoOp": "prompt_learner", "MaPLe": "MultiModalPromptLearner"}
    not_loaded = (*MethodOnBase.not_loaded, "token_middle1", "token_middle2", "token_middle3")

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> PromptedCLIP:
        names, n_ctx = dataset.classnames, options.N_CTX
        n_att = options.N_ATT or n_ctx
        learner: AttributeContext
        if options.BASE == "MaPLe":
            if n_att != n_ctx:
                raise ValueError(f"TRAINER.ATPROMPT.N_ATT is {n_att}: on MaPLe it must be 0 or N_CTX, which is {n_ctx}")
            learner = AttributeMaPLe(names, clip_model, n_ctx, "", options.PROMPT_DEPTH)
        else:
            if options.CSC or options.CLASS_TOKEN_POSITION != "end":
                raise ValueError("ATPrompt needs TRAINER.COOP.CSC False and TRAINER.COOP.CLASS_TOKEN_POSITION end")
            learner = AttributeContext(names, clip_model, n_ctx)
        attributes = attributes_of(dataset, options.ATTRIBUTES)
        return PromptedCLIP(clip_model, learner.add_attributes(names, clip_model, attributes, n_att))

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        base, prefix = ("CoOp", "") if "ctx_att1" in shapes else ("MaPLe", "prompt_learner.")
        ctx, before = (shapes.get(f"{prefix}{name}", ()) for name in ("ctx", "ctx_att1"))
        if len(ctx) != 2 or len(before) != 2:
            return None
        n_att = options.N_ATT if before[0] in (options.N_ATT or ctx[0],) else before[0]
        deep = {"PROMPT_DEPTH": 1 + sum("compound_prompts_text." in name for name in shapes)} if base == "MaPLe" else {}
        return {"BASE": base, "N_CTX": ctx[0], "N_ATT": n_att, **deep}

    def checkpoint_root(self) -> nn.Module:
        return self.model.prompt_learner if self.cfg.TRAINER.ATPROMPT.BASE == "CoOp" else self.model

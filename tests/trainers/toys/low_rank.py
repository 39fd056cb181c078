"""A toy in the style of low-rank adaptation: learned matrices next to the frozen ones, in all blocks of both towers."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from yacs.config import CfgNode

from trainers.base import ClipTrainer
from trainers.prompted_clip import FixedTextCLIP
from trainers.prompts import fill


class AddedProduct(nn.Module):
    """W + B A, for a weight W (out, in)."""

    def __init__(self, weight, rank):
        super().__init__()
        self.A = nn.Parameter(torch.randn(rank, weight.shape[1]) * weight.shape[1] ** -0.5)
        self.B = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight):
        return weight + (self.B @ self.A).to(weight.dtype)


class AddedPath(nn.Module):
    """linear(x) + B A dropout(x), in the place of a linear layer; the two matrices compute in fp32."""

    def __init__(self, linear, rank):
        super().__init__()
        self.linear, self.dropout, self.product = linear, nn.Dropout(0.25), AddedProduct(linear.weight, rank)

    def forward(self, x):
        low = F.linear(F.linear(self.dropout(x).float(), self.product.A), self.product.B)
        return self.linear(x) + low.to(x.dtype)


class ToyLowRank(ClipTrainer):
    """Learned: A and B of the attention's input projection and of the MLP's first layer."""

    config_node = "TOY"
    registered_name = "toy_low_rank"

    @classmethod
    def build(cls, options: CfgNode, dataset, clip_model):
        model = FixedTextCLIP(clip_model, [fill("a photo of a {}.", dataset.classnames)])
        for tower in (model.image_encoder.transformer, model.text_encoder.transformer):
            for block in tower.resblocks:
                product = AddedProduct(block.attn.in_proj_weight, 2)
                parametrize.register_parametrization(block.attn, "in_proj_weight", product)
                block.mlp.c_fc = AddedPath(block.mlp.c_fc, 2)
        return model

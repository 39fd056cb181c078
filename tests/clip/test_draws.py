"""What building CLIP draws, against building one."""

import pytest
import torch
from torch import nn

from clip.draws import draw_as_built
from clip.model import CLIP, add_vision_prompts

VIT = (48, 32, 3, 64, 8, 77, 999, 64, 2, 2)
ODD = (40, 24, 1, 64, 8, 7, 33, 64, 2, 1)
RESNET = (48, 64, (1, 2, 1, 1), 8, None, 77, 500, 64, 2, 2)


def build(arguments):
    """OpenAI's construction: the modules' own initial values, then CLIP's."""
    model = CLIP(*arguments)
    if arguments is RESNET:
        pool = model.visual.attnpool
        for layer in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj):
            nn.init.normal_(layer.weight)
    for block in model.transformer.resblocks:
        for weight in (block.attn.in_proj_weight, block.attn.out_proj.weight, block.mlp.c_fc.weight):
            nn.init.normal_(weight)
        nn.init.normal_(block.mlp.c_proj.weight)
    return model


@pytest.mark.parametrize("arguments", [VIT, RESNET, ODD], ids=["ViT", "ResNet", "odd sizes"])
def test_as_many_numbers_are_drawn_as_building_the_model_draws(arguments):
    torch.manual_seed(5)
    model = build(arguments)
    expected, weights = torch.get_rng_state(), {name: t.clone() for name, t in model.state_dict().items()}
    torch.manual_seed(5)
    assert draw_as_built(model) == []
    assert torch.equal(torch.get_rng_state(), expected)
    assert all(torch.equal(t, weights[name]) for name, t in model.state_dict().items())


def test_prompt_tokens_are_drawn_where_their_modules_are_built():
    """By hand for the first tokens of the image tower: they follow its first convolution."""
    model = CLIP(*VIT)
    add_vision_prompts(model, 2, 2)
    model.transformer.add_prompts(3, 2)
    torch.manual_seed(5)
    drawn = draw_as_built(model)
    blocks = (model.visual.transformer.resblocks[1], model.transformer.resblocks[1])
    own = [model.visual.VPT, *(block.VPT_shallow for block in blocks)]
    assert [id(tokens) for tokens in drawn] == [id(tokens) for tokens in own]
    torch.manual_seed(5)
    nn.Conv2d(3, 64, 8, 8, bias=False)
    assert torch.equal(model.visual.VPT, nn.init.normal_(torch.empty(2, 64), std=0.02))
    assert len({tokens.flatten()[0].item() for tokens in drawn}) == 3

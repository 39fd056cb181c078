"""Methods written as plug-ins, with their way of calling the towers, give the results of the built-in methods.

Both have the same learned values and images. Plug-ins compute every prompt at full length and built-in methods only
the tokens that matter, so the order of fp32 sums differs: logits up to 100 agree to 1e-5 of that.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from clip import load
from tests.golden import build
from tests.plugins.modules import NAMES, SIDE, plugin_cfg, plugin_module, train_prompts_only
from tests.plugins.project import PLUGINS

pytestmark = pytest.mark.slow

LOGIT_TOLERANCE = {"rtol": 1e-5, "atol": 1e-3}  # 1e-5 of logits up to 100
GRADIENT_TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def ours(trainer: str, **values: Any) -> nn.Module:
    clip_model = load("ViT-Micro/8", device="cpu")[0].float().requires_grad_(False)
    return build(trainer, NAMES, clip_model, **values)


def theirs(name: str, cfg: CfgNode) -> nn.Module:
    module = plugin_module(name)
    model = module.CustomCLIP(cfg, NAMES, module.load_clip_to_cpu(cfg).float())
    train_prompts_only(model)
    return model


def share_random_values(one: nn.Module, other: nn.Module) -> None:
    """Give the learned parameters of both, which have the same names, the same values, far from initialization."""
    learned = [{key: p for key, p in model.named_parameters() if p.requires_grad} for model in (one, other)]
    assert learned[0].keys() == learned[1].keys()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, parameter in learned[0].items():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
            learned[1][key].copy_(parameter)


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    loss.backward()
    return {key: p.grad for key, p in model.named_parameters() if p.requires_grad}


def compare(our: nn.Module, their: nn.Module) -> None:
    """Logits in evaluation, and the gradients of cross entropy in training."""
    generator = torch.Generator().manual_seed(4)
    images = torch.randn(5, 3, SIDE, SIDE, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 1])
    their.eval()
    with torch.no_grad():
        logits = their(images)
        logits = logits[0] if isinstance(logits, tuple) else logits
        torch.testing.assert_close(our.eval()(images), logits, **LOGIT_TOLERANCE)
    assert logits.std(dim=1).min() > 0.1, "the logits differ between classes"
    output = their(images)
    output = output[0] if isinstance(output, tuple) else output
    expected = gradients(their, nn.functional.cross_entropy(output, labels))
    found = gradients(our, nn.functional.cross_entropy(our(images), labels))
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, **GRADIENT_TOLERANCE, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize(("depth", "n_ctx"), [(1, 2), (3, 2), (4, 3)])
def test_maple(depth: int, n_ctx: int):
    values = {"N_CTX": n_ctx, "CTX_INIT": "a photo of a", "PREC": "fp32", "PROMPT_DEPTH": depth}
    our, their = ours("MaPLe", **values), theirs("coupled_prompts", plugin_cfg("MAPLE", **values))
    share_random_values(their, our)
    compare(our, their)


@pytest.mark.parametrize(("vision", "text"), [(1, 1), (3, 2), (4, 4)])
def test_ivlp(vision: int, text: int):
    values = {
        "N_CTX_VISION": 2,
        "N_CTX_TEXT": 3,
        "CTX_INIT": "a photo of a",
        "PREC": "fp32",
        "PROMPT_DEPTH_VISION": vision,
        "PROMPT_DEPTH_TEXT": text,
    }
    our, their = ours("IVLP", **values), theirs("self_regulated", plugin_cfg("PROMPTSRC", **values))
    share_random_values(their, our)
    compare(our, their)


def test_teacher_without_prompts_is_clip():
    """`design_details` with depth 0 gives the plain CLIP, which such methods use as a teacher."""
    node = next(plugin.node["PROMPTSRC"] for plugin in PLUGINS if plugin.trainer == "SelfRegulated")
    teacher = plugin_module("self_regulated").load_clip_to_cpu(plugin_cfg("PROMPTSRC", **node), zero_shot_model=True)
    teacher.float()  # fp16 if there is a GPU; exact, because the file has fp16 weights
    clip_model = load("ViT-Micro/8", device="cpu")[0]
    assert teacher.state_dict().keys() == clip_model.state_dict().keys()
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    assert torch.equal(teacher.encode_image(images), clip_model.encode_image(images))


@pytest.mark.parametrize("ctx_init", ["", "a photo of a"])
def test_coop(ctx_init: str):
    values = {"N_CTX": 4, "CSC": False, "CTX_INIT": ctx_init, "PREC": "fp32"}
    our, their = ours("CoOp", **values), theirs("guided_coop", plugin_cfg("COOP", **values))
    share_random_values(their, our)
    compare(our, their)

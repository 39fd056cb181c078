"""Plug-ins with PREC fp16: their layers and the towers have the same type, as with OpenAI's package on a GPU.

These tests need no GPU: `build_model` is told that there is one, and the fp16 modules then run on the CPU, where
operands of different types are an error as well.
"""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import clip
from clip.model import from_state_dict
from clip.search import load_state_dict
from tests.plugins.modules import NAMES, SIDE, plugin_cfg, plugin_module, train_prompts_only

MAPLE = {"N_CTX": 2, "CTX_INIT": "a photo of a", "PROMPT_DEPTH": 3}
COOP = {"N_CTX": 4, "CSC": False, "CTX_INIT": "a photo of a"}
IVLP = {
    "N_CTX_VISION": 2,
    "N_CTX_TEXT": 3,
    "CTX_INIT": "a photo of a",
    "PROMPT_DEPTH_VISION": 3,
    "PROMPT_DEPTH_TEXT": 2,
}


def set_gpu(available: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)


def dtypes(model: nn.Module) -> dict[str, torch.dtype]:
    return {name: p.dtype for name, p in model.named_parameters()}


def test_on_a_gpu_the_model_is_built_in_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's `convert_weights`: convolutions, linear layers, attention and the two projections are fp16."""
    set_gpu(True, monkeypatch)
    details = {"vision_depth": 2, "vision_ctx": 2, "language_depth": 2, "language_ctx": 2}
    model = clip.build_model(load_state_dict("ViT-Micro/8"), details)
    assert model.dtype == torch.float16 and not model.training
    in_fp32 = ("embedding", "embedding.weight", "logit_scale", "VPT", "VPT_shallow")
    layer_norms = ("ln_1", "ln_2", "ln_final", "ln_pre", "ln_post")
    for name, dtype in dtypes(model).items():
        fp32 = name.endswith(in_fp32) or any(part in layer_norms for part in name.split("."))
        assert dtype == (torch.float32 if fp32 else torch.float16), name


def test_without_a_gpu_and_by_load_on_a_cpu_it_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    set_gpu(False, monkeypatch)
    assert set(dtypes(clip.build_model(load_state_dict("ViT-Micro/8"))).values()) == {torch.float32}
    set_gpu(True, monkeypatch)
    assert set(dtypes(clip.load("ViT-Micro/8", device="cpu")[0]).values()) == {torch.float32}


def test_weights_of_full_precision_are_not_rounded_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """1/3 in fp32 is not an fp16 number."""
    set_gpu(True, monkeypatch)
    weights = {name: torch.full_like(value.float(), 1 / 3) for name, value in load_state_dict("ViT-Micro/8").items()}
    assert from_state_dict(weights).visual.proj[0, 0].item() == torch.tensor(1 / 3).item()


def plugin(name: str, node: str, values: dict[str, Any], prec: str) -> nn.Module:
    """The plug-in's model, built as its `build_model` does for PREC."""
    module, cfg = plugin_module(name), plugin_cfg(node, **values, PREC=prec)
    clip_model = module.load_clip_to_cpu(cfg)
    if prec == "fp32":
        clip_model.float()
    torch.manual_seed(0)
    model = module.CustomCLIP(cfg, NAMES, clip_model)
    if prec == "fp16" and hasattr(model.prompt_learner, "proj"):
        model.prompt_learner.proj.half()  # as MaPLe's published code does
    train_prompts_only(model)
    return model


def logits_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    output = model(images)
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize(
    ("name", "node", "values"),
    [("coupled_prompts", "MAPLE", MAPLE), ("guided_coop", "COOP", COOP), ("self_regulated", "PROMPTSRC", IVLP)],
)
def test_a_plugin_gives_the_same_logits_in_fp16_and_fp32(
    name: str, node: str, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """fp16 has a relative precision of 2^-11; normalized features agree to about 1e-2, logits (times 100) to 1."""
    set_gpu(True, monkeypatch)
    half, full = (plugin(name, node, values, prec).eval() for prec in ("fp16", "fp32"))
    images = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4))
    found, expected = logits_of(half, images), logits_of(full, images)
    assert found.dtype == torch.float16 and expected.dtype == torch.float32
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=1.0)
    nn.functional.cross_entropy(found.float(), torch.tensor([0, 1, 2])).backward()
    learned = {key: p for key, p in half.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in learned.values())
    assert learned["prompt_learner.ctx"].dtype == torch.float16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_plugin_in_fp16_gives_the_same_logits_on_a_gpu() -> None:
    model = plugin("coupled_prompts", "MAPLE", MAPLE, "fp16").eval()
    images = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4))
    on_gpu = copy.deepcopy(model).to("cuda")(images.to("cuda"))
    assert on_gpu.dtype == torch.float16
    torch.testing.assert_close(on_gpu.float().cpu(), model(images).float(), rtol=0, atol=1.0)

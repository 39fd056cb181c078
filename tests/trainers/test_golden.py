"""Every method against the values of an independent implementation, in fp32 (tolerance: tests/golden.py)."""

import pytest
import torch
from torch.nn import functional as F

from clip.resnet import ModifiedResNet
from dassl.utils import load_checkpoint
from tests.golden import NODES, assert_close, build, golden_clip, load_parameters, read
from tests.paths import GOLDEN, needs_golden
from trainers.base import ClipTrainer
from trainers.checkpoint import load_learned
from trainers.prompted_clip import FixedTextCLIP, FrozenTowersCLIP, unit
from trainers.prompts import IMAGENET_TEMPLATES_SELECT, fill

pytestmark = [pytest.mark.slow, needs_golden]

METHODS = [
    *(f"maple_depth{depth}_ctx{n_ctx}" for depth in (1, 2, 3) for n_ctx in (2, 4)),
    *("coop_end", "coop_middle", "coop_front", "coop_end_csc"),
    "cocoop",
    *(f"vpt_depth{depth}" for depth in (1, 2, 3)),
    *("ivlp_v0_t3", "ivlp_v1_t2", "ivlp_v3_t3"),
]


def golden_model(meta: dict):
    values = {k: v for k, v in meta.items() if k.isupper()}
    assert meta["trainer"] in NODES
    return build(meta["trainer"], meta["classnames"], golden_clip(), **values)


@pytest.mark.parametrize("name", METHODS)
def test_method_equals_golden(name: str):
    """Logits, losses, gradients and parameters over three steps."""
    golden, meta = read(f"{name}.safetensors")
    model = golden_model(meta)
    load_parameters(model, golden, "param0.")
    learned = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optim = {k: v for k, v in meta["optim"].items() if k != "name"}
    optimizer = torch.optim.SGD(learned.values(), **optim)

    with torch.no_grad():
        assert_close(model.eval()(golden["image"]), golden["logits0"], "logits0")
    losses = []
    for step in range(meta["steps"]):
        model.train()
        loss = F.cross_entropy(model(golden["image"]), golden["label"])
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            for parameter_name, parameter in learned.items():
                assert parameter.grad is not None
                assert_close(parameter.grad, golden[f"grad0.{parameter_name}"], parameter_name)
        optimizer.step()
        losses.append(loss.detach())
    assert_close(torch.stack(losses), golden["losses"], "losses")
    for parameter_name, parameter in learned.items():
        assert_close(parameter, golden[f"param3.{parameter_name}"], parameter_name)
    with torch.no_grad():
        assert_close(model.eval()(golden["image"]), golden["logits3"], "logits3")


def test_text_features_are_computed_again_after_a_step_in_eval_mode():
    """The features kept for an evaluation follow the parameters, even without a switch of modes."""
    golden, meta = read("maple_depth3_ctx2.safetensors")
    model = golden_model(meta).eval()
    load_parameters(model, golden, "param0.")
    with torch.no_grad():
        assert_close(model(golden["image"]), golden["logits0"])
        kept = model.text_features()
        assert model.text_features() is kept
    load_parameters(model, golden, "param3.")
    with torch.no_grad():
        assert_close(model(golden["image"]), golden["logits3"])


def test_zero_shot_equals_golden():
    golden, meta = read("zeroshot.safetensors")
    assert meta["templates_ensemble"][:-1] == IMAGENET_TEMPLATES_SELECT
    for kind in ("single", "ensemble"):
        texts = [fill(template, meta["classnames"]) for template in meta[f"templates_{kind}"]]
        model = FixedTextCLIP(golden_clip(), texts).eval()
        with torch.no_grad():
            assert_close(model.text_features(), unit(golden[f"text_{kind}"]), "text features")
            assert_close(unit(model.image_encoder(golden["image"])), unit(golden["image_features"]), "image features")
            assert_close(model(golden["image"]), golden[f"logits_{kind}"], "logits")


def test_resnet_tower_equals_golden():
    golden, meta = read("resnet_tower.safetensors")
    prefix = "weight.visual."
    weights = {k.removeprefix(prefix): v.float() for k, v in golden.items() if k.startswith(prefix)}
    tower = ModifiedResNet(tuple(meta["vl"]), meta["embed"], meta["vw"] * 32 // 64, meta["res"], meta["vw"])
    tower.load_state_dict(weights)
    with torch.no_grad():
        assert_close(tower.eval()(golden["image"]), golden["image_features"])


def load_reference(model: FrozenTowersCLIP) -> None:
    path = str(GOLDEN / "reference_checkpoint" / "MultiModalPromptLearner" / "model.pth.tar-5")
    state_dict = load_checkpoint(path)["state_dict"]
    load_learned(model, state_dict, path, model.pretrained_tensors(), ClipTrainer.not_loaded)


def test_published_checkpoint_gives_its_logits():
    """A file as the published ones are: the whole model, and a live scheduler that is never run."""
    golden, meta = read("maple_depth3_ctx2.safetensors")
    model = golden_model(meta).eval()
    load_reference(model)
    with torch.no_grad():
        assert_close(model(golden["image"]), golden["logits3"])


@pytest.mark.parametrize(("depth", "n_ctx"), [(2, 2), (3, 4), (1, 2)])
def test_published_checkpoint_of_another_shape_is_an_error(depth: int, n_ctx: int):
    _, meta = read("maple_depth3_ctx2.safetensors")
    model = golden_model({**meta, "PROMPT_DEPTH": depth, "N_CTX": n_ctx})
    before = {n: p.clone() for n, p in model.named_parameters()}
    with pytest.raises(ValueError, match="another prompt depth, prompt length, backbone or trainer"):
        load_reference(model)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_checkpoint_of_another_backbone_is_an_error():
    _, meta = read("maple_depth3_ctx2.safetensors")
    model = golden_model(meta)
    model.image_encoder.proj.data += 1
    with pytest.raises(ValueError, match="trained on another backbone"):
        load_reference(model)

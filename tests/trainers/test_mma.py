"""MMA against the values of an independent implementation and against its definition."""

import pytest
import torch
from torch import Tensor

from clip.model import CLIP
from tests.golden import assert_close, build, check_three_steps, make_trainer, read
from tests.paths import needs_golden
from tests.trainers.test_methods import NAMES, learned, small_clip, vit_b16
from trainers.mma import AdaptedCLIP, AdapterLearner
from trainers.precision import Precision
from trainers.prompted_clip import FixedTexts, unit
from trainers.prompts import fixed_prompts

KEYS = ("TEXT_CTX_INIT", "ADAPTER_START", "ADAPTER_END", "ADAPTER_DIM", "ADAPTER_SCALE")


def golden(name: str):
    values, meta = read(f"{name}.safetensors")
    settings = {"MODEL.BACKBONE.NAME": "ViT-B/16"}  # any that there is: checkpoints name it
    settings |= {f"TRAINER.MMADAPTER.{key}": meta[key] for key in KEYS}
    return values, meta, make_trainer(meta, settings=settings)


@needs_golden
@pytest.mark.parametrize("name", ["mma_l0to3_d24", "mma_l2to3_d16"])
def test_three_steps(name: str):
    values, meta, trainer = golden(name)
    check_three_steps(trainer, values, meta)


def test_it_learns_these_tensors():
    """(33,312 + 49,952 + 1,056) in each of eight layers: 674,560."""
    names = learned(build("MultiModalAdapter", NAMES, vit_b16()))
    assert sum(names.values()) == 674_560
    expected = {}
    for i in range(5, 13):
        for tower, width in (("text", 512), ("visual", 768)):
            down, up = f"{tower}_adapter.{i}.down.0", f"{tower}_adapter.{i}.up"
            expected |= {
                f"{down}.weight": 32 * width,
                f"{down}.bias": 32,
                f"{up}.weight": width * 32,
                f"{up}.bias": width,
            }
        expected |= {f"shared_adapter.{i}.0.weight": 32 * 32, f"shared_adapter.{i}.0.bias": 32}
    assert names == {f"adapter_learner.{name}": count for name, count in expected.items()}


def test_adapters_start_as_published():
    """N(0, 2 / outputs) and no bias, so that the model does not start as zero-shot CLIP."""
    torch.manual_seed(0)
    for name, parameter in AdapterLearner((512, 768), 1, 2, 64, 0.1).named_parameters():
        if name.endswith("weight"):
            assert parameter.std().item() == pytest.approx((2 / len(parameter)) ** 0.5, rel=0.06), name
        else:
            assert not parameter.any()


def test_an_adapters_parameters_get_the_gradient_of_scale_one():
    """Those of s · A(z), divided by s; z gets its own."""
    torch.manual_seed(0)
    learner, z, towards = AdapterLearner((16, 16), 1, 1, 8, 0.001), torch.randn(3, 16), torch.randn(3, 16)
    grown = [learner.text_adapter, learner.shared_adapter]
    parameters = [p for module in grown for p in module.parameters()]

    def gradients(value: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((value * towards).sum(), [z, *parameters])

    adapter, shared = learner.text_adapter["1"], learner.shared_adapter["1"]
    of_input = z.clone().requires_grad_()
    plain = 0.001 * adapter.up(shared(adapter.down(of_input)))
    expected = gradients(plain, of_input)
    of_input = z.clone().requires_grad_()
    found = learner.beside_block(learner.text_adapter, "1", of_input)
    assert torch.equal(found, plain)
    of_z, *of_parameters = gradients(found, of_input)
    torch.testing.assert_close(of_z, expected[0], rtol=1e-5, atol=0)
    for gradient, scaled in zip(of_parameters, expected[1:], strict=True):
        torch.testing.assert_close(gradient, 1000 * scaled, rtol=1e-4, atol=1e-5)


def large(start: int, end: int, **shapes: int) -> AdaptedCLIP:
    """A model whose adapters change its features by much."""
    torch.manual_seed(0)
    values = {"ADAPTER_START": start, "ADAPTER_END": end, "ADAPTER_DIM": 8, "ADAPTER_SCALE": 0.5}
    return build("MultiModalAdapter", NAMES, small_clip(**shapes), **values).eval()


def test_text_features_are_exact_under_packing():
    """Each prompt alone, all tokens of the last block instead of EOT's alone, and no adapter in a tower's own code."""
    model = large(0, 2)
    clip_model = small_clip()
    of_text, shared = model.adapter_learner.text_adapter, model.adapter_learner.shared_adapter

    def added(number: int, z: Tensor) -> Tensor:
        adapter = of_text[str(number)]
        return 0.5 * adapter.up(shared[str(number)](adapter.down(z)))

    for prompt, found in zip(fixed_prompts("a photo of a", NAMES), model.text_features(), strict=True):
        alone = FixedTexts(clip_model, [prompt])
        table = alone.token_embeddings
        layout, encoder = alone.layout, clip_model.text_encoder()
        x = (table + added(0, table))[layout.token_index] + encoder.positional_embedding[layout.positions]
        x = x[None]
        for number, block in enumerate(encoder.transformer.resblocks, start=1):
            x = block(x, layout) + added(number, block.ln_1(x))
        expected = unit(encoder.ln_final(x[0, -1]) @ encoder.text_projection)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_towers_of_other_depths_and_widths():
    """An adapter as wide as a tower, in towers of which one is deeper than the other."""
    for text, vision in ((3, 2), (2, 3)):
        torch.manual_seed(0)
        clip_model = CLIP(32, 32, vision, 128, 16, 77, 49408, 64, 1, text).requires_grad_(False)
        values = {"ADAPTER_START": 0, "ADAPTER_END": 2, "ADAPTER_DIM": 64}
        model = build("MultiModalAdapter", NAMES, clip_model, **values)
        model(torch.randn(2, 3, 32, 32)).square().mean().backward()
        assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)
        with pytest.raises(ValueError, match=f"text tower has {text} layers and the image tower {vision}"):
            build("MultiModalAdapter", NAMES, clip_model, **values | {"ADAPTER_END": 3})


@pytest.mark.parametrize(("start", "end"), [(2, 1), (1, 3), (-1, 2)])
def test_layers_that_there_are_not(start: int, end: int):
    with pytest.raises(ValueError, match=rf"START is {start} and ADAPTER_END {end}, .* layers from 0 .* to 2"):
        build("MultiModalAdapter", NAMES, small_clip(), ADAPTER_START=start, ADAPTER_END=end)


def test_a_resnet_is_refused():
    with pytest.raises(ValueError, match="adapters in both towers need a ViT backbone, found a ResNet"):
        build("MultiModalAdapter", NAMES, small_clip(vision=16, layers=(1, 1, 1, 1)))


def test_lower_precisions_agree_and_the_image_tower_is_not_said_to_be_frozen():
    image = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        full = large(1, 2)
        expected = full(image) / full.logit_scale.exp()
        clip_model = small_clip()
        Precision("bf16", torch.device("cpu")).cast(clip_model)
        settings = {"ADAPTER_START": 1, "ADAPTER_END": 2, "ADAPTER_DIM": 8, "ADAPTER_SCALE": 0.5}
        half = build("MultiModalAdapter", NAMES, clip_model, **settings).eval()
        half.adapter_learner.load_state_dict(full.adapter_learner.state_dict())
        with Precision("amp", torch.device("cpu")).autocast():
            amp = full(image)
        for logits in (half(image), amp):
            assert 0 < (logits / full.logit_scale.exp() - expected).abs().max() < 0.03
    assert not full.frozen_images()


@needs_golden
def test_published_checkpoints_load():
    """Without a prefix, and with two buffers of the class names."""
    values, _, trainer = golden("mma_l2to3_d16")
    prefix = "param3.adapter_learner."
    published = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
    assert trainer.checkpoint_root().state_dict().keys() == published.keys()
    names = {"token_embedding": torch.zeros(7, 77, 64), "tokenized_prompts": torch.zeros(7, 77, dtype=torch.long)}
    trainer.load_weights("adapter_learner", published | names, "file")
    with torch.no_grad():
        assert_close(trainer.model.eval()(values["image"]), values["logits3"], "logits3")
    shapes = {name: tuple(value.shape) for name, value in published.items()}
    needed = {"ADAPTER_START": 2, "ADAPTER_END": 3, "ADAPTER_DIM": 16}
    assert trainer.options_for(shapes, trainer.cfg.TRAINER.MMADAPTER) == needed
    assert trainer.options_for({"adapter.weight": (3, 3)}, trainer.cfg.TRAINER.MMADAPTER) is None


@needs_golden
def test_a_checkpoint_knows_the_scale():
    """It has no tensor that tells."""
    *_, trainer = golden("mma_l2to3_d16")
    assert trainer.belongs_to()["adapter_scale"] == 0.1

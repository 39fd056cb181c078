"""What each method learns, on which backbones it works, and in which precision."""

import pytest
import torch
from torch import nn

import clip
import trainers.conditional
from clip.model import CLIP
from tests.golden import NODES, build, trainer_options
from trainers.memory import KEPT_FLOATS, PEAK_FLOATS
from trainers.precision import Precision
from trainers.prompted_clip import FixedTextCLIP, FrozenTowersCLIP
from trainers.zsclip import ZeroshotCLIP2

NAMES = ["cat", "golden_retriever", "2012 Tesla Model S"]
SMALL = {  # of the published settings, what a tower of two layers needs changed
    "MaPLe": {"PROMPT_DEPTH": 2},
    "CoOp": {"N_CTX": 4},
    "CoCoOp": {"CTX_INIT": "a photo of a"},
    "VPT": {"PROMPT_DEPTH_VISION": 2},
    "IVLP": {"PROMPT_DEPTH_VISION": 2, "PROMPT_DEPTH_TEXT": 2},
    "KgCoOp": {},
    "TCP": {"INSERT_LAYER": 1},
    "PromptSRC": {"PROMPT_DEPTH_VISION": 2, "PROMPT_DEPTH_TEXT": 2},
    "ProGrad": {},
}


def vit_b16() -> CLIP:
    """The real shapes without memory: all but the token embedding are on the meta device."""
    with torch.device("meta"):
        model = CLIP(512, 224, 12, 768, 16, 77, 49408, 512, 8, 12)
    model.token_embedding = nn.Embedding.from_pretrained(torch.zeros(49408, 512))
    return model.requires_grad_(False)


def small_clip(text: int = 64, vision: int = 64, layers: int | tuple = 2, seed: int = 0) -> CLIP:
    torch.manual_seed(seed)
    image = 32 if isinstance(layers, int) else 64
    patch = 16 if isinstance(layers, int) else None
    model = CLIP(32, image, layers, vision, patch, 77, 49408, text, text // 64, 2)
    return model.requires_grad_(False).eval()


def learned(model: nn.Module) -> dict[str, int]:
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


def indexed(prefix: str, count: int, *suffixes: str) -> set[str]:
    return {f"{prefix}.{i}{suffix}" for i in range(count) for suffix in suffixes or ("",)}


def test_maple_learns_these_tensors():
    """(Dt + 1) Dv for each of J maps and M Dt for each of J prompts: 3,555,072 at J = 9, M = 2."""
    for depth, count in ((9, 3_555_072), (3, 1_185_024)):
        names = learned(build("MaPLe", NAMES, vit_b16(), PROMPT_DEPTH=depth))
        assert sum(names.values()) == count == depth * (513 * 768 + 2 * 512)
        assert set(names) == {
            "prompt_learner.ctx",
            "prompt_learner.proj.weight",
            "prompt_learner.proj.bias",
            *indexed("prompt_learner.compound_prompts_text", depth - 1),
            *indexed("prompt_learner.compound_prompt_projections", depth - 1, ".weight", ".bias"),
        }


def test_baselines_learn_these_tensors():
    assert learned(build("CoOp", NAMES, vit_b16(), N_CTX=4)) == {"prompt_learner.ctx": 4 * 512}
    assert learned(build("CoOp", NAMES, vit_b16(), N_CTX=4, CSC=True)) == {"prompt_learner.ctx": 3 * 4 * 512}
    cocoop = learned(build("CoCoOp", NAMES, vit_b16(), N_CTX=4))
    assert sum(cocoop.values()) == 35_360 == 4 * 512 + 513 * 32 + 33 * 512
    assert set(cocoop) == {
        "prompt_learner.ctx",
        *(f"prompt_learner.meta_net.linear{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")),
    }
    blocks = "image_encoder.transformer.resblocks"
    assert learned(build("VPT", NAMES, vit_b16(), N_CTX_VISION=8, PROMPT_DEPTH_VISION=12)) == {
        "image_encoder.VPT": 8 * 768,
        **{f"{blocks}.{i}.VPT_shallow": 8 * 768 for i in range(1, 12)},
    }
    text = {f"text_encoder.transformer.resblocks.{i}.VPT_shallow": 2 * 512 for i in range(1, 9)}
    vision = {f"{blocks}.{i}.VPT_shallow": 2 * 768 for i in range(1, 9)}
    both = {"prompt_learner.ctx": 2 * 512, "image_encoder.VPT": 2 * 768, **text, **vision}
    assert learned(build("IVLP", NAMES, vit_b16())) == both
    language = learned(build("IVLP", NAMES, vit_b16(), PROMPT_DEPTH_VISION=0, N_CTX_VISION=0))
    assert language == {"prompt_learner.ctx": 2 * 512, **text}
    vision_alone = learned(build("IVLP", NAMES, vit_b16(), PROMPT_DEPTH_TEXT=0))
    assert vision_alone == {"image_encoder.VPT": 2 * 768, **vision}


def test_guided_contexts_learn_these_tensors():
    assert learned(build("KgCoOp", NAMES, vit_b16())) == {"prompt_learner.ctx": 4 * 512}
    assert learned(build("KgCoOp", NAMES, vit_b16(), N_CTX=6, CTX_INIT="", CSC=True)) == {
        "prompt_learner.ctx": 3 * 6 * 512
    }
    tcp = learned(build("TCP", NAMES, vit_b16()))
    assert sum(tcp.values()) == 331_904
    assert tcp == {
        "prompt_learner.ctx": 4 * 512,
        "prompt_learner.meta_net.linear1.weight": 128 * 512,
        "prompt_learner.meta_net.linear1.bias": 128,
        "prompt_learner.meta_net.linear2.weight": 4 * 512 * 128,
        "prompt_learner.meta_net.linear2.bias": 4 * 512,
    }


def test_deep_prompts_start_small_and_random():
    """N(0, 0.02) in both towers."""
    torch.manual_seed(0)
    maple = build("MaPLe", NAMES, vit_b16()).prompt_learner
    ivlp = build("IVLP", NAMES, vit_b16())
    own = [parameter for name, parameter in ivlp.named_parameters() if "VPT" in name]
    assert len(maple.compound_prompts_text) == 8 and len(own) == 1 + 2 * 8
    for prompt in (*maple.compound_prompts_text, *own):  # of at least 2 × 512 numbers
        assert abs(prompt.std().item() - 0.02) < 0.003 and abs(prompt.mean().item()) < 0.003


@pytest.mark.parametrize(
    ("trainer", "values", "learned_words"),
    [
        ("MaPLe", {"PROMPT_DEPTH": 2}, "a photo"),
        ("MaPLe", {"PROMPT_DEPTH": 2, "N_CTX": 4}, "a photo of a"),
        ("IVLP", {"PROMPT_DEPTH_VISION": 1, "PROMPT_DEPTH_TEXT": 1}, "a photo"),
        ("CoOp", {"CTX_INIT": "a_photo_of_a", "N_CTX": 16}, "a photo of a"),
        ("CoCoOp", {"CTX_INIT": "a photo of a", "N_CTX": 16}, "a photo of a"),
        ("KgCoOp", {}, "a photo of a"),
        ("TCP", {"INSERT_LAYER": 1, "CTX_INIT": "a photo of a"}, "a photo of a"),
    ],
)
def test_the_context_starts_from_the_first_words(trainer: str, values: dict, learned_words: str):
    """MaPLe and IVLP learn the first N_CTX of them; CoOp and CoCoOp all, whatever N_CTX says."""
    model = small_clip()
    ids = clip.tokenize([learned_words])[0, 1 : 1 + len(learned_words.split())]
    expected = model.token_embedding(ids)
    assert torch.equal(build(trainer, NAMES, model, **values).prompt_learner.ctx, expected)


def test_a_class_specific_context_starts_alike_for_all_classes():
    model = small_clip()
    ctx = build("CoOp", NAMES, model, CTX_INIT="a photo of a", CSC=True).prompt_learner.ctx
    expected = model.token_embedding(clip.tokenize(["a photo of a"])[0, 1:5])
    assert torch.equal(ctx, expected.expand(3, 4, -1))


def test_zero_shot_ensembles_leave_out_the_own_template_on_imagenet_alone():
    for name, count in (("ImageNet", 7), ("OxfordPets", 8)):
        dataset = type(name, (), {"template": "a photo of a {}, a type of pet."})()
        templates = ZeroshotCLIP2.templates(dataset)
        assert len(templates) == count
        assert (templates[-1] == "a photo of a {}, a type of pet.") == (name != "ImageNet")


def test_projections_start_as_copies_of_one():
    projections = build("MaPLe", NAMES, small_clip(), PROMPT_DEPTH=2).prompt_learner.compound_prompt_projections
    deep = build("MaPLe", NAMES, vit_b16()).prompt_learner.compound_prompt_projections
    assert len(projections) == 1
    assert all(torch.equal(p.weight, deep[0].weight) and torch.equal(p.bias, deep[0].bias) for p in deep)


@pytest.mark.parametrize("trainer", NODES)
def test_widths_follow_the_backbone(trainer: str):
    """Text 768 and vision 1024, as ViT-L/14 has them."""
    model = build(trainer, NAMES, small_clip(768, 1024), **SMALL[trainer])
    logits = model(torch.randn(2, 3, 32, 32))
    logits.square().mean().backward()
    assert logits.shape == (2, 3)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)


def test_zero_shot_on_a_resnet():
    assert zero_shot(small_clip(vision=16, layers=(1, 1, 1, 1)))(torch.randn(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize("trainer", ["CoOp", "CoCoOp", "KgCoOp", "TCP"])
def test_resnet_backbone(trainer: str):
    model = build(trainer, NAMES, small_clip(vision=16, layers=(1, 1, 1, 1)), **SMALL[trainer]).train()
    means = [m.running_mean.clone() for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    logits = model(torch.randn(2, 3, 64, 64))
    logits.sum().backward()
    assert logits.shape == (2, 3)
    after = [m.running_mean for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(torch.equal(a, b) for a, b in zip(means, after, strict=True))


def test_vision_prompts_on_a_resnet_are_an_error():
    resnet = small_clip(vision=16, layers=(1, 1, 1, 1))
    for trainer in ("MaPLe", "VPT", "IVLP"):
        with pytest.raises(ValueError, match="need a ViT backbone, found a ResNet"):
            build(trainer, NAMES, resnet, **SMALL[trainer])
    language = build("IVLP", NAMES, resnet, PROMPT_DEPTH_VISION=0, PROMPT_DEPTH_TEXT=2)
    assert language(torch.randn(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize(
    ("trainer", "values", "message"),
    [
        ("MaPLe", {"PROMPT_DEPTH": 3}, "prompt depth 3 does not fit a tower of 2 layers: choose a depth from 1 to 2"),
        ("MaPLe", {"PROMPT_DEPTH": 0}, "prompt depth 0 does not fit"),
        ("MaPLe", {"PROMPT_DEPTH": 2, "N_CTX": 0}, "expected at least 1: set N_CTX"),
        ("MaPLe", {"PROMPT_DEPTH": 2, "CTX_INIT": "photo"}, "N_CTX is 2, but CTX_INIT 'photo' has 1 tokens"),
        ("CoOp", {"CLASS_TOKEN_POSITION": "last"}, "'last', expected one of end, middle, front"),
        ("IVLP", {"PROMPT_DEPTH_VISION": 0, "PROMPT_DEPTH_TEXT": 0}, "IVLP has nothing to learn"),
        ("VPT", {"PROMPT_DEPTH_VISION": 2, "N_CTX_VISION": 0}, "a prompt of 0 tokens, expected at least 1: set N_CTX"),
        ("VPT", {"PROMPT_DEPTH_VISION": 13}, "prompt depth 13 does not fit a tower of 2 layers"),
        ("TCP", {}, "INSERT_LAYER is 8, but the text tower has 2 layers: .* 1 to 1, counted from 0"),
        ("TCP", {"INSERT_LAYER": 0}, "INSERT_LAYER is 0, but the text tower has 2 layers"),
        ("TCP", {"N_CTX": 6}, "TRAINER.TCP.N_CTX is 6, expected 4"),
    ],
)
def test_settings_that_do_not_fit(trainer: str, values: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build(trainer, NAMES, small_clip(), **values)


def test_image_of_another_size_is_an_error():
    model = build("MaPLe", NAMES, small_clip(), PROMPT_DEPTH=2)
    with pytest.raises(ValueError, match=r"32 x 32 pixels, found \(3, 48, 48\).*INPUT.SIZE"):
        model(torch.randn(1, 3, 48, 48))


def test_more_than_four_tokens_start_random_in_maple_and_ivlp():
    torch.manual_seed(0)
    model = build("MaPLe", NAMES, small_clip(), PROMPT_DEPTH=1, N_CTX=8)
    assert model.prompt_learner.ctx.shape == (8, 64)
    assert abs(model.prompt_learner.ctx.std().item() - 0.02) < 0.005
    assert trainer_options("MaPLe").CTX_INIT == "a photo of a"


def zero_shot(clip_model: CLIP) -> FixedTextCLIP:
    """Two templates, as the ensembles have several."""
    return FixedTextCLIP(clip_model, [[t.format(name) for name in NAMES] for t in ("a photo of a {}.", "art of a {}.")])


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
ON_GPU = [pytest.param("cuda", prec, marks=needs_gpu) for prec in ("fp16", "bf16", "amp")]


@pytest.mark.parametrize("trainer", [*NODES, "ZeroshotCLIP"])
@pytest.mark.parametrize(("device_type", "prec"), [("cpu", "bf16"), ("cpu", "amp"), *ON_GPU])
def test_precisions_agree(trainer: str, device_type: str, prec: str):
    """bf16 keeps 8 bits, fp16 11: cosines within 0.03 of fp32's, but not its bits; what is learned stays fp32."""
    device = torch.device(device_type)

    def made(precision: Precision) -> FrozenTowersCLIP:
        clip_model = small_clip()
        precision.cast(clip_model)
        torch.manual_seed(0)
        model = (
            zero_shot(clip_model) if trainer == "ZeroshotCLIP" else build(trainer, NAMES, clip_model, **SMALL[trainer])
        )
        return model.to(device)

    precision = Precision(prec, device)
    full, model = made(Precision("fp32", device)), made(precision)
    image = torch.randn(3, 3, 32, 32, device=device)
    with torch.no_grad():
        expected = full(image) / full.logit_scale.exp()
    with precision.autocast():
        logits = model(image)
    assert logits.dtype == torch.float32
    assert 0 < (logits / model.logit_scale.exp() - expected).abs().max() < 0.03
    if trainer != "ZeroshotCLIP":
        logits.sum().backward()
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


def test_fp16_says_that_it_runs_as_fp32_on_the_cpu(capsys):
    assert Precision("fp16", torch.device("cpu")).name == "fp32"
    assert "runs as fp32 on the CPU" in capsys.readouterr().out
    with pytest.raises(ValueError, match="expected one of fp32, fp16, bf16, amp"):
        Precision("fp8", torch.device("cpu"))


@pytest.mark.parametrize(("name", "supported", "said"), [("bf16", False, 1), ("amp", False, 1), ("amp", True, 0)])
def test_a_processor_without_bf16_is_named(capsys, monkeypatch, name, supported, said):
    monkeypatch.setattr("trainers.precision.cpu_has_bf16", lambda: supported)
    assert Precision(name, torch.device("cpu")).name == name
    assert capsys.readouterr().out.count(f"PREC {name} computes in bf16, slowly: this processor has no") == said


@pytest.mark.parametrize("budget", [2**20, 2**23, 2**25, 2**30])
@pytest.mark.parametrize("images", [1, 3, 16])
def test_a_piece_of_cocoop_fits_into_its_memory(monkeypatch, budget: int, images: int):
    """Its backward pass holds what every block keeps, whether it was kept from the start or computed again."""
    model = build("CoCoOp", [f"class {i}" for i in range(30)], small_clip(), CTX_INIT="a photo of a")
    monkeypatch.setattr(trainers.conditional, "available_bytes", lambda device: budget)
    at_once, parts, again = model.piece_sizes(images, backward=True)
    rows = max(layout.num_tokens for layout in model.layouts(parts))
    a_row = 4 * 64 * (PEAK_FLOATS + 2 * KEPT_FLOATS)  # bytes, of a tower of two blocks of width 64
    prefix = 5  # rows of SOS and the context, which every part has
    assert at_once * (rows - prefix) * a_row <= budget // 2
    assert again == (at_once < images or parts > 1)


@pytest.mark.parametrize("rows", [1, 9, 17, 40])
def test_cocoop_in_pieces_equals_cocoop_at_once(monkeypatch, rows: int):
    """Pieces of some images and some classes, computed again in the backward pass, change nothing but sum order."""
    names = [f"{'very ' * (i % 4)}class number {i}" for i in range(7)]
    image = torch.randn(5, 3, 32, 32)
    results = []
    for limited in (False, True):
        torch.manual_seed(0)
        model = build("CoCoOp", names, small_clip(), CTX_INIT="a photo of a")
        if limited:
            monkeypatch.setattr(trainers.conditional, "tokens_that_fit", lambda *args, **kwargs: rows)
            assert model.piece_sizes(5, backward=True) != (5, 1, False)
        logits = model(image)
        logits.square().sum().backward()
        results.append([logits.detach(), *(p.grad for p in model.parameters() if p.requires_grad)])
    for whole, pieces in zip(*results, strict=True):
        torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-4 * whole.abs().max().item())

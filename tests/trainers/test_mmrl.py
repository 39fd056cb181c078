"""MMRL and MMRL++: against an independent implementation and the definition, what they learn, how they are read out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from benchmarks.definitional import by_definition
from clip.model import CLIP
from tests.golden import assert_close, build, check_three_steps, make_trainer, read
from tests.paths import needs_golden
from tests.trainers.test_fitting_weights import make, refusal, save
from tests.trainers.test_methods import NAMES, learned, small_clip, vit_b16
from trainers.base import ClipTrainer
from trainers.checkpoint import load_learned
from trainers.mmrl import MMRL
from trainers.precision import Precision

pytestmark = pytest.mark.slow  # together

TRAINERS = ("MMRL", "MMRLpp")
OPTIONS = ("ALPHA", "BETA", "REG_WEIGHT", "N_REP_TOKENS", "REP_LAYERS", "REP_DIM", "PROJ_LORA_DIM", "RES_LORA_DIM")
LEARNER, HEAD = "representation_learner", "image_encoder"


@needs_golden
@pytest.mark.parametrize("name", ["mmrl_l1to3_n3", "mmrl_l2to3_n2", "mmrlpp_l2to3_n2"])
def test_three_steps_equal_the_golden_ones(name: str):
    """Logits of both heads and of their fusion, loss terms, gradients, and parameters after steps of AdamW."""
    values, meta = read(f"{name}.safetensors")
    settings = {f"TRAINER.{meta['trainer']}.{key}": meta[key] for key in OPTIONS if key in meta}
    trainer = make_trainer(meta, meta["dataset_template"], settings)
    model, image, alpha, weight = trainer.model, values["image"], meta["ALPHA"], meta["REG_WEIGHT"]
    weights = {"ce_class": alpha, "ce_rep": 1 - alpha, "reg_image": weight, "reg_text": weight}
    check_three_steps(trainer, values, meta, weights)
    assert_close(model.without_prompts(image), values["aux.image_features_clip"], "frozen image features")
    assert_close(model.teacher_features(), values["aux.text_features_clip"], "frozen text features")
    for step in (0, 3):
        prefix = f"param{step}."
        state = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
        model.load_state_dict(state, strict=False)
        with torch.no_grad():
            by_class, by_tokens = model.eval().both_logits(model.encode_image(image), model.text_features())
            assert_close(by_class, values[f"logits_class{step}"], "class head")
            assert_close(by_tokens, values[f"logits_rep{step}"], "representation head")
            model.fused = False
            assert torch.equal(model(image), by_class)
            model.fused = True


def four_layers() -> CLIP:
    torch.manual_seed(0)
    return CLIP(32, 32, 4, 64, 16, 77, 49408, 64, 1, 4).requires_grad_(False).eval()


# ---- the definition ------------------------------------------------------------------------------------------------


def results(model: nn.Module, image: Tensor, weights: Tensor) -> list[Tensor]:
    """Logits, and the gradients of a weighted sum of them."""
    logits = model(image)
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [logits.detach(), *torch.autograd.grad((logits * weights).sum(), parameters)]


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("layers", [[1, 2, 3, 4], [2, 4], [3]])
def test_equals_the_definition(trainer: str, layers: list[int]):
    """Every prompt alone at 77 + n tokens, every image token through every block."""
    names = [*NAMES, "a cat with a hat on a mat", "x"]
    model = build(trainer, names, four_layers(), N_REP_TOKENS=3, REP_LAYERS=layers, REP_DIM=24)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:  # factors of zeros among them
            parameter.data += 0.05 * torch.randn_like(parameter)
    image = torch.randn(2, 3, 32, 32)
    weights = torch.randn(2, len(names))
    found, expected = results(model, image, weights), results(by_definition(model), image, weights)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs)


# ---- what is learned -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "count"), [(512, 4_992_256), (2048, 18_762_496)])
def test_mmrl_learns_these_tensors(width: int, count: int):
    """n R + J (R + 1) (Dv + Dt) + Dv E; at R 2048 of the published settings of EuroSAT."""
    found = learned(build("MMRL", NAMES, vit_b16(), REP_DIM=width))
    assert sum(found.values()) == count == 5 * width + 7 * (width + 1) * (768 + 512) + 768 * 512
    maps = {"r2v": 768, "r2t": 512}
    assert found == {
        f"{LEARNER}.compound_rep_tokens": 5 * width,
        **{f"{LEARNER}.compound_rep_tokens_{m}proj.{j}.weight": D * width for m, D in maps.items() for j in range(7)},
        **{f"{LEARNER}.compound_rep_tokens_{m}proj.{j}.bias": D for m, D in maps.items() for j in range(7)},
        f"{HEAD}.proj_rep": 768 * 512,
    }


def test_mmrlpp_learns_these_tensors():
    found = learned(build("MMRLpp", NAMES, vit_b16()))
    assert sum(found.values()) == 813_312 == 2_560 + 434_432 + 294_400 + 81_920
    maps = {"r2v": 768, "r2t": 512}
    assert found == {
        f"{LEARNER}.compound_rep_tokens": 5 * 512,
        **{f"{LEARNER}.srra_{m}proj.weight": D * 512 for m, D in maps.items()},
        **{f"{LEARNER}.srra_{m}proj.srra.{j}.A": D * 4 for m, D in maps.items() for j in range(7)},
        **{f"{LEARNER}.srra_{m}proj.srra.{j}.B": 4 * 512 for m in maps for j in range(7)},
        **{f"{LEARNER}.srra_{m}proj.srra.{j}.bias": D for m, D in maps.items() for j in range(7)},
        f"{HEAD}.A": 768 * 64,
        f"{HEAD}.B": 64 * 512,
    }


def test_all_layers_start_with_the_same_tokens():
    """Copies of one map, or additions of zero to one; MMRL++'s second head starts as the pretrained projection."""
    for trainer in TRAINERS:
        model = build(trainer, NAMES, four_layers(), REP_LAYERS=[2, 3, 4], REP_DIM=32)
        for tokens in (model.representation_learner.vision_tokens(), model.representation_learner.text_tokens()):
            assert len(tokens) == 3 and all(torch.equal(own, tokens[0]) for own in tokens)
        assert torch.equal(model.projection(), model.image_encoder.proj) == (trainer == "MMRLpp")


@pytest.mark.parametrize("trainer", TRAINERS)
def test_widths_and_precision_follow_the_backbone(trainer: str):
    """bf16 keeps 8 bits of the towers' numbers; what is learned and the logits stay in fp32."""

    def logits(prec: str) -> Tensor:
        clip_model = small_clip(128, 192)
        Precision(prec, torch.device("cpu")).cast(clip_model)
        torch.manual_seed(0)
        model = build(trainer, NAMES, clip_model, REP_LAYERS=[1, 2], REP_DIM=16)
        out = model(torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32))
        out.square().mean().backward()
        masters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in masters.values())
        idle = [name for name, p in masters.items() if not p.grad.abs().sum() > 0]
        assert all(name.endswith(".A") for name in idle), "beside factors of zeros"
        return out.detach()

    full, half = logits("fp32"), logits("bf16")
    assert half.dtype == torch.float32
    assert 0 < (half - full).abs().max() < 100 * 0.03


@pytest.mark.parametrize("layers", [[2, 1], [1, 1], [3], [0, 1], []])
def test_layers_that_do_not_fit(layers: list[int]):
    with pytest.raises(ValueError, match=r"REP_LAYERS is .* ascending layers of a tower of 2 layers.* such as \[2\]"):
        build("MMRL", NAMES, small_clip(), REP_LAYERS=layers)


def test_a_resnet_is_an_error():
    resnet: CLIP = small_clip(vision=16, layers=(1, 1, 1, 1))
    with pytest.raises(ValueError, match="need a ViT backbone, found a ResNet"):
        build("MMRL", NAMES, resnet, REP_LAYERS=[1])


# ---- checkpoints and read-outs -------------------------------------------------------------------------------------


def test_a_published_checkpoint_loads():
    """The whole model, partly in half precision, with embeddings of other classes' prompts."""
    model = build("MMRL", NAMES, small_clip(), REP_LAYERS=[1, 2], REP_DIM=16)
    state = {name: torch.full_like(p, 0.5) if p.requires_grad else p.half() for name, p in model.named_parameters()}
    published = {**state, "prompt_embeddings": torch.zeros(50, 77, 64)}
    load_learned(model, published, "file", model.pretrained_tensors(), MMRL.not_loaded)
    assert all((p == 0.5).all() for _, p in model.named_parameters() if p.requires_grad)


def given(trainer: ClipTrainer, **options: Any) -> ClipTrainer:
    """The trainer with other settings than it was built with."""
    trainer.cfg.defrost()
    for key, value in options.items():
        *path, name = key.split("__")
        node = trainer.cfg
        for part in path:
            node = node[part]
        node[name] = value
    return trainer


@pytest.fixture(scope="module")
def on_classes() -> dict[str, ClipTrainer]:
    return {classes: make("MMRL", DATASET__SUBSAMPLE_CLASSES=classes) for classes in ("base", "new", "all")}


@pytest.fixture
def of_base(on_classes: dict[str, ClipTrainer], tmp_path: Path) -> str:
    """The folder of weights of the base classes."""
    return save(on_classes["base"], tmp_path / "ours")


@pytest.mark.parametrize(
    ("classes", "read_out", "fused"),
    [
        ("base", "auto", True),
        ("new", "auto", False),
        ("all", "auto", False),
        ("new", "fusion", True),
        ("base", "class", False),
    ],
)
def test_the_read_out_of_a_test(
    on_classes: dict[str, ClipTrainer], of_base: str, tmp_path: Path, classes: str, read_out: str, fused: bool
):
    """Fusion on the classes trained on, class head on others: as published, but without being told the task."""
    published = save(on_classes["base"], tmp_path / "published", published=True)
    trainer = given(on_classes[classes], TRAINER__MMRL__READ_OUT=read_out)
    for folder in (of_base, published):
        trainer.load_model(folder, epoch=1)
        assert trainer.model.fused == fused
        (note,) = trainer.result_notes()
        assert ("logits of both heads" if fused else "logits of the class head alone") in note
        assert ("do not say" in note) == (folder == published)


def test_another_data_set_of_the_same_classes_gets_the_class_head(on_classes: dict[str, ClipTrainer], tmp_path: Path):
    """Two of ImageNet's variants have all of ImageNet's classes."""
    trainer = given(on_classes["all"], TRAINER__MMRL__READ_OUT="auto", DATASET__NAME="ImageNet")
    ours, published = save(trainer, tmp_path / "ours"), save(trainer, tmp_path / "published", published=True)
    for folder in (ours, published):
        trainer.load_model(folder, epoch=1)
        assert trainer.model.fused
    given(trainer, DATASET__NAME="ImageNetV2")
    for folder in (ours, published):
        trainer.load_model(folder, epoch=1)
        assert not trainer.model.fused
    given(trainer, DATASET__NAME="Emoji")


def test_initial_weights_do_not_decide_the_read_out_of_a_training(
    on_classes: dict[str, ClipTrainer], of_base: str, tmp_path: Path
):
    trainer = given(on_classes["new"], TRAINER__MMRL__READ_OUT="auto")
    trainer._load_initial(trainer.model, f"{of_base}/{MMRL.registered_name}/model.pth.tar-1")
    assert not trainer.model.fused
    trainer.before_train()
    assert trainer.model.fused


def test_beta_is_the_trainings_unless_the_published_tuning_is_asked_for(tmp_path: Path):
    trainer = make("MMRLpp")
    folder = save(trainer, tmp_path)

    def tested(dataset: str, **options: Any) -> tuple[float, list[str]]:
        given(trainer, DATASET__NAME=dataset, **options).load_model(folder, epoch=1)
        return trainer.model.beta, trainer.result_notes()

    assert tested("StanfordCars")[0] == 0.9
    beta, notes = tested("StanfordCars", TRAINER__MMRLpp__TARGET_BETA=True)
    assert beta == 0.3
    assert "TARGET_BETA True: BETA 0.3" in notes[1] and "instead of the training's 0.9" in notes[1]
    assert tested("ImageFolder")[0] == 0.9, "not one of the published targets"
    assert tested("Emoji")[0] == 0.9, "no target, but the data set trained on"
    with pytest.raises(ValueError, match=r"beta: 0\.9 in the file, 0\.3 here"):
        tested("StanfordCars", TRAINER__MMRLpp__BETA=0.3)


def test_weights_that_do_not_fit_name_the_options(on_classes: dict[str, ClipTrainer], of_base: str, tmp_path: Path):
    wide = {"REP_DIM": 64, "N_REP_TOKENS": 2, "REP_LAYERS": [2, 3, 4]}
    for name in TRAINERS:
        node = f"TRAINER.{name}."
        ranks = {"PROJ_LORA_DIM": 8, "RES_LORA_DIM": 2} if name == "MMRLpp" else {}
        trainer = make(name, **{f"TRAINER__{name}__{key}": value for key, value in (wide | ranks).items()})
        folder = save(trainer, tmp_path / name, published=True)
        message = refusal(make(name), folder)
        expected = {"N_REP_TOKENS": 2, "REP_DIM": 64, **ranks, "REP_LAYERS": "'[2, 3, 4]'"}
        assert message == "It fits with " + " ".join(f"{node}{key} {value}" for key, value in expected.items())
        assert f"was trained by {name}: pass --trainer {name}" in refusal(make("CoOp"), folder)
    with pytest.raises(ValueError, match=r"rep_layers: \[3, 4\] in the file, \[2, 4\] here"):
        given(on_classes["base"], TRAINER__MMRL__REP_LAYERS=[2, 4]).load_model(of_base, epoch=1)
    assert MMRL.options_for({"ctx": (4, 64)}, CfgNode()) is None

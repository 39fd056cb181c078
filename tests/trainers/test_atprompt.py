"""ATPrompt: golden values, what it learns, its attributes, its checkpoints."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import clip
from benchmarks.definitional import encode_image, encode_text, pad_prompts
from clip.layout import PromptTokens
from clip.model import CLIP
from tests import golden
from tests.paths import needs_golden
from tests.trainers.test_methods import NAMES, learned, small_clip, vit_b16
from trainers.atprompt import ATTRIBUTES, ATPrompt
from trainers.checkpoint import load_learned
from trainers.prompted_clip import PromptedCLIP, unit


def build(base: str, attributes: list[str], clip_model: CLIP | None = None, **values: Any) -> PromptedCLIP:
    depth = {"PROMPT_DEPTH": 2} if base == "MaPLe" and clip_model is None else {}
    values = {"N_CTX": 2, "ATTRIBUTES": attributes, **depth, **values}
    return golden.build("ATPrompt", NAMES, clip_model or small_clip(), BASE=base, **values)


@pytest.mark.slow
@needs_golden
@pytest.mark.parametrize("file", ["coop_2att", "coop_3att", "coop_pets", "maple_2att"])
def test_three_steps_equal_golden(file: str) -> None:
    values, meta = golden.read(f"atprompt_{file}.safetensors")
    base, node = ("MaPLe", "MAPLE") if "maple" in file else ("CoOp", "COOP")
    settings = {"TRAINER.ATPROMPT.BASE": base, f"TRAINER.{node}.N_CTX": meta["N_CTX"]}
    settings |= {"TRAINER.MAPLE.PROMPT_DEPTH": meta.get("PROMPT_DEPTH", 1)}
    trainer = golden.make_trainer({**meta, "trainer": "ATPrompt"}, meta["dataset"], settings)
    assert trainer.model.prompt_learner.attributes == tuple(meta["ATTRIBUTES"])
    assert trainer.registered_name == meta["registered_as"]
    golden.check_three_steps(trainer, values, meta)
    saved = set(trainer.checkpoint_root().state_dict())
    assert set(meta["checkpoint_names"].values()) <= saved, "also those of attributes that there are not"


def test_learns_these_tensors() -> None:
    """M Dt for the context, N Dt before each attribute; the tokens of a third attribute are kept, but not learned."""
    coop = build("CoOp", ["color", "shape"], vit_b16())
    assert learned(coop) == dict.fromkeys((f"prompt_learner.{name}" for name in ("ctx", "ctx_att1", "ctx_att2")), 1024)
    assert coop.prompt_learner.get_buffer("ctx_att3").shape == (2, 512)
    maple = learned(build("MaPLe", ["color", "shape"], vit_b16()))
    base = learned(golden.build("MaPLe", NAMES, vit_b16()))
    assert sum(base.values()) == 3_555_072 and sum(maple.values()) == 3_555_072 + 2_048
    assert set(maple) == {*base, "prompt_learner.ctx_att1", "prompt_learner.ctx_att2"}
    other = build("CoOp", ["color"], N_ATT=3)
    assert learned(other) == {"prompt_learner.ctx": 2 * 64, "prompt_learner.ctx_att1": 3 * 64}


def test_tokens_start_small_and_random() -> None:
    """The context as N(0, 0.02), tokens before attributes as N(0, 0.01)."""
    torch.manual_seed(0)
    learner = build("CoOp", ["color"], vit_b16(), N_CTX=8).prompt_learner
    assert abs(learner.ctx.std().item() - 0.02) < 0.002
    for i in (1, 2, 3):
        assert abs(getattr(learner, f"ctx_att{i}").std().item() - 0.01) < 0.001


def test_each_attribute_follows_tokens_of_its_own() -> None:
    """SOS, ctx_att1, "color", ctx_att2, "shape", ctx, the name, the full stop, EOT."""
    model = small_clip()
    learner = build("CoOp", ["color", "shape"], model, N_CTX=2, N_ATT=1).prompt_learner
    table = learner.embeddings()
    color, shape, cat, stop = model.token_embedding(clip.tokenize(["color", "shape", "cat", "."])[:, 1:2])
    expected = torch.cat([learner.ctx_att1, color, learner.ctx_att2, shape, learner.ctx, cat, stop])
    assert torch.equal(table[torch.tensor(learner.sequences[0][1:-1])], expected)


def test_the_two_tokens_of_a_published_attribute_shift_what_follows() -> None:
    """OxfordPets: ctx_att1, "play", ctx_att2, "X", ctx, "X", the name; "energy" is never seen."""
    model = small_clip()
    dataset = type("OxfordPets", (), {"classnames": NAMES})()
    options = golden.trainer_options("ATPrompt", BASE="CoOp", N_CTX=2)
    learner: Any = ATPrompt.build(options, dataset, model).prompt_learner
    play, x, cat = model.token_embedding(clip.tokenize(["playfulness", "X", "cat"])[:, 1:2])
    expected = torch.cat([learner.ctx_att1, play, learner.ctx_att2, x, learner.ctx, x, cat])
    assert torch.equal(learner.embeddings()[torch.tensor(learner.sequences[0][1:-2])], expected)


@pytest.mark.parametrize("attributes", [["color"], ["playfulness", "energy"], ["color", "habitat", "growth"]])
@pytest.mark.parametrize("base", ["CoOp", "MaPLe"])
def test_equals_the_definition(base: str, attributes: list[str]) -> None:
    """Every class separately at full length; before block 1 the context alone is replaced."""
    clip_model = small_clip()
    model = build(base, attributes, clip_model, N_CTX=3, **({"PROMPT_DEPTH": 2} if base == "MaPLe" else {}))
    learner: Any = model.prompt_learner
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            if "ctx" in name:
                parameter.normal_(std=0.1)
    prompts, eot = pad_prompts(learner.sequences, learner.embeddings(), clip_model.context_length)
    start = 1 + len(attributes) * 4
    deep_text = {1: PromptTokens(learner.compound_prompts_text[0], start)} if base == "MaPLe" else {}
    found, expected = model.text_features(), unit(encode_text(model.text_encoder, prompts, eot, deep_text))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    parameters = [p for name, p in learner.named_parameters() if "proj" not in name]
    weights = torch.randn_like(found)
    gradients = (torch.autograd.grad((f * weights).sum(), parameters) for f in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * max(1.0, theirs.abs().max().item()))
    if base == "MaPLe":
        ctx, deep = learner.vision_prompts()
        image = torch.randn(2, 3, 32, 32)
        vision = unit(encode_image(clip_model.visual, image, ctx, deep))  # type: ignore[arg-type]
        torch.testing.assert_close(model.image_features(image), vision, rtol=0, atol=1e-5)


def test_every_published_data_set_has_one_to_three_attributes() -> None:
    """All but OxfordPets' first are one token; the family of ImageNet shares its two."""
    assert len(ATTRIBUTES) == 15 and all(1 <= len(attributes) <= 3 for attributes in ATTRIBUTES.values())
    every = {attribute for attributes in ATTRIBUTES.values() for attribute in attributes}
    assert [a for a in every if clip.tokenize(a)[0].count_nonzero() != 3] == ["playfulness"]


@pytest.mark.parametrize(
    ("base", "attributes", "values", "message"),
    [
        ("CoOp", [], {}, r"no attributes are published for SimpleNamespace: .*TRAINER.ATPROMPT.ATTRIBUTES"),
        ("CoOp", ["color"] * 4, {}, "has 4 entries, expected one to 3"),
        (
            "CoOp",
            ["photogenic looks"],
            {},
            "photogenic looks' is . tokens, expected a word that is one token of CLIP's",
        ),
        ("CoOp", [""], {}, "'' is 0 tokens"),
        ("CoOp", ["color"], {"CSC": True}, "needs TRAINER.COOP.CSC False"),
        ("CoOp", ["color"], {"CLASS_TOKEN_POSITION": "middle"}, "CLASS_TOKEN_POSITION end"),
        ("MaPLe", ["color"], {"N_ATT": 4}, "N_ATT is 4: on MaPLe it must be 0 or N_CTX, which is 2"),
    ],
)
def test_settings_that_do_not_fit(base: str, attributes: list[str], values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(base, attributes, **values)


def test_weights_of_two_attributes_are_tested_with_three() -> None:
    """As in published transfers: the third data set attribute gets the tokens that were never trained."""
    trained = build("CoOp", ["color", "shape"])
    target = build("CoOp", ["color", "habitat", "growth"])
    state = trained.prompt_learner.state_dict() | {"token_middle2": torch.zeros(3, 1, 64)}
    load_learned(target.prompt_learner, state, "file", target.pretrained_tensors(), ATPrompt.not_loaded)
    found: nn.Module = target.prompt_learner
    assert torch.equal(found.get_parameter("ctx_att3"), trained.prompt_learner.get_buffer("ctx_att3"))


def test_the_build_needs_no_more_than_class_names_and_options() -> None:
    options = golden.trainer_options("ATPrompt", BASE="CoOp", N_CTX=2, ATTRIBUTES=["color"])
    model = ATPrompt.build(options, SimpleNamespace(classnames=NAMES[:1]), small_clip())
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 1)

"""CoPrompt against the values of an independent implementation, and its descriptions."""

import json
from pathlib import Path

import pytest
import torch

from tests import golden
from tests.paths import needs_golden
from tests.trainers.test_golden import assert_close
from tests.trainers.test_methods import NAMES, indexed, learned, vit_b16
from trainers.coprompt import read_descriptions

OPTIONS = ("N_CTX", "CTX_INIT", "PROMPT_DEPTH", "W", "DISTILL")


@needs_golden
@pytest.mark.parametrize("name", ["coprompt_depth3_ctx4", "coprompt_depth2_ctx2_mse"])
def test_three_steps_equal_the_golden_ones(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    values, meta = golden.read(f"{name}.safetensors")
    file = tmp_path / "descriptions.json"
    file.write_text(json.dumps(meta["descriptions"]), encoding="utf-8")
    trainer = golden.make_trainer(meta, settings={f"TRAINER.COPROMPT.{key}": meta[key] for key in OPTIONS})
    model = trainer.model
    golden.load_parameters(model, values, "param0.")
    model.descriptions = [model.teacher_of(texts) for texts in read_descriptions(file, meta["classnames"])]
    for d, expected in enumerate(values["aux.description_text"]):
        assert_close(model.descriptions[d].features(model.text_encoder), expected, f"description {d}")
    drawn = iter(values["aux.description_index"])
    monkeypatch.setattr(torch, "randint", lambda high, size: next(drawn))

    views = torch.stack([values["image"], values["image2"]])
    with torch.no_grad():
        assert_close(model.eval()(values["image"]), values["logits0"], "logits0")
    for step in range(meta["steps"]):
        trainer.set_model_mode("train")
        _, terms = trainer.losses(views, values["label"])
        assert_close(terms["ce"], values["loss_terms.ce"][step], "ce")
        distill = (terms["distill_text"] + terms["distill_image"]) / meta["W"]
        assert_close(distill, values["loss_terms.distill"][step], "distill")
        loss = trainer.update(terms)
        assert_close(loss, values["losses"][step], "loss")
        if step == 0:
            for key, parameter in model.named_parameters():
                if parameter.requires_grad:
                    assert_close(parameter.grad, values[f"grad0.{key}"], key)
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert_close(parameter, values[f"param3.{key}"], key)
    with torch.no_grad():
        assert_close(model.eval()(values["image"]), values["logits3"], "logits3")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no descriptions of the classes in .*gpt_file"),
        ([], r"no descriptions of cat, big_dog|no descriptions of cat, big dog"),
        ({"cat": ["a", "b"]}, "no descriptions of big dog"),
        ({"cat": ["a"], "big dog": ["c", "d"]}, "equally many descriptions of every class, found 1 to 2"),
        ({"cat": ["a", 3], "big dog": ["c", "d"]}, "a list of texts for each class, not what is there for cat"),
        ({"cat": [], "big dog": []}, "not what is there for cat, big dog"),
        ({"cat": "ab", "big dog": ["c", "d"]}, "not what is there for cat"),
        ({"cat": ["word " * 80], "big dog": ["c"]}, "up to 77 tokens"),
    ],
)
def test_wrong_descriptions(tmp_path: Path, content: object, message: str):
    file = tmp_path / "descriptions.json"
    if content is not None:
        file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        read_descriptions(file, ["cat", "big_dog"])


def test_one_list_of_classes_for_each_description(tmp_path: Path):
    file = tmp_path / "descriptions.json"
    file.write_text(json.dumps({"big dog": ["c", "d"], "cat": ["a", "b"], "owl": []}), encoding="utf-8")
    assert read_descriptions(file, ["cat", "big_dog"]) == [["a", "c"], ["b", "d"]]


@pytest.mark.parametrize(("depth", "tokens", "count"), [(12, 4, 5_014_528), (12, 2, 5_002_240), (9, 4, 3_826_432)])
def test_learned_tensors_at_vit_b16(depth: int, tokens: int, count: int):
    """MaPLe's, and two matrices of 512 x 128 in each of two adapters."""
    names = learned(golden.build("CoPrompt", NAMES, vit_b16(), PROMPT_DEPTH=depth, N_CTX=tokens))
    assert sum(names.values()) == count
    assert set(names) == {
        *("prompt_learner.ctx", "prompt_learner.proj.weight", "prompt_learner.proj.bias"),
        *indexed("prompt_learner.compound_prompts_text", depth - 1),
        *indexed("prompt_learner.compound_prompt_projections", depth - 1, ".weight", ".bias"),
        *(f"adapter_{tower}.fc.{layer}.weight" for tower in ("image", "text") for layer in (0, 2)),
    }

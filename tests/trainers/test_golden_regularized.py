"""Methods with further loss terms against the values of an independent implementation, in fp32."""

import pytest
import torch

from tests.golden import assert_close, check_three_steps, make_trainer, read
from tests.paths import needs_golden

pytestmark = needs_golden


@pytest.mark.parametrize("name", ["kgcoop_w8", "kgcoop_random6_w2"])
def test_kgcoop(name: str):
    values, meta = read(f"{name}.safetensors")
    words = "a photo of a" if meta["CTX_INIT"] else ""
    settings = {"N_CTX": meta["N_CTX"], "CTX_INIT": words, "W": meta["W"]}
    trainer = make_trainer(meta, meta["dataset"], {f"TRAINER.KGCOOP.{key}": value for key, value in settings.items()})
    assert trainer.checkpoint_root().state_dict().keys() == set(meta["checkpoint_names"].values())
    assert_close(trainer.model.teacher_features(), values["aux.teacher_text"], "teacher")
    check_three_steps(trainer, values, meta, weights={"score": meta["W"]})


def test_kgcoops_idle_tensors_are_not_loaded():
    """Published files have them at the width of ViT-B/16."""
    values, meta = read("kgcoop_w8.safetensors")
    trainer = make_trainer(meta, meta["dataset"])
    published = {
        "ctx": values["param3.prompt_learner.ctx"],
        "token_prefix": torch.zeros(7, 1, 64),
        "token_suffix": torch.zeros(7, 72, 64),
        "bias_vectors": torch.zeros(1, 512),
        "meta_net.linear1.weight": torch.zeros(512, 512),
        "meta_net.linear1.bias": torch.zeros(512),
    }
    trainer.load_weights("prompt_learner", published, "file")
    with torch.no_grad():
        assert_close(trainer.model.eval()(values["image"]), values["logits3"], "logits3")
    with pytest.raises(ValueError, match=r"unexpected meta_net.linear2.weight"):  # another method's
        trainer.load_weights("prompt_learner", published | {"meta_net.linear2.weight": torch.zeros(64, 4)}, "file")


@pytest.mark.parametrize("name", ["tcp_layer1", "tcp_layer2", "tcp_adam"])
def test_tcp(name: str):
    values, meta = read(f"{name}.safetensors")
    settings = {"TRAINER.TCP.W": meta["W"], "TRAINER.TCP.INSERT_LAYER": meta["INSERT_LAYER"]}
    trainer = make_trainer(meta, meta["dataset"], settings)
    assert trainer.optim.defaults.items() >= {k: v for k, v in meta["optim"].items() if k in ("lr", "eps")}.items()
    assert trainer.checkpoint_root().state_dict().keys() == set(meta["checkpoint_names"].values())
    assert_close(trainer.model.teacher_features(), values["aux.teacher_text"], "teacher")
    check_three_steps(trainer, values, meta, weights={"score": meta["W"]})

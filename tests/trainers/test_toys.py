"""The seams carry methods that are not prompts and cross entropy: three toys, each in one file of under 60 lines.

Each is trained on the demonstration in fp32 and in bf16, stopped and resumed to the same bits, saved and loaded.
"""

import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from yacs.config import CfgNode

import datasets  # noqa: F401  (registers the datasets)
import train
from dassl.config import merge_file, merge_options
from dassl.utils import set_random_seed
from tests.dassl.tiny import Stop, stop_after_epoch
from tests.paths import ROOT
from tests.trainers.test_methods import NAMES, small_clip
from tests.trainers.toys.cache import ToyCache
from tests.trainers.toys.distillation import ToyDistillation
from tests.trainers.toys.low_rank import ToyLowRank
from trainers.base import ClipTrainer
from trainers.prompted_clip import FixedTextCLIP, FixedTexts, unit
from trainers.prompts import fill

TOYS = [ToyDistillation, ToyLowRank, ToyCache]
LEARNED = {  # of ViT-Micro/8: M = 2 tokens, depth 3, widths 128; four blocks; 20 base classes at 1 shot
    ToyDistillation: {"prompt_learner.ctx", "image_encoder.VPT", "VPT_shallow"},
    ToyLowRank: {"in_proj_weight.0.A", "in_proj_weight.0.B", "c_fc.product.A", "c_fc.product.B"},
    ToyCache: {"keys"},
}
TERMS = {ToyDistillation: {"ce", "scl_image", "scl_text"}, ToyLowRank: {"ce"}, ToyCache: {"ce"}}


def make(toy: type[ClipTrainer], folder: Path, prec: str = "fp32", epochs: int = 2) -> ClipTrainer:
    cfg = train.default_cfg()
    cfg.TRAINER.NAME = toy.__name__
    cfg.TRAINER.TOY = CfgNode({"PREC": prec})
    for path in ("datasets/emoji.yaml", "trainers/MaPLe/vit_micro.yaml"):
        merge_file(cfg, ROOT / "configs" / path)
    options = {"DATASET.NUM_SHOTS": 1, "DATASET.SUBSAMPLE_CLASSES": "base", "DATALOADER.TRAIN_X.BATCH_SIZE": 5}
    options |= {"TEST.NO_TEST": True}  # after training
    options |= {"OUTPUT_DIR": folder, "SEED": 1, "VERBOSE": False, "OPTIM.MAX_EPOCH": epochs, "OPTIM.WARMUP_EPOCH": 0}
    merge_options(cfg, [str(word) for pair in options.items() for word in pair])
    set_random_seed(1)
    return toy(cfg)


def everything(trainer: ClipTrainer) -> dict[str, torch.Tensor]:
    return {name: t.detach().clone() for name, t in trainer.model.state_dict().items()}


@pytest.mark.parametrize("toy", TOYS)
def test_a_toy_is_one_small_file(toy):
    assert len(inspect.getsource(inspect.getmodule(toy)).splitlines()) < 60


@pytest.mark.parametrize("prec", ["fp32", "bf16"])
@pytest.mark.parametrize("toy", TOYS)
def test_a_toy_trains_stops_resumes_saves_and_loads(toy, prec, tmp_path):
    whole = make(toy, tmp_path / "whole", prec)
    learned = {name: p for name, p in whole.model.named_parameters() if p.requires_grad}
    assert all(any(part in name for part in LEARNED[toy]) for name in learned)
    assert all(p.dtype == torch.float32 for p in learned.values())
    start = everything(make(toy, tmp_path / "start", prec))
    whole.train()
    history = [json.loads(line) for line in (tmp_path / "whole" / "history.jsonl").read_text().splitlines()]
    assert [row["losses"].keys() for row in history] == [{"loss", "acc"} | TERMS[toy]] * 2
    for row in history:
        assert row["losses"]["loss"] == pytest.approx(sum(row["losses"][term] for term in TERMS[toy]), rel=1e-5)
    assert not [name for name, p in learned.items() if torch.equal(p.detach(), start[name])], "not trained"

    stopped = make(toy, tmp_path / "stopped", prec)
    stop_after_epoch(stopped, 1)
    with pytest.raises(Stop):
        stopped.train()
    resumed = make(toy, tmp_path / "stopped", prec)
    resumed.fit = None  # a resumed run has no use for it
    resumed.train()
    assert resumed.start_epoch == 1
    for name, tensor in everything(whole).items():
        assert torch.equal(tensor, everything(resumed)[name]), name

    loaded = make(toy, tmp_path / "loaded", prec)
    loaded.load_model(str(tmp_path / "whole"), epoch=2)
    for name, tensor in everything(whole).items():
        assert torch.equal(tensor, everything(loaded)[name]), name
    saved = torch.load(tmp_path / "whole" / toy.registered_name / "model.pth.tar-2", weights_only=True)["state_dict"]
    assert sum(t.numel() for t in saved.values()) < 0.3 * sum(t.numel() for t in everything(whole).values())


def test_low_rank_weights_are_exact_under_packing():
    """Packed text features equal those of each prompt alone, with weights that are not zero."""
    clip_model = small_clip()
    model = ToyLowRank.build(CfgNode(), SimpleNamespace(classnames=NAMES), clip_model).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(".B"):
            torch.nn.init.normal_(parameter, std=0.1)
    alone = [FixedTexts(clip_model, [text]) for text in fill("a photo of a {}.", NAMES)]
    expected = torch.cat([unit(model.text_encoder(t.token_embeddings, t.layout)) for t in alone])
    torch.testing.assert_close(model.text_features(), expected, rtol=0, atol=1e-5)
    plain = FixedTextCLIP(small_clip(), [fill("a photo of a {}.", NAMES)])
    assert (model.text_features() - plain.text_features()).abs().max() > 1e-3

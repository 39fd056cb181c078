"""TRAIN.RANDOMNESS published: what a seed gives, against recordings of the published engine and trainers."""

import json

import pytest
import torch
from safetensors import safe_open

from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from datasets.caltech101 import Caltech101
from tests.paths import GOLDEN, ROOT, needs_golden
from train import parse_args, setup_cfg

RECORDED = sorted(path.stem for path in (GOLDEN / "seed").glob("*.safetensors"))
pytestmark = needs_golden


@pytest.fixture(autouse=True)
def _two_threads(_same_threads):
    torch.set_num_threads(2)  # as recorded: another number sums in another order


@pytest.fixture(autouse=True)
def _miniature(monkeypatch):
    monkeypatch.setattr(Caltech101, "expected_classes", None)  # the recording has six classes


def recorded(name):
    with safe_open(GOLDEN / "seed" / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["meta"])  # noqa: SIM118


def trainer_of(meta, output, *options):
    method = meta["trainer"]
    args = parse_args(
        [
            *("--trainer", method, "--seed", str(meta["seed"]), "--root", str(GOLDEN / "seed/data")),
            *("--dataset-config-file", str(ROOT / "configs/datasets/caltech101.yaml")),
            *("--config-file", str(ROOT / f"configs/trainers/{meta['config']}.yaml")),
            *("--backbone", str(GOLDEN / meta["backbone"]), "--output-dir", str(output)),
            *(*meta["options"], "USE_CUDA", "False", "TRAIN.RANDOMNESS", "published", *options),
            *("MODEL.BACKBONE.ACTIVATION", "quick_gelu"),
        ]
    )
    cfg = setup_cfg(args)
    set_random_seed(cfg.SEED)
    return build_trainer(cfg)


def train(trainer):
    """Train, and return the batches and the losses of all steps."""
    batches, losses, step = [], [], trainer.forward_backward

    def observed(batch):
        batches.append(batch)
        terms = step(batch)
        losses.append(terms["loss"])
        return terms

    trainer.forward_backward = observed
    trainer.train()
    return batches, losses


def learned(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", RECORDED)
def test_a_run_draws_what_the_published_code_drew(name, tmp_path):
    golden, meta = recorded(name)
    trainer = trainer_of(meta, tmp_path)
    initial = learned(trainer)
    assert initial.keys() == {key.removeprefix("initial.") for key in golden if key.startswith("initial.")}
    for key, value in initial.items():
        assert torch.equal(value, golden[f"initial.{key}"]), key
    batches, losses = train(trainer)
    assert len(batches) == len(meta["steps"])
    root = str(GOLDEN / "seed/data")
    for i, (batch, step) in enumerate(zip(batches, meta["steps"], strict=True)):
        assert [path.removeprefix(f"{root}/") for path in batch["impath"]] == step["paths"]
        assert torch.equal(batch["img"], golden[f"step{i}.image"])
        assert torch.equal(batch["label"], golden[f"step{i}.label"])
    # Prompts that share tokens are computed together, and sums of other lengths are rounded in another order
    assert losses == pytest.approx(golden["losses"].tolist(), rel=2e-6, abs=1e-7)
    for key, value in learned(trainer).items():
        expected = golden[f"final.{key}"]
        assert (value - expected).abs().max() <= 1e-5 * expected.abs().max(), key


@pytest.mark.parametrize("name", ["MaPLe_workers0", "IVLP_workers2"])
def test_a_resumed_run_draws_the_same(name, tmp_path):
    golden, meta = recorded(name)
    stopped = trainer_of(meta, tmp_path)

    def stop_in_the_second():
        if stopped.epoch == 1:
            raise KeyboardInterrupt

    stopped.before_epoch = stop_in_the_second
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = trainer_of(meta, tmp_path)
    batches, losses = train(resumed)
    second = len(meta["steps"]) // 2
    assert len(batches) == second
    assert all(torch.equal(batch["img"], golden[f"step{second + i}.image"]) for i, batch in enumerate(batches))
    whole = trainer_of(meta, tmp_path / "whole")
    assert train(whole)[1][second:] == losses
    assert all(torch.equal(value, learned(whole)[key]) for key, value in learned(resumed).items())


def test_a_run_does_not_resume_with_other_workers_which_draw_other_crops(tmp_path):
    _, meta = recorded("MaPLe_workers0")
    trainer_of(meta, tmp_path, "OPTIM.MAX_EPOCH", "1").train()
    with pytest.raises(ValueError, match=r"DATALOADER\.NUM_WORKERS: 0 there, 2 now"):
        trainer_of(meta, tmp_path, "OPTIM.MAX_EPOCH", "1", "DATALOADER.NUM_WORKERS", "2").train()

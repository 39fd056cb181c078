"""Bundles: what is written is read back, and a hostile or broken one is one clear error."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import inference
from clip.search import load_state_dict
from dassl.utils.checkpoints import load_checkpoint, save_safetensors
from inference.bundle import weights_checksum
from inference.export_formats import export
from tests.inference.small_runs import CLASSNAMES, small_run

PICTURE_SEED = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of MaPLe, with its bundle in the folder `bundle`."""
    folder = tmp_path_factory.mktemp("bundles") / "run"
    small_run("maple", folder)
    export(inference.load(folder), folder / "bundle", ["bundle"], hub=True)
    return folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "bundle", tmp_path / "bundle"))


def images(classifier: inference.Classifier) -> torch.Tensor:
    side = classifier.run.cfg.INPUT.SIZE[0]
    return torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(PICTURE_SEED))


def test_a_bundle_gives_the_run_s_logits(made: Path, bundle: Path) -> None:
    own, loaded = inference.load(made), inference.load(bundle)
    assert loaded.classnames == own.classnames == CLASSNAMES
    assert torch.equal(loaded.logits(images(own)), own.logits(images(own)))
    other = ["dog", "boat"]
    assert torch.equal(loaded.with_classes(other).text_features(), own.with_classes(other).text_features())


def test_the_folder_is_ready_for_the_hub(bundle: Path) -> None:
    card = (bundle / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["pipeline_tag"] == "zero-shot-image-classification" and header["tags"][-1] == "maple"
    assert "ViT-Micro/8" in card and "fire\\_engine" in card
    assert "*.safetensors filter=lfs" in (bundle / ".gitattributes").read_text()
    assert str(bundle.parent) not in (bundle / "config.yaml").read_text(), "a path of this machine"


def test_the_checksum_does_not_depend_on_the_format(tmp_path: Path) -> None:
    """SHA-256 of names, shapes and bytes; computed here by hand for two tensors."""
    import hashlib

    weights = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor([[0.5]])}
    expected = hashlib.sha256(b"a (1, 1)\n" + b"\0\0\0\x3f" + b"b (2,)\n" + b"\0\0\x80\x3f" + b"\0\0\0\x40").hexdigest()
    assert weights_checksum(weights) == expected
    assert weights_checksum({name: tensor.half() for name, tensor in weights.items()}) == expected


def test_a_bundle_keeps_the_classes_of_its_run(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a bundle has the classes of its run"):
        export(inference.load(made, classnames=["dog"]), tmp_path, ["bundle"])
    assert not list(tmp_path.iterdir())


def change(**entries: Any) -> Callable[[Path], None]:
    def apply(bundle: Path) -> None:
        path = bundle / "bundle.json"
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **entries}), encoding="utf-8")

    return apply


def change_settings(pattern: str, replacement: str) -> Callable[[Path], None]:
    def apply(bundle: Path) -> None:
        path = bundle / "config.yaml"
        text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert count
        path.write_text(text, encoding="utf-8")

    return apply


def change_tensors(alter: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def apply(bundle: Path) -> None:
        tensors = load_file(bundle / "model.safetensors")
        alter(tensors)
        save_file(tensors, bundle / "model.safetensors")

    return apply


def cut(bundle: Path) -> None:
    path = bundle / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flip(bundle: Path) -> None:
    path = bundle / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def pickled(bundle: Path) -> None:
    torch.save({"state_dict": {}}, bundle / "model.safetensors")


def absurd(bundle: Path) -> None:
    header = json.dumps({"ctx": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4 * 10**18]}}).encode()
    (bundle / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(version=2), "has version 2, this project reads version 1"),
        (change(format="other"), "is not the description of a bundle"),
        (change(trainer="NoSuchMethod"), "trainer is 'NoSuchMethod', config.yaml 'MaPLe'"),
        (change(classnames=[]), "expected a list of class names"),
        (change(classnames=["cat", 3]), "expected class names, not 3"),
        (change(classnames=["x" * 2000]), "class names of up to 2,000 characters"),
        (change(backbone={"name": "ViT-Micro/8"}), "backbone.sha256"),
        (change(backbone={"name": "ViT-Micro/8", "sha256": "0" * 64}), "was made with another backbone"),
        (change(backbone={"name": "/etc/passwd", "sha256": "0" * 64}), "weights file 'passwd', which it does not"),
        (
            change(backbone={"name": "../../secret.pt", "sha256": "0" * 64}),
            "weights file 'secret.pt', which it does not",
        ),
        (change(backbone={"name": "NoCLIP", "sha256": "0" * 64}), "needs the backbone 'NoCLIP': unknown CLIP model"),
        (change_settings(r"^( *NAME: )MaPLe", r"\1NoSuchMethod"), "'NoSuchMethod' is not registered"),
        (change_settings(r"^( *PROMPT_DEPTH: )\d+", r"\g<1>99"), "prompt depth 99 does not fit"),
        (change_settings(r"\A", "NO_SUCH_KEY: 1\n"), "NO_SUCH_KEY"),
        (change_settings(r"^( +)SIZE:.*(?:\n +- .*)*", r"\1SIZE: [4096, 4096]"), "expected at most 2048 pixels"),
        (lambda bundle: (bundle / "bundle.json").write_text("{"), "is not valid JSON"),
        (lambda bundle: (bundle / "config.yaml").unlink(), "lacks config.yaml"),
        (lambda bundle: (bundle / "model.safetensors").unlink(), "lacks model.safetensors"),
        (change_tensors(lambda t: t.update({"prompt_learner.ctx": torch.zeros(7, 7)})), r"ctx has shape \(7, 7\)"),
        (change_tensors(lambda t: t.pop("prompt_learner.ctx")), "missing prompt_learner.ctx"),
        (change_tensors(lambda t: t.update({"more": torch.zeros(1)})), "unexpected more"),
        (change_tensors(lambda t: t["prompt_learner.ctx"].fill_(torch.nan)), "ctx holds NaN"),
        (cut, "cannot be read as safetensors"),
        (flip, "is damaged: the bytes of 1 of its"),
        (pickled, "cannot be read as safetensors"),
        (absurd, "cannot be read as safetensors"),
    ],
)
def test_a_broken_bundle_is_one_clear_error(damage: Callable[[Path], Any], message: str, bundle: Path) -> None:
    damage(bundle)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        inference.load(bundle)


def test_a_backbone_that_is_a_file_is_asked_for_and_compared(tmp_path: Path) -> None:
    weights = load_state_dict("ViT-Micro/8")
    torch.save(weights, tmp_path / "my_clip.pt")
    file = {"MODEL__BACKBONE__NAME": tmp_path / "my_clip.pt", "MODEL__BACKBONE__ACTIVATION": "quick_gelu"}
    small_run("coop", tmp_path / "run", **file)
    export(inference.load(tmp_path / "run"), tmp_path / "bundle", ["bundle"])
    described = json.loads((tmp_path / "bundle/bundle.json").read_text(encoding="utf-8"))
    assert described["backbone"] == {"name": "my_clip.pt", "sha256": weights_checksum(weights)}
    with pytest.raises(FileNotFoundError, match=r"weights file 'my_clip.pt', which it does not contain: pass the path"):
        inference.load(tmp_path / "bundle")
    (tmp_path / "my_clip.pt").rename(tmp_path / "renamed.pt")
    loaded = inference.load(tmp_path / "bundle", backbone=str(tmp_path / "renamed.pt"))
    assert loaded.classnames == CLASSNAMES
    torch.save({**weights, "text_projection": 2 * weights["text_projection"]}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="was made with another backbone"):
        inference.load(tmp_path / "bundle", backbone=str(tmp_path / "other.pt"))


def test_a_checkpoint_as_safetensors(tmp_path: Path) -> None:
    tensors = {"ctx": torch.arange(6.0).reshape(2, 3), "shared": torch.ones(3)}
    state = {"state_dict": {**tensors, "view": tensors["ctx"].t()}, "epoch": 5, "belongs_to": {"classes": ["a", "b"]}}
    save_safetensors(state, tmp_path / "weights.safetensors")
    found = load_checkpoint(tmp_path / "weights.safetensors", need=("state_dict",))
    assert found["epoch"] == 5 and found["belongs_to"] == {"classes": ["a", "b"]}
    assert all(torch.equal(found["state_dict"][name], value) for name, value in state["state_dict"].items())

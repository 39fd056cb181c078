"""Exported programs give the logits of the run, for any number of images."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import inference
from clip.model import CLIP
from experiments.methods import METHODS
from inference import export_model
from inference.__main__ import main
from inference.export_formats import export
from inference.export_model import Logits, in_fp32, onnx_runner
from inference.labelled import evenly, pictures_in
from tests.inference.small_runs import CLASSNAMES, small_run

NO_TORCHSCRIPT = {"mma"}  # an autograd.Function
TOLERANCE = 1e-4  # of the largest logit: the order of sums differs between libraries


def images(count: int, side: int) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(count))


def check(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.fixture(scope="module")
def maple(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "run"
    small_run("maple", folder)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures of two classes in folders with their names, and one in no folder."""
    for i, name in enumerate(["cat/a.png", "cat/b.png", "fire engine/c.png", "d.png"]):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 50), (60 * i, 40, 200 - 60 * i)).save(path)
    return tmp_path / "pictures"


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_as_torchscript_and_as_a_bundle(name: str, tmp_path: Path) -> None:
    small_run(name, tmp_path / "run")
    own = inference.load(tmp_path / "run", device="cpu")
    if name in NO_TORCHSCRIPT:
        with pytest.raises(ValueError, match=r"cannot be exported as TorchScript, .* choose another format"):
            export(own, tmp_path, ["torchscript"])
        check(Logits(own)(images(2, own.run.cfg.INPUT.SIZE[0])), own.logits(images(2, own.run.cfg.INPUT.SIZE[0])))
        return
    export(own, tmp_path, ["torchscript", "bundle"])
    pixels = images(5, own.run.cfg.INPUT.SIZE[0])
    assert torch.equal(inference.load(tmp_path, device="cpu").logits(pixels), own.logits(pixels))
    described = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert described["files"]["model.torchscript"]["largest_difference"] <= TOLERANCE


def test_a_torchscript_file_runs_without_this_project(maple: Path, tmp_path: Path) -> None:
    own = inference.load(maple, device="cpu")
    export(own, tmp_path, ["torchscript"])
    pixels = images(5, own.run.cfg.INPUT.SIZE[0])
    torch.save({"pixels": pixels, "expected": own.logits(pixels)}, tmp_path / "case.pt")
    code = "import torch; case = torch.load('case.pt', weights_only=True); "
    code += "print((torch.jit.load('model.torchscript')(case['pixels']) - case['expected']).abs().max().item())"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-3


@pytest.mark.slow
def test_onnx_and_int8(maple: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx", reason="needs requirements-onnx.txt")
    options = ["--format", "onnx", "--int8", "--images", str(pictures), "--output", str(tmp_path)]
    assert main(["export", str(maple), *options]) == 0
    own = inference.load(maple, device="cpu")
    model = onnx.load(tmp_path / "model.onnx")
    assert next((one.domain, one.version) for one in model.opset_import) == ("", export_model.OPSET)
    notes = {one.key: json.loads(one.value) for one in model.metadata_props if one.key in ("classnames", "trainer")}
    assert notes == {"classnames": CLASSNAMES, "trainer": "MaPLe"}
    run = onnx_runner(tmp_path / "model.onnx")
    for count in (1, 7):
        pixels = images(count, own.run.cfg.INPUT.SIZE[0])
        check(run(pixels), own.logits(pixels))
    described = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert described["input"]["shape"] == ["batch", 3, 48, 48] and described["opset"] == export_model.OPSET
    cost = described["files"]["model.int8.onnx"]
    assert cost["images"] == 4 and cost["labelled"] == 3
    assert (tmp_path / "model.int8.onnx").stat().st_size < (tmp_path / "model.onnx").stat().st_size / 2
    assert f"accuracy {cost['accuracy']:.2f}% instead of" in capsys.readouterr().out
    assert not list(tmp_path.glob(".export-*"))


@pytest.mark.slow
def test_onnx_of_texts_that_depend_on_the_image(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs requirements-onnx.txt")
    small_run("cocoop", tmp_path / "run", ["cat", "dog"])
    own = inference.load(tmp_path / "run", device="cpu")
    export(own, tmp_path, ["onnx"])
    pixels = images(2, own.run.cfg.INPUT.SIZE[0])
    check(onnx_runner(tmp_path / "model.onnx")(pixels), own.logits(pixels))


def test_torch_export_of_a_resnet_and_of_bf16(tmp_path: Path) -> None:
    """A small ResNet with random weights; the program computes in fp32, whatever PREC is."""
    torch.manual_seed(0)
    clip_model = CLIP(32, 64, (1, 1, 1, 1), 8, None, 77, 49408, 64, 1, 1, vision_heads=4)
    torch.save(clip_model.state_dict(), tmp_path / "resnet.pt")
    settings = {"MODEL__BACKBONE__NAME": tmp_path / "resnet.pt", "MODEL__BACKBONE__ACTIVATION": "quick_gelu"}
    settings |= {"INPUT__SIZE": "(64, 64)"}
    small_run("coop", tmp_path / "run", TRAINER__COOP__PREC="bf16", **settings)
    own = inference.load(tmp_path / "run", device="cpu")
    plain = in_fp32(own)
    assert own.trainer.precision.name == "bf16" and plain.trainer.precision.name == "fp32"
    export(own, tmp_path / "out", ["torch_export"])
    program = torch.export.load(io.BytesIO((tmp_path / "out/model.pt2").read_bytes()))
    for count in (1, 4):
        check(program.module()(images(count, 64)), plain.logits(images(count, 64)))


def test_what_cannot_be_done_is_said(
    maple: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = inference.load(maple, device="cpu")
    with pytest.raises(ValueError, match="add --format onnx"):
        export(own, tmp_path, ["bundle"], int8=True)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", str(maple), "--output", str(tmp_path)]) == 2
    assert "bash scripts/setup.sh onnx" in capsys.readouterr().err
    monkeypatch.setattr(own.trainer, "model", torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"MaPLe cannot be exported: its model is a Linear"):
        export(own, tmp_path, ["torchscript"])
    assert not list(tmp_path.iterdir())


def test_a_program_that_differs_is_not_written(maple: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = inference.load(maple, device="cpu")
    monkeypatch.setattr(Logits, "forward", lambda self, image: self.model(image) + 0.1)
    with pytest.raises(ValueError, match=r"differs from the run by .* of the largest logit, more than 0\.0001"):
        export(own, tmp_path, ["torchscript"])
    assert not list(tmp_path.iterdir())


def test_pictures_have_the_class_of_their_folder(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = pictures_in(pictures, CLASSNAMES)
    assert [(Path(one.path).name, one.label) for one in found] == [
        ("a.png", 0),
        ("b.png", 0),
        ("d.png", None),
        ("c.png", 3),
    ]
    assert [Path(one.path).name for one in evenly(found, 2)] == ["a.png", "d.png"]
    assert all(one.label is None for one in pictures_in(pictures, ["dog"]))
    assert "no folder has the name of a class (cat, fire engine)" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="no folder"):
        pictures_in(pictures / "none", CLASSNAMES)

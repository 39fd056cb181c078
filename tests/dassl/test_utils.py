"""Registry, meters, logger, tools, results, progress."""

import io
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dassl import utils
from dassl.metrics import compute_accuracy
from dassl.utils import AverageMeter, Logger, MetricMeter, Registry, read_results, setup_logger, write_results
from dassl.utils.progress import progress
from dassl.utils.registry import UnknownNameError
from tests.paths import ROOT


def test_registry() -> None:
    registry = Registry("TRAINER")

    @registry.register()
    class MaPLe:
        pass

    @registry.register()
    def build():
        return 3

    registry.register(int)
    assert registry.get("MaPLe") is MaPLe and registry.get("build")() == 3
    assert registry.registered_names() == ["MaPLe", "build", "int"]
    with pytest.raises(KeyError, match="'MaPLe' is already registered in the TRAINER registry"):
        registry.register(MaPLe)
    registry._do_register("MaPLe", str, force=True)
    assert registry.get("MaPLe") is str


def test_unknown_name_is_answered_with_the_closest() -> None:
    registry = Registry("TRAINER")
    for name in ("MaPLe", "CoOp", "CoCoOp"):
        registry._do_register(name, object)
    with pytest.raises(UnknownNameError) as caught:
        registry.get("maple")
    expected = "'maple' is not in the TRAINER registry (did you mean MaPLe?). Available: CoCoOp, CoOp, MaPLe"
    assert str(caught.value) == expected
    assert isinstance(caught.value, KeyError) and isinstance(caught.value, ValueError)
    with pytest.raises(KeyError, match="Available: nothing yet"):
        Registry("EMPTY").get("x")


def test_average_meter() -> None:
    meter = AverageMeter()
    meter.update(2.0, n=3)
    meter.update(torch.tensor(6.0))
    assert (meter.val, meter.avg, meter.sum, meter.count) == (6.0, 3.0, 12.0, 4)
    meter.reset()
    assert (meter.avg, meter.count) == (0, 0)
    smooth = AverageMeter(ema=True)
    smooth.update(1.0)
    smooth.update(2.0)
    assert smooth.avg == pytest.approx(0.9 * 0.1 + 0.2)


def test_metric_meter() -> None:
    meter = MetricMeter(delimiter=", ")
    meter.update({"loss": 0.5, "acc": 25})
    meter.update(None)
    meter.update({"loss": torch.tensor(1.0)})
    assert str(meter) == "loss 1.0000 (0.7500), acc 25.0000 (25.0000)"
    with pytest.raises(TypeError, match="not float"):
        meter.update(0.5)


def test_logger_copies_stdout_and_appends(tmp_path, monkeypatch) -> None:
    console = io.StringIO()
    monkeypatch.setattr(sys, "stdout", console)
    setup_logger(tmp_path)
    print("one")
    assert (tmp_path / "log.txt").read_text() == "one\n", "a line is in the file as soon as it is printed"
    setup_logger(tmp_path)
    print("two")
    assert console.getvalue() == "one\ntwo\n"
    assert not sys.stdout.isatty()
    sys.stdout.close()
    assert (tmp_path / "log.txt").read_text() == "one\ntwo\n"
    monkeypatch.setattr(sys, "stdout", console)
    setup_logger(tmp_path / "sub" / "mine.log")
    print("three")
    sys.stdout.flush()
    assert (tmp_path / "sub" / "mine.log").read_text() == "three\n"
    monkeypatch.setattr(sys, "stdout", console)
    setup_logger(None)
    assert sys.stdout is console
    with Logger() as plain:
        plain.write("four\n")
    assert console.getvalue().endswith("four\n")


def test_compute_accuracy() -> None:
    output = torch.tensor([[0.1, 0.9, 0.0], [0.8, 0.15, 0.05], [0.3, 0.1, 0.6], [0.5, 0.3, 0.2]])
    target = torch.tensor([1, 1, 2, 2])  # right, second, right, third
    top1, top2 = compute_accuracy(output, target, topk=(1, 2))
    assert (top1.item(), top1.shape) == (50.0, (1,))
    assert top2.item() == 75.0
    assert compute_accuracy((output, None), target)[0].item() == 50.0


def test_seed_zero_is_a_seed() -> None:
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    utils.set_random_seed(0)
    first = draw()
    utils.set_random_seed(0)
    assert draw() == first
    utils.set_random_seed(1)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_json(tmp_path) -> None:
    path = tmp_path / "new" / "file.json"
    utils.write_json({"a": [1, 2]}, path)
    assert utils.read_json(path) == {"a": [1, 2]}
    path.write_text("{")
    with pytest.raises(ValueError, match=r"file.json is not valid JSON .*delete it"):
        utils.read_json(path)


def test_results(tmp_path) -> None:
    path = tmp_path / "results.json"
    assert read_results(path) is None
    for text in ("{", "[]", '{"accuracy": 1}', '{"accuracy": 1, "complete": false}', '{"complete": true}'):
        path.write_text(text)
        assert read_results(path) is None
    write_results(path, {"accuracy": 71.9512195})
    assert read_results(path) == {"accuracy": 71.9512195, "complete": True}
    write_results(path, {"accuracy": None})
    assert read_results(path) == {"accuracy": None, "complete": True}, "trained without a test"


def test_read_image(tmp_path) -> None:
    Image.new("L", (4, 3), 7).save(tmp_path / "grey.png")
    image = utils.read_image(tmp_path / "grey.png")
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (4, 3), (7, 7, 7))
    with pytest.raises(FileNotFoundError, match="No image at"):
        utils.read_image(tmp_path / "none.png")
    content = (tmp_path / "grey.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[:40])
    with pytest.raises(ValueError, match=r"cut.png \(40 bytes\) cannot be read"):
        utils.read_image(tmp_path / "cut.png")


def test_files_and_names(tmp_path, capsys) -> None:
    utils.mkdir_if_missing(tmp_path / "a" / "b")
    utils.mkdir_if_missing(tmp_path / "a" / "b")
    (tmp_path / ".hidden").touch()
    (tmp_path / "z").touch()
    assert utils.listdir_nohidden(tmp_path, sort=True) == ["a", "z"]
    assert utils.check_isfile(tmp_path / "z") and not utils.check_isfile(tmp_path / "y")
    assert "No file found at" in capsys.readouterr().out
    assert utils.get_most_similar_str_to_a_from_b("OxfordPet", ["OxfordPets", "Food101"]) == "OxfordPets"
    assert utils.tolist_if_not("a") == ["a"] and utils.tolist_if_not([1]) == [1]
    utils.check_availability("a", ["a", "b"])
    with pytest.raises(ValueError, match=r"'Oxfordpets' is not available \(did you mean OxfordPets\?\)"):
        utils.check_availability("Oxfordpets", ["OxfordPets", "Food101"])


def test_an_atomic_write_reaches_the_disk_before_its_name_changes(tmp_path, monkeypatch) -> None:
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args))[1])
    with utils.atomic_write(tmp_path / "a", "w") as file:
        file.write("x")
    assert calls == ["fsync", "replace", "fsync"]  # the file, the rename, the folder


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_on_a_terminal_only(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert list(progress([1, 2], "epoch 1/5")) == [1, 2]
    assert sys.stderr.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(progress(iter([1, 2]), "epoch 1/5", total=2)) == [1, 2]
    assert "epoch 1/5" in sys.stderr.getvalue() and "batch/s" in sys.stderr.getvalue()


FAKE_TORCHVISION = """
import torch
torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
models = "imported"
"""


@pytest.mark.parametrize(
    ("content", "outcome"), [(FAKE_TORCHVISION, "imported"), ("raise RuntimeError('something else')", "something else")]
)
def test_torchvision_without_its_operators(tmp_path, content, outcome) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(content)
    shim = ROOT / "dassl" / "torchvision_import.py"
    code = f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); runpy.run_path({str(shim)!r});"
    code += "import torchvision; print(torchvision.models)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert outcome in run.stdout + run.stderr


def test_collect_env_info() -> None:
    info = utils.collect_env_info()
    assert f"PyTorch: {torch.__version__}" in info and "Python: " in info and "Pillow" in info


@pytest.fixture
def model() -> nn.Sequential:
    model = nn.Sequential()
    model.add_module("body", nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    model.add_module("head", nn.Linear(4, 2))
    return model


def test_open_layers(model) -> None:
    utils.open_specified_layers(model, "head")
    assert [p.requires_grad for p in model.parameters()] == [False] * 4 + [True] * 2
    assert not model.body.training and model.head.training
    with pytest.raises(ValueError, match=r"'heads' is no child .*did you mean head"):
        utils.open_specified_layers(model, ["heads"])
    utils.open_all_layers(model)
    assert all(p.requires_grad for p in model.parameters()) and model.body.training


def test_set_bn_to_eval(model) -> None:
    model.apply(utils.set_bn_to_eval)
    assert not model.body[1].training and model.body[0].training


def test_count_num_param(model) -> None:
    assert utils.count_num_param(model) == 4 * 27 + 4 + 8 + 10
    assert utils.count_num_param(params=model.head.parameters()) == 10
    assert utils.count_num_param(params=[{"params": list(model.head.parameters())}]) == 10
    with pytest.raises(ValueError, match="needs a model or parameters"):
        utils.count_num_param()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"epoch": 45}, 0.01),
        ({"epoch": 5, "stepsize": [3, 6]}, 0.1),
        ({"epoch": 25, "linear_decay": True, "final_lr": 0.2}, 0.8),
    ],
)
def test_adjust_learning_rate(model, options, expected) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    utils.adjust_learning_rate(optimizer, 1.0, **options)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)


@pytest.mark.parametrize("init_type", ["normal", "xavier", "kaiming", "orthogonal"])
def test_init_network_weights(model, init_type) -> None:
    utils.init_network_weights(model, init_type)
    assert not model.head.bias.any() and model.head.weight.any()


def test_init_network_weights_of_an_unknown_type(model) -> None:
    with pytest.raises(ValueError, match="init_type 'none'"):
        utils.init_network_weights(model, "none")


@pytest.mark.parametrize("name", ["ramp.png", "ramp.tiff"])
def test_sixteen_bit_images_keep_their_upper_eight(tmp_path, name) -> None:
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)  # 0 … 65,535
    Image.fromarray(ramp).save(tmp_path / name)
    found = np.asarray(utils.read_image(tmp_path / name))
    assert np.array_equal(found, np.repeat(np.arange(256).reshape(16, 16, 1), 3, axis=2))


def test_floating_point_images_are_refused(tmp_path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(ValueError, match=r"f\.tiff .*floating-point numbers: save it with 8 bits"):
        utils.read_image(tmp_path / "f.tiff")

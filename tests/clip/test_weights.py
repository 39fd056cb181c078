"""Reading weights of every format, and refusing what is not weights."""

import json
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import clip
from clip import releases, search
from clip.model import CLIP
from tests.paths import PUBLISHED, needs_published


def tiny_weights() -> dict[str, Tensor]:
    """A CLIP's state dict in OpenAI's layout, fp16 as in OpenAI's files."""
    torch.manual_seed(0)
    model = CLIP(16, 32, 2, 64, 16, 12, 50, 64, 1, 2)
    return {name: tensor.half() for name, tensor in model.state_dict().items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert type(tensor) is Tensor and not tensor.requires_grad and tensor.device.type == "cpu"
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name


class Nested(nn.Module):
    """A module whose state dict has the given names."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        children: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            child, _, rest = name.partition(".")
            if rest:
                children.setdefault(child, {})[rest] = tensor
            else:
                self.register_parameter(name, nn.Parameter(tensor))
        for child, inside in children.items():
            self.add_module(child, Nested(inside))

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


class RunsCode(nn.Module):
    """A module whose archive runs code while it is loaded."""

    @torch.jit.export
    def __getstate__(self) -> tuple[int, bool]:
        return 0, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[int, bool]) -> None:
        print("it ran")
        self.training = state[1]

    def forward(self, x: Tensor) -> Tensor:
        return x


def save_torchscript(module: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(path))


def test_torchscript_archive_loses_its_three_numbers(tmp_path: Path) -> None:
    module = Nested(tiny_weights())
    for name in ("input_resolution", "context_length", "vocab_size"):
        module.register_buffer(name, torch.tensor(32))
    save_torchscript(module, tmp_path / "archive.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(search.load_state_dict(tmp_path / "archive.pt"), tiny_weights())


@pytest.mark.parametrize("new_format", [True, False])
def test_state_dicts(tmp_path: Path, new_format: bool) -> None:
    expected = tiny_weights()
    contents = {
        "plain": expected,
        "wrapped": {"state_dict": expected, "epoch": 3},
        "data_parallel": {"state_dict": {f"module.{name}": tensor for name, tensor in expected.items()}},
        "parameters": {name: nn.Parameter(tensor) for name, tensor in expected.items()},
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.pt"
        torch.save(content, path, _use_new_zipfile_serialization=new_format)
        assert_same(search.load_state_dict(str(path)), expected)


def test_safetensors_whatever_the_suffix(tmp_path: Path) -> None:
    for name in ("a.safetensors", "a.pt"):
        save_file(tiny_weights(), tmp_path / name)
        assert_same(search.load_state_dict(tmp_path / name), tiny_weights())


@pytest.mark.parametrize("kind", ["torch", "torchscript", "safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.999])
def test_cut_short(tmp_path: Path, kind: str, keep: float) -> None:
    path = tmp_path / "weights.pt"
    if kind == "torch":
        torch.save(tiny_weights(), path)
    elif kind == "torchscript":
        save_torchscript(Nested(tiny_weights()), path)
    else:
        save_file(tiny_weights(), path)
    os.truncate(path, int(path.stat().st_size * keep))
    with pytest.raises(ValueError, match=r"cannot read weights from .*weights.pt \([\d,]+ bytes\).*download it again"):
        search.load_state_dict(path)


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_text("<html>404 Not Found</html>")
    with pytest.raises(ValueError, match="cannot read weights"):
        search.load_state_dict(path)
    torch.save([torch.ones(2)], path)
    with pytest.raises(ValueError, match="it holds a list"):
        search.load_state_dict(path)
    torch.save({"optimizer": {"lr": 0.1}}, path)
    with pytest.raises(ValueError, match=r"holds no state dict.*optimizer"):
        search.load_state_dict(path)
    torch.save({"x": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="not a CLIP"):
        clip.load(path, device="cpu")


def test_nothing_in_a_file_is_executed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Attack:
        def __reduce__(self) -> tuple:
            return (os.system, (f"touch {tmp_path / 'executed'}",))

    path = tmp_path / "weights.pt"
    torch.save({"state_dict": Attack()}, path)
    with pytest.raises(ValueError, match="cannot read weights"):
        search.load_state_dict(path)
    path.write_bytes(pickle.dumps(Attack(), protocol=2))
    with pytest.raises(ValueError, match="cannot read weights"):
        search.load_state_dict(path)
    assert not (tmp_path / "executed").exists()
    save_torchscript(RunsCode(), path)
    with pytest.raises(ValueError, match="runs code while loading"):
        search.load_state_dict(path)
    assert "it ran" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("given", "closest"),
    [("ViT-B-16", "ViT-B/16"), ("vit_b16", "ViT-B/16"), ("RN-50", "RN50"), ("ViT-L/14-336", "ViT-L/14@336px")],
)
def test_unknown_name_gets_the_closest_first(given: str, closest: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown CLIP model '{given}'.*Closest names: {closest}.*All: RN50, RN101"):
        clip.load(given)


def test_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights file at '.*nowhere/weights.pt'"):
        clip.load("nowhere/weights.pt")


@needs_published
def test_releases_are_the_published_ones() -> None:
    published = json.loads((PUBLISHED / "clip_weights.json").read_text())
    assert releases.RELEASES.keys() == published.keys()
    for name, facts in published.items():
        release = releases.RELEASES[name]
        assert (clip._MODELS[name], release.sha256, release.hub) == (facts["url"], facts["sha256"], facts["hf_hub"])


def test_names_of_openais_package() -> None:
    from clip import clip as module

    assert module._MODELS is clip._MODELS
    assert module.build_model is clip.build_model and module.load is clip.load
    assert clip.available_models() == list(clip._MODELS)
    assert module._tokenizer.encoder["<|endoftext|>"] == 49407


def test_load_gives_model_and_preprocessing(tmp_path: Path) -> None:
    torch.save(tiny_weights(), tmp_path / "tiny.pt")
    model, preprocess = clip.load(tmp_path / "tiny.pt", device="cpu", activation="quick_gelu")
    assert not model.training and model.dtype == torch.float32
    assert_same({name: tensor.half() for name, tensor in model.state_dict().items()}, tiny_weights())
    image = preprocess(Image.new("RGB", (50, 40), "red"))
    assert image.shape == (3, 32, 32)
    # red is 1, the mean and deviation of CLIP's first channel
    assert image[0, 0, 0].item() == pytest.approx((1 - 0.48145466) / 0.26862954, rel=1e-6)
    assert model.encode_image(image[None]).shape == (1, 16)
    with pytest.raises(ValueError, match="jit=True is not supported"):
        clip.load(tmp_path / "tiny.pt", jit=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_towers_are_fp16(tmp_path: Path) -> None:
    torch.save(tiny_weights(), tmp_path / "tiny.pt")
    model, preprocess = clip.load(tmp_path / "tiny.pt")
    assert model.dtype == torch.float16
    assert model.visual.ln_pre.weight.dtype == torch.float32
    image = preprocess(Image.new("RGB", (40, 50), "blue"))[None]
    expected = clip.load(tmp_path / "tiny.pt", device="cpu")[0].encode_image(image)
    assert torch.allclose(model.encode_image(image.cuda()).float().cpu(), expected, rtol=0.02, atol=0.02)


def test_demonstration_backbone_comes_with_the_package() -> None:
    path = clip._download(clip._MODELS["ViT-Micro/8"])
    assert Path(path).name == "ViT-Micro-8.pt"
    assert_same(torch.load(path, map_location="cpu", weights_only=True), search.load_state_dict("ViT-Micro/8"))
    model, _ = clip.load("ViT-Micro/8", device="cpu")
    assert model.visual.input_resolution == 48


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
@pytest.mark.parametrize("size", [(48, 48), (97, 61), (61, 97), (20, 33), (300, 49), (49, 48)])
def test_preprocessing_equals_torchvisions(mode: str, size: tuple[int, int]) -> None:
    from torchvision import transforms

    reference = transforms.Compose(
        [
            transforms.Resize(48, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(48),
            lambda image: image.convert("RGB"),
            transforms.ToTensor(),
            transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ]
    )
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    assert torch.equal(clip.clip._transform(48)(image), reference(image))

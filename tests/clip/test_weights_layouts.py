"""Weights in the layouts that people have: archives, wrappers, prefixes, transformers, and files that are none."""

import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import clip
from clip import search
from clip.model import CLIP, build_model, from_state_dict, resize_positions
from clip.releases import Release
from tests.clip.test_weights import Nested, assert_same, save_torchscript, tiny_weights


def tiny_resnet() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return dict(CLIP(16, 64, (1, 1, 1, 1), 64, None, 12, 50, 64, 1, 2).state_dict())


class WithConstants(nn.Module):
    """A model whose program has constants, which torch.jit puts into `constants/`."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.inner = Nested(tensors)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.arange(12.0).view(3, 4)


def archive(tensors: dict[str, Tensor], path: Path, traced: bool = False) -> None:
    """A TorchScript archive of modules with these tensors and OpenAI's three numbers."""
    module = Nested(tensors)
    for name in ("input_resolution", "context_length", "vocab_size"):
        module.register_buffer(name, torch.tensor(32))
    if not traced:
        return save_torchscript(module, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module, torch.ones(2)).save(str(path))


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("precision", [torch.float16, torch.float32])
@pytest.mark.parametrize("make", [tiny_weights, tiny_resnet])
def test_archives(tmp_path: Path, make: Callable, precision: torch.dtype, traced: bool) -> None:
    expected = {name: t.to(precision) if t.is_floating_point() else t for name, t in make().items()}
    archive({n: t for n, t in expected.items() if not n.endswith("num_batches_tracked")}, tmp_path / "a.pt", traced)
    expected = {n: t for n, t in expected.items() if not n.endswith("num_batches_tracked")}
    assert_same(search.load_state_dict(tmp_path / "a.pt"), expected)


def test_constants_of_the_program_are_not_weights(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.randn(3, 4), "b": torch.randn(2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(WithConstants(tensors), torch.ones(3, 4)).save(str(tmp_path / "a.pt"))
    found = search.load_state_dict(tmp_path / "a.pt")
    assert {name.removeprefix("inner."): t.shape for name, t in found.items()} == {
        n: t.shape for n, t in tensors.items()
    }


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None], again: tuple[str, bytes] | None = None) -> None:
    """Write an archive again, with its entries changed, left out, or one more."""
    source = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    with zipfile.ZipFile(path, "w") as target, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in source.namelist():
            if (content := change(name, source.read(name))) is not None:
                target.writestr(name, content)
        if again:
            target.writestr(next(name for name in source.namelist() if name.endswith(again[0])), again[1])


SCRIPTS = [
    "def  __setstate__(self,\n    state: Any) -> NoneType:\n    torch.save(state, '{0}')\n",
    "def\t__setstate__(self, state: Any) -> NoneType:\n    torch.save(state, '{0}')\n",
    "def \\\n__setstate__(self, state: Any) -> NoneType:\n    torch.save(state, '{0}')\n",
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_program_of_an_archive_is_not_even_read(tmp_path: Path, script: str) -> None:
    path, written = tmp_path / "a.pt", tmp_path / "written"
    archive(tiny_weights(), path)
    code = script.format(written).encode()
    rewritten(path, lambda name, content: code if name.endswith(".py") else content)
    assert_same(search.load_state_dict(path), tiny_weights())
    assert not written.exists()


@pytest.mark.parametrize("entry", [".py", "data.pkl", "data/0"])
def test_an_entry_that_stands_twice_is_refused(tmp_path: Path, entry: str) -> None:
    archive(tiny_weights(), tmp_path / "a.pt")
    rewritten(tmp_path / "a.pt", lambda name, content: content, (entry, b"x"))
    with pytest.raises(ValueError, match="stands more than once"):
        search.load_state_dict(tmp_path / "a.pt")


def test_archives_without_a_storage_or_with_a_short_one(tmp_path: Path) -> None:
    for change, message in (
        (lambda name, content: None if name.endswith("data/3") else content, "'data/3' is missing"),
        (lambda name, content: content[:-2] if name.endswith("data/3") else content, "its tensors state"),
    ):
        archive(tiny_weights(), tmp_path / "a.pt")
        rewritten(tmp_path / "a.pt", change)
        with pytest.raises(ValueError, match=message):
            search.load_state_dict(tmp_path / "a.pt")


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tiny_weights().items()}


CONTENTS: dict[str, Any] = {
    "model": {"model": tiny_weights()},
    "model_state_dict": {"model_state_dict": tiny_weights(), "epoch": 3, "optimizer_state_dict": {"state": {}}},
    "nested": {"model": {"state_dict": prefixed("module.")}, "epoch": 1},
    "model.": prefixed("model."),
    "clip_model.": {"state_dict": prefixed("clip_model."), "epoch": 1},
    "clip.": prefixed("clip."),
    "chain": prefixed("module.model.clip_model."),
    "compiled": prefixed("_orig_mod.module."),
    "mask": {**tiny_weights(), "transformer.attn_mask": torch.ones(3), "attn_mask": torch.ones(3)},
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrapped_and_prefixed_weights(tmp_path: Path, name: str, zipped: bool) -> None:
    torch.save(CONTENTS[name], tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    assert_same(search.load_state_dict(tmp_path / "w.pt"), tiny_weights())


REFUSED: dict[str, tuple[Any, str]] = {
    "module": (nn.Linear(1, 1), r"object of the class torch.nn.modules.linear.Linear.*model.state_dict\(\)"),
    "inside": ({"model": nn.Linear(1, 1)}, "'model' holds an object of the class torch.nn.modules.linear.Linear"),
    "two": ({"model": {"a": torch.ones(1)}, "state_dict": {"a": torch.ones(1)}}, "at 'state_dict' and at 'model'"),
    "same": ({"logit_scale": torch.ones(1), "model.logit_scale": torch.ones(1)}, "'logit_scale' more than once"),
    "sparse": ({**tiny_weights(), "x": torch.eye(2).to_sparse()}, r"no weights.*x \(sparse\)"),
    "complex": ({**tiny_weights(), "logit_scale": torch.tensor(1j)}, r"logit_scale \(complex64\)"),
    "bool": ({**tiny_weights(), "ln_final.bias": torch.ones(64).bool()}, r"ln_final.bias \(bool\)"),
    "integers": ({**tiny_weights(), "visual.proj": torch.ones(64, 16).long()}, r"visual.proj \(int64\)"),
    "nan": ({**tiny_weights(), "visual.proj": torch.full((64, 16), torch.nan)}, r"\(NaN\): visual.proj\."),
    "inf": ({**tiny_weights(), "ln_final.bias": torch.tensor([1, -torch.inf])}, "infinite.*ln_final.bias"),
    "fp64": (
        {**tiny_weights(), "ln_final.bias": torch.full((64,), 1e300, dtype=torch.float64)},
        "infinite.*ln_final.bias",
    ),
    "learned": ({"state_dict": {"ctx": torch.ones(4, 64)}, "epoch": 5}, "checkpoint of a trainer.*--model-dir"),
    "shared": ({f"a{i}": torch.ones(1).expand(2**20) for i in range(99)}, "far more than weights that are tied"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path: Path, name: str) -> None:
    content, message = REFUSED[name]
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=message):
        search.load_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual.conv1.weight": torch.ones(4)}, "visual.conv1.weight has the shape"),
        ({"ln_final.weight": torch.ones(0)}, "ln_final.weight has the shape"),
        ({"ln_final.weight": torch.ones(10)}, "a width of 10"),
        ({"text_projection": None}, "missing: text_projection"),
        ({"ln_final.bias": None}, "missing: ln_final.bias"),
        ({"logit_bias": torch.ones(1)}, "unknown: logit_bias"),
        ({"visual.proj": torch.ones(64, 7)}, r"visual.proj \(64, 7\), expected \(64, 16\)"),
        ({f"transformer.resblocks.{i}.x": torch.ones(1) for i in range(500)}, "500 blocks"),
    ],
)
def test_weights_that_do_not_fit_together(change: dict[str, Tensor | None], message: str) -> None:
    weights = {name: tensor for name, tensor in {**tiny_weights(), **change}.items() if tensor is not None}
    with pytest.raises(ValueError, match=f"not a CLIP in OpenAI's layout .*{message}"):
        from_state_dict(weights)


def in_transformers_layout(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """By the names of transformers' modeling_clip.py."""
    found = {
        "logit_scale": weights["logit_scale"],
        "text_projection.weight": weights["text_projection"].t().contiguous(),
        "visual_projection.weight": weights["visual.proj"].t().contiguous(),
        "text_model.embeddings.token_embedding.weight": weights["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": weights["positional_embedding"],
        "text_model.embeddings.position_ids": torch.arange(12)[None],
        "vision_model.embeddings.class_embedding": weights["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": weights["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": weights["visual.positional_embedding"],
    }
    for last in ("weight", "bias"):
        found[f"text_model.final_layer_norm.{last}"] = weights[f"ln_final.{last}"]
        found[f"vision_model.pre_layrnorm.{last}"] = weights[f"visual.ln_pre.{last}"]
        found[f"vision_model.post_layernorm.{last}"] = weights[f"visual.ln_post.{last}"]
        for ours, theirs in (("", "text_model"), ("visual.", "vision_model")):
            for i in range(2):
                block, layer = f"{ours}transformer.resblocks.{i}", f"{theirs}.encoder.layers.{i}"
                for j, part in enumerate("qkv"):
                    rows = slice(64 * j, 64 * (j + 1))
                    found[f"{layer}.self_attn.{part}_proj.{last}"] = weights[f"{block}.attn.in_proj_{last}"][
                        rows
                    ].clone()
                found[f"{layer}.self_attn.out_proj.{last}"] = weights[f"{block}.attn.out_proj.{last}"]
                found[f"{layer}.layer_norm1.{last}"] = weights[f"{block}.ln_1.{last}"]
                found[f"{layer}.layer_norm2.{last}"] = weights[f"{block}.ln_2.{last}"]
                found[f"{layer}.mlp.fc1.{last}"] = weights[f"{block}.mlp.c_fc.{last}"]
                found[f"{layer}.mlp.fc2.{last}"] = weights[f"{block}.mlp.c_proj.{last}"]
    return found


def logits(model: CLIP) -> Tensor:
    torch.manual_seed(5)
    side = model.visual.input_resolution
    return model(torch.randn(3, 3, side, side), torch.tensor([[1, 5, 49, 0], [1, 7, 9, 49]]))[0]


def test_transformers_layout_gives_the_same_logits(tmp_path: Path) -> None:
    expected = logits(from_state_dict(tiny_weights()))
    theirs = in_transformers_layout(tiny_weights())
    save_file(theirs, tmp_path / "model.safetensors")
    torch.save({"state_dict": {f"clip.{name}": t for name, t in theirs.items()}}, tmp_path / "pytorch_model.bin")
    for name in ("model.safetensors", "pytorch_model.bin"):
        assert torch.equal(logits(clip.load(tmp_path / name, device="cpu", activation="quick_gelu")[0]), expected)
    for change in ("text_projection.weight", "vision_model.embeddings.patch_embedding.weight"):
        torch.save({name: t for name, t in theirs.items() if name != change}, tmp_path / "part.bin")
        with pytest.raises(ValueError, match=f"Hugging Face transformers.*{change}"):
            search.load_state_dict(tmp_path / "part.bin")


def test_plain_gelu_where_it_is_asked_for_or_stated(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(tiny_weights(), path)
    quick = logits(from_state_dict(tiny_weights()))
    model = build_model(tiny_weights(), activation="gelu").float()
    x = torch.linspace(-3, 3, 7)
    gelus = [block.mlp.gelu for tower in (model.transformer, model.visual.transformer) for block in tower.resblocks]
    assert all(torch.allclose(gelu(x), x * 0.5 * (1 + torch.erf(x / 2**0.5)), atol=1e-6) for gelu in gelus)
    plain = logits(model.cpu())
    assert not torch.allclose(plain, quick)
    for file, content, expected in (
        ("config.json", {"vision_config": {"hidden_act": "gelu"}}, plain),
        ("config.json", {"vision_config": {"hidden_act": "quick_gelu"}}, quick),
        ("open_clip_config.json", {"model_cfg": {"embed_dim": 16}}, plain),
        ("open_clip_config.json", {"model_cfg": {"quick_gelu": True}}, quick),
    ):
        (tmp_path / file).write_text(json.dumps(content))
        assert torch.equal(logits(clip.load(path, device="cpu")[0]), expected), content
        assert torch.equal(logits(clip.load(path, device="cpu", activation="gelu")[0]), plain)
        (tmp_path / file).unlink()
    for content in (b"\xff[", b"[1]", b'{"name": "another program"}'):
        (tmp_path / "config.json").write_bytes(content)
        assert torch.equal(logits(clip.load(path, device="cpu", activation="quick_gelu")[0]), quick)
        with pytest.raises(ValueError, match=r"does not tell which activation.*MODEL\.BACKBONE\.ACTIVATION"):
            clip.load(path, device="cpu")
    with pytest.raises(ValueError, match="'relu' is none of quick_gelu, gelu"):
        from_state_dict(tiny_weights(), activation="relu")


def test_openais_files_need_no_activation(tmp_path: Path) -> None:
    """Archives with their three numbers, the same as a state dict, and the hub's copy in the cache folder."""
    expected = logits(from_state_dict(tiny_weights()))
    numbers = {name: torch.tensor(32) for name in ("input_resolution", "context_length", "vocab_size")}
    archive(tiny_weights(), tmp_path / "archive.pt")
    torch.save({**tiny_weights(), **numbers}, tmp_path / "saved.pt")
    torch.save(tiny_weights(), tmp_path / "ViT-B-16.hub.pt")
    for name in ("archive.pt", "saved.pt", "ViT-B-16.hub.pt"):
        assert torch.equal(logits(clip.load(tmp_path / name, device="cpu")[0]), expected)
    assert torch.equal(
        logits(clip.load(tmp_path / "saved.pt", device="cpu", activation="gelu")[0]),
        logits(from_state_dict(tiny_weights(), activation="gelu")),
    )
    del numbers["vocab_size"]
    torch.save({**tiny_weights(), **numbers}, tmp_path / "saved.pt")
    with pytest.raises(ValueError, match="does not tell which activation"):
        clip.load(tmp_path / "saved.pt", device="cpu")


@pytest.mark.parametrize(("make", "cell", "native"), [(tiny_weights, 16, 32), (tiny_resnet, 32, 64)])
def test_another_resolution(tmp_path: Path, make: Callable, cell: int, native: int) -> None:
    torch.save(make(), tmp_path / "w.pt")
    load = partial(clip.load, tmp_path / "w.pt", device="cpu", activation="quick_gelu")
    expected = load()[0]
    same, _ = load(resolution=native)
    assert torch.equal(logits(same), logits(expected))
    model, preprocess = load(resolution=3 * cell)
    assert preprocess.transforms[0].size == 3 * cell and logits(model).shape == (3, 2)
    tower = getattr(model.visual, "attnpool", model.visual)
    old = getattr(expected.visual, "attnpool", expected.visual).positional_embedding
    grid = nn.functional.interpolate(
        old[1:].reshape(2, 2, -1).permute(2, 0, 1)[None], size=(3, 3), mode="bicubic", antialias=True
    )
    assert torch.equal(tower.positional_embedding[0], old[0])
    torch.testing.assert_close(tower.positional_embedding[1:], grid[0].permute(1, 2, 0).reshape(9, -1))
    with pytest.raises(ValueError, match=rf"choose a multiple of {cell}"):
        resize_positions(model, 3 * cell + 1)


def test_constant_positions_stay_constant() -> None:
    """Interpolation by the definition: a constant grid gives the constant."""
    weights = {**tiny_weights(), "visual.positional_embedding": torch.full((5, 64), 0.25)}
    model = from_state_dict(weights)
    resize_positions(model, 80)
    torch.testing.assert_close(model.visual.positional_embedding, torch.full((26, 64), 0.25))


@pytest.mark.parametrize("cut", [4, 60, 2000, -1])
def test_safetensors_that_were_cut(tmp_path: Path, cut: int) -> None:
    save_file(tiny_weights(), tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(content[:cut])
    with pytest.raises(ValueError, match="cut|zeros|no format" if cut == 4 else "safetensors that were cut"):
        search.load_state_dict(tmp_path / "w.safetensors")


def test_own_weights_under_openais_name_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = Release("Tiny.pt", "0" * 64, "lab/tiny")
    monkeypatch.setattr(search, "RELEASES", {"Tiny": release})
    torch.save(tiny_weights(), tmp_path / "Tiny.pt")
    before = (tmp_path / "Tiny.pt").read_bytes()
    with pytest.raises(ValueError, match=r"Tiny.pt holds weights, but not OpenAI's.*--backbone"):
        search.find(release.url, str(tmp_path))
    assert (tmp_path / "Tiny.pt").read_bytes() == before
    os.truncate(tmp_path / "Tiny.pt", 1000)  # no weights any more: to be downloaded, which the address here refuses
    monkeypatch.setattr(search, "_downloaded", lambda *args: tmp_path / "downloaded")
    assert search.find(release.url, str(tmp_path)) == tmp_path / "downloaded"


@pytest.mark.parametrize(("width", "heads"), [(128, 2), (1024, 16), (1280, 16)])
def test_heads_of_the_image_tower(width: int, heads: int) -> None:
    """64 channels each, but in open_clip's ViT-H/14: 80, as its configuration says (head_width)."""
    weights = CLIP(16, 28, 1, width, 14, 12, 50, 64, 1, 1, vision_heads=heads).state_dict()
    assert from_state_dict(weights).visual.transformer.resblocks[0].attn.num_heads == heads

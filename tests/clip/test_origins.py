"""What a model's name means, the hub's repositories, and configurations that are broken or of other models."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file

import clip
from clip.model import CLIP, from_state_dict
from clip.origins import Folder, origin_of
from clip.search import find_weights
from dassl.utils import download
from tests.clip.test_weights import tiny_weights
from tests.clip.test_weights_layouts import in_transformers_layout, logits
from tests.file_server import FileServer, serve

NAME, REPOSITORY = "ViT-B-16/laion2b_s34b_b88k", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"
MODEL: dict[str, Any] = {  # of tiny_weights
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 12, "width": 64, "heads": 1, "layers": 2},
}
OPEN_CLIP = {"model_cfg": MODEL, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}
TRANSFORMERS: dict[str, Any] = {
    "model_type": "clip",
    "projection_dim": 16,
    "text_config": {
        **{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "max_position_embeddings": 12},
        "hidden_act": "gelu",
    },
    "vision_config": {
        **{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "image_size": 32, "patch_size": 16},
        "hidden_act": "gelu",
    },
}


def as_json(content: Any) -> bytes:
    return json.dumps(content).encode()


def expected() -> torch.Tensor:
    return logits(from_state_dict(tiny_weights(), activation="gelu"))


def load(name: str | Path) -> torch.Tensor:
    return logits(clip.load(name, device="cpu")[0])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    """A server in place of the hub, with an empty cache."""
    from huggingface_hub import constants

    with serve() as server:
        monkeypatch.setattr(download, "RETRY_DELAYS", (0.0,))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


def put(server: FileServer, **files: bytes) -> None:
    """Files of the repository, with __ for the dot in their names."""
    for name, content in files.items():
        server.files[f"/{REPOSITORY}/resolve/main/{name.replace('__', '.')}"] = content


def fetched(server: FileServer) -> list[str]:
    return [path.rpartition("/")[2] for path, _ in server.gets]


def test_a_name_of_open_clip_is_its_repository(hub: FileServer) -> None:
    put(hub, open_clip_config__json=as_json(OPEN_CLIP), open_clip_model__safetensors=save(tiny_weights()))
    assert torch.equal(load(NAME), expected())
    assert fetched(hub) == ["open_clip_config.json", "open_clip_model.safetensors"]
    hub.gets.clear()
    assert torch.equal(load(f"hf-hub:{REPOSITORY}"), expected())
    assert hub.gets == [], "both are in the hub's cache"


def test_a_repository_of_transformers(hub: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.save(in_transformers_layout(tiny_weights()), tmp_path / "w.bin")
    put(hub, config__json=as_json(TRANSFORMERS), pytorch_model__bin=(tmp_path / "w.bin").read_bytes())
    put(hub, preprocessor_config__json=as_json({"image_mean": [0.1, 0.2, 0.3]}))
    model, preprocess = clip.load(f"hf-hub:{REPOSITORY}", device="cpu")
    assert torch.equal(logits(model), expected())
    assert preprocess.transforms[-1].mean == (0.1, 0.2, 0.3)
    with serve() as gone:
        pass  # no server listens at this address any more
    monkeypatch.setenv("HF_ENDPOINT", gone.address)
    assert torch.equal(load(f"hf-hub:{REPOSITORY}"), expected()), "what is cached needs no connection"


def test_the_configuration_comes_before_the_weights(hub: FileServer) -> None:
    unfit = {"model_cfg": {**MODEL, "vision_cfg": {"timm_model_name": "vit_base_patch16_siglip_224"}}}
    put(hub, open_clip_config__json=as_json(unfit), open_clip_model__safetensors=save(tiny_weights()))
    with pytest.raises(ValueError, match=r"does not fit: vision_cfg.timm_model_name 'vit_base_patch16_siglip_224'"):
        clip.load("ViT-B-16/laion2b_s34b_b88k")
    assert fetched(hub) == ["open_clip_config.json"]


def test_repositories_that_cannot_be_read(hub: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    remedy = f"hf download {REPOSITORY} --local-dir FOLDER"
    with pytest.raises(FileNotFoundError, match=f"open_clip_config.json or config.json could not be.*404.*{remedy}"):
        clip.load(NAME)
    put(hub, open_clip_config__json=as_json(OPEN_CLIP))
    with pytest.raises(FileNotFoundError, match=f"{REPOSITORY}: open_clip_model.safetensors or .*404.*{remedy}"):
        clip.load(NAME)
    hub.fail_with = [403] * 20
    put(hub, open_clip_model__safetensors=save(tiny_weights()))
    with pytest.raises(FileNotFoundError, match=r"open_clip_model.safetensors could not be fetched. .*403.*a login"):
        clip.load(NAME)
    with serve() as gone:
        pass
    monkeypatch.setenv("HF_ENDPOINT", gone.address)
    with pytest.raises(FileNotFoundError, match=r"could not be fetched. .*cannot connect.*Without a connection"):
        clip.load("hf-hub:somebody/else")
    for name in ("hf-hub:", "hf-hub:one", "hf-hub:a/b/c", "hf-hub:a/b@main"):
        with pytest.raises(ValueError, match=f"{name} names no repository of the hub, expected hf-hub:OWNER/NAME"):
            origin_of(name)


def test_openais_models_under_their_other_names() -> None:
    names = ("ViT-B/16", "ViT-B-16/openai", "ViT-B-16-quickgelu/openai", "hf-hub:timm/vit_base_patch16_clip_224.openai")
    assert len({origin_of(name) for name in names}) == 1
    assert origin_of("ViT-L-14-336/openai").label == "ViT-L/14@336px"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-16/laion2b", r"open_clip's ViT-B-16 has no 'laion2b'.*mean .*laion2b_s34b_b88k.*Tags: openai, "),
        ("ViT-B-16", r"Closest names: ViT-B/16.*ViT-B-16 needs a tag: ViT-B-16/openai, ViT-B-16/laion400m_e31"),
        ("ViT-B16/laion2b_s34b_b88k", r"Closest names: .*ViT-B-16/laion2b_s34b_b88k"),
        ("nonsense", r"neither a name, a file nor a folder. Closest names: none.*All: RN50, .*hf-hub:OWNER/NAME"),
        ("", "neither a name"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"unknown CLIP model '{name}': .*{message}"):
        clip.load(name)


def test_labels_are_the_same_for_a_repository_and_its_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / REPOSITORY.partition("/")[2]
    folder.mkdir()
    for file in ("open_clip_model.safetensors", "own.pt"):
        (folder / file).touch()
    monkeypatch.chdir(tmp_path)
    names = (NAME, f"hf-hub:{REPOSITORY}", str(folder), f"{folder.name}/", f"{folder.name}/open_clip_model.safetensors")
    assert {origin_of(name).label for name in names} == {"CLIP-ViT-B-16-laion2B-s34B-b88K"}
    assert origin_of(folder / "own.pt").label == "own.pt"
    monkeypatch.chdir(folder)
    assert origin_of(".").label == folder.name


def test_folders(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match=r"the folder .*model has none of the weights .*, nor any others"):
        clip.load(folder)
    (folder / "model.safetensors.index.json").touch()
    with pytest.raises(
        ValueError, match=r"model.safetensors.index.json lists weights in several files.*max_shard_size"
    ):
        clip.load(folder)
    save_file(in_transformers_layout(tiny_weights()), folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors does not tell which activation"):
        clip.load(folder, device="cpu")
    (folder / "config.json").write_bytes(as_json(TRANSFORMERS))
    assert torch.equal(load(folder), expected())
    save_file(tiny_weights(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_bytes(as_json({"model_cfg": {**MODEL, "quick_gelu": True}}))
    assert find_weights(folder).name == "open_clip_model.safetensors"
    assert torch.equal(load(folder), logits(from_state_dict(tiny_weights())))
    assert torch.equal(logits(clip.load(folder, device="cpu", activation="gelu")[0]), expected())
    for path in (*folder.glob("*.json"), folder / "model.safetensors"):
        path.unlink()
    (folder / "open_clip_model.safetensors").rename(folder / "ViT-B-16.hub.pt")
    assert torch.equal(load(folder), logits(from_state_dict(tiny_weights()))), "OpenAI's layout"
    shutil.copy(folder / "ViT-B-16.hub.pt", folder / "two.pt")
    with pytest.raises(FileNotFoundError, match=r"but ViT-B-16.hub.pt, two.pt: give the path of one"):
        clip.load(folder)


def changed(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`content` with another value at a path such as "model_cfg.embed_dim"."""
    first, _, rest = path.partition(".")
    return {**content, first: changed(content.get(first, {}), rest, value) if rest else value}


BROKEN = [  # in open_clip's configuration
    ("model_cfg.vision_cfg.layers", 10**6, "vision_cfg.layers is 1000000, expected a whole number from 1 to 200"),
    ("model_cfg.vision_cfg.layers", [3, 4, 6], r"vision_cfg.layers is \[3, 4, 6\], expected a list of 4 whole"),
    ("model_cfg.text_cfg.width", "64", "text_cfg.width is '64', expected a whole number"),
    ("model_cfg.text_cfg.width", 10**12, "text_cfg.width is 1000000000000, expected a whole number"),
    ("model_cfg.text_cfg.heads", True, "text_cfg.heads is True, expected a whole number"),
    ("model_cfg.text_cfg.heads", 3, "64 cannot be divided among 3 heads"),
    ("model_cfg.vision_cfg.head_width", 65, "head_width is 65, expected a whole number from 1 to 64"),
    ("model_cfg.vision_cfg.head_width", 0, "head_width is 0, expected a whole number"),
    ("model_cfg.vision_cfg.image_size", [32, 48], r"image_size is \[32, 48\], expected a whole number"),
    ("model_cfg.vision_cfg", [1], r"model_cfg.vision_cfg is \[1\], expected an object"),
    ("model_cfg.quick_gelu", "yes", "quick_gelu is 'yes', expected true or false"),
    ("model_cfg.text_cfg.norm_kwargs", {"eps": -1}, "norm_kwargs.eps is -1, expected a number above 0"),
    ("preprocess_cfg.mean", [0.5], r"preprocess_cfg.mean is \[0.5\], expected three numbers"),
    ("preprocess_cfg.std", [0, 0.5, 0.5], r"preprocess_cfg.std is \[0, 0.5, 0.5\], expected three numbers above 0"),
    ("model_cfg.vision_cfg.layers", 3, "states another model: vision_layers 3, not 2"),
    ("model_cfg.text_cfg.context_length", 77, "states another model: context_length 77, not 12"),
    ("model_cfg.vision_cfg.qk_norm", True, "does not fit: vision_cfg.qk_norm True.*the towers of OpenAI's CLIP"),
    ("model_cfg.text_cfg.no_causal_mask", True, "does not fit: text_cfg.no_causal_mask True"),
    ("model_cfg.text_cfg.something_new", 1, "does not fit: text_cfg.something_new 1"),
    ("model_cfg.text_cfg.norm_kwargs", {"bias": True}, "does not fit: norm_kwargs.bias True"),
    ("model_cfg", None, 'has no "model_cfg"'),
]


@pytest.mark.parametrize(("path", "value", "message"), BROKEN)
def test_broken_and_unfit_configurations_of_open_clip(tmp_path: Path, path: str, value: Any, message: str) -> None:
    save_file(tiny_weights(), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_bytes(as_json(changed(OPEN_CLIP, path, value)))
    with pytest.raises(ValueError, match=f"open_clip_config.json.*{message}|{message}"):
        clip.load(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_type", "siglip", "does not fit: model_type 'siglip'"),
        ("model_type", 3, "model_type is 3, expected a text"),
        ("text_config.hidden_act", "gelu_new", "does not fit: text_config.hidden_act 'gelu_new'"),
        ("text_config_dict", {"vocab_size": 32000}, "does not fit: text_config.vocab_size 32000"),
        ("text_config.eos_token_id", 1, "does not fit: text_config.eos_token_id 1"),
        ("vision_config.num_channels", 1, "does not fit: vision_config.num_channels 1"),
        ("vision_config.layer_norm_eps", "small", "layer_norm_eps is 'small', expected a number"),
        ("vision_config.num_hidden_layers", 10**6, "num_hidden_layers is 1000000, expected a whole number"),
        ("vision_config.hidden_size", None, "states another model: vision_width 768, not 64"),
    ],
)
def test_broken_and_unfit_configurations_of_transformers(tmp_path: Path, path: str, value: Any, message: str) -> None:
    save_file(in_transformers_layout(tiny_weights()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes(as_json(changed(TRANSFORMERS, path, value)))
    with pytest.raises(ValueError, match=message):
        clip.load(tmp_path, device="cpu")


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_bytes(as_json({"tokenizer_class": "BertTokenizer"}))
    (tmp_path / "config.json").write_bytes(as_json(TRANSFORMERS))
    with pytest.raises(ValueError, match="does not fit: tokenizer_class 'BertTokenizer'"):
        folder.description()
    named = changed(OPEN_CLIP, "model_cfg.text_cfg.hf_tokenizer_name", "lab/tokenizer")
    (tmp_path / "open_clip_config.json").write_bytes(as_json(named))
    with pytest.raises(ValueError, match=r"does not fit: text_cfg.hf_tokenizer_name 'lab/tokenizer'"):
        folder.description()
    (tmp_path / "tokenizer_config.json").write_bytes(as_json({"tokenizer_class": "CLIPTokenizerFast"}))
    assert folder.description()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "holds a list, expected an object"),
        (b'{"a": "' + b"x" * (1 << 20) + b'"}', "longer than the 1,048,576 bytes"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, content: bytes, message: str) -> None:
    save_file(tiny_weights(), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_bytes(content)
    for path in (tmp_path, tmp_path / "open_clip_model.safetensors"):
        with pytest.raises(ValueError, match=message):
            clip.load(path, device="cpu")


def test_weights_that_were_cut(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_bytes(as_json(OPEN_CLIP))
    (tmp_path / "open_clip_model.safetensors").write_bytes(save(tiny_weights())[:-100])
    with pytest.raises(ValueError, match="safetensors that were cut"):
        clip.load(tmp_path, device="cpu")


def test_a_prompt_that_is_longer_than_the_context() -> None:
    model: CLIP = from_state_dict(tiny_weights())
    tokens = torch.tensor([[1] * 12 + [49], [1, 49, *[0] * 11]])
    with pytest.raises(ValueError, match="a prompt of 13 tokens does not fit this CLIP's context length of 12"):
        model.encode_text(tokens)
    assert model.encode_text(tokens[1:]).shape == (1, 16)

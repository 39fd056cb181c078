"""What a run has learned: nearest words against a calculation by hand, attention against the tower's own output."""

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import inference
from clip.transformer import VisionTransformer
from experiments.methods import METHODS
from inference.__main__ import main
from inference.interpret_attention import attention_maps
from inference.interpret_features import confusions
from inference.interpret_words import distance_between_words, learned_tokens, nearest, words_of_vocabulary
from tests.browser import Browser, find_chromium
from tests.inference.small_runs import CLASSNAMES, small_run
from trainers.backbone import load_backbone

NO_TOKENS = {"zsclip", "vpt"}  # their prompts are words


def load(name: str, folder: Path) -> inference.Classifier:
    small_run(name, folder)
    return inference.load(folder, device="cpu")


def test_nearest_words_by_hand() -> None:
    vocabulary = torch.tensor([[1.0, 0.0], [0.0, 1.0], [4.0, 0.0]])
    near = nearest(torch.tensor([[2.0, 1.0]]), vocabulary, ["a", "b", "c"], 2, "euclidean")[0]
    assert [(one.word, round(one.euclidean, 4), round(one.cosine, 4)) for one in near] == [
        ("a", 1.4142, 0.8944),
        ("b", 2.0, 0.4472),
    ]
    near = nearest(torch.tensor([[2.0, 1.0]]), vocabulary, ["a", "b", "c"], 3, "cosine")[0]
    assert [one.word for one in near] == ["a", "c", "b"]
    assert distance_between_words(vocabulary) == pytest.approx(2**0.5)  # of 1.414, 1.414 and 3


def test_words_have_the_tokenizer_s_ids() -> None:
    """The ids of OpenAI's tokenizer: "a photo of a cat." is 320 1125 539 320 2368 269."""
    words = words_of_vocabulary()
    assert len(words) == 49408
    assert [words[i] for i in (320, 1125, 539, 2368, 269)] == ["a", "photo", "of", "cat", "."]
    assert words[49406:] == ["<|startoftext|>", "<|endoftext|>"]


def test_tokens_that_were_words_are_their_own_nearest(tmp_path: Path) -> None:
    classifier = load("maple", tmp_path / "run")
    embedding = load_backbone("ViT-Micro/8").token_embedding.weight.detach()
    with torch.no_grad():
        classifier.trainer.model.prompt_learner.ctx.copy_(embedding[[2368, 1125]])
    groups = learned_tokens(classifier.trainer.model, classifier.classnames)
    assert [(group.block, group.positions) for group in groups] == [(block, [1, 2]) for block in range(4)]
    near = nearest(groups[0].vectors, embedding, words_of_vocabulary(), 1, "euclidean")
    assert [of[0].word for of in near] == ["cat", "photo"] and near[0][0].euclidean == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.trained])
def test_tokens_of_every_method_at_all_depths(name: str, tmp_path: Path) -> None:
    """Each parameter of text tokens is found: those with the text tower's width that enter it."""
    classifier = load(name, tmp_path / "run")
    model = classifier.trainer.model
    found = learned_tokens(model, classifier.classnames)
    text = ("ctx", "compound_prompts_text", "text_encoder")
    expected = {
        key: value
        for key, value in model.named_parameters()
        if value.requires_grad and value.dim() == 2 and key.removeprefix("prompt_learner.").startswith(text)
        and (key.startswith("prompt_learner.") or key.endswith("VPT_shallow"))
    }  # fmt: skip
    rows = torch.cat([group.vectors for group in found]) if found else torch.zeros(0, 128)
    for key, value in expected.items():
        missing = [i for i, row in enumerate(value) if not (rows == row).all(dim=1).any()]
        assert not missing, f"{key}: {missing}"
    assert bool(found) or name in NO_TOKENS or not expected
    assert (name == "tcp") == any(group.classname for group in found)
    assert all(len(group.positions) == len(group.vectors) for group in found)


@pytest.mark.parametrize("name", ["maple", "vpt"])
def test_attention_is_that_of_the_tower(name: str, tmp_path: Path) -> None:
    """The recorded pass gives the same features; its first map is softmax(q k) of the first block, computed here."""
    classifier = load(name, tmp_path / "run")
    model = classifier.trainer.model
    tower = model.image_encoder
    assert isinstance(tower, VisionTransformer)
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    features = model.encode_image(images)
    kept: list[torch.Tensor] = []
    block = tower.transformer.resblocks[0]
    hook = block.register_forward_pre_hook(lambda module, given: kept.append(given[0]))
    maps = attention_maps(model, images)
    hook.remove()
    assert torch.equal(model.encode_image(images), features), "the tower has changed"
    q, k, _ = block.attn.project(block.ln_1(kept[0]))  # (B, L, D)
    heads = block.attn.num_heads
    q, k = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1).mean(1)  # (B, L, L)
    assert torch.allclose(maps[0].of_class.flatten(1), weights[:, 0, 1:37], atol=1e-6)
    assert torch.allclose(maps[0].of_prompts.flatten(1), weights[:, 37:, 1:37].mean(1), atol=1e-6)
    assert len(maps) == len(tower.transformer.resblocks) and maps[-1].of_prompts is None


def test_confusions_are_counted() -> None:
    pairs = [("cat", "dog")] * 3 + [("cat", "cat")] + [("dog", "cat")] * 3 + [("fox", "dog")]
    assert confusions(pairs, 2) == [("cat", "dog", 3, 4), ("dog", "cat", 3, 3)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(8):
        path = folder / ("cat" if i % 2 else "house") / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.effect_mandelbrot((64, 64), (-2 + 0.2 * i, -1.5, 1, 1.5), 20 + i).convert("RGB").save(path)
    return folder


@pytest.mark.slow
def test_the_page(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    small_run("maple", run, ["cat", "house", "<b>&$x$"])
    with (run / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "true_class", "predicted_class"), ("a", "cat", "<b>&$x$")])
    assert main(["interpret", str(run), "--images", str(pictures), "--attention", "1", "--words", "3"]) == 0
    out = run / "interpret"
    assert sorted(path.name for path in out.iterdir()) == [
        *("attention-1.png", "features-after.png", "features-before.png"),
        *("index.html", "interpret.json", "words.txt"),
    ]
    page = json.loads((out / "interpret.json").read_text(encoding="utf-8"))
    assert [len(token["nearest"]) for group in page["tokens"] for token in group["tokens"]] == [3] * 8
    assert page["confused"] == [{"true": "cat", "predicted": "<b>&$x$", "times": 1, "images": 1}]
    assert {point["class"] for point in page["points"]} == {"cat", "house"}
    assert "Tokens before block 1" in capsys.readouterr().out
    html = (out / "index.html").read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") == 3 and "<td>&lt;b&gt;&amp;$x$</td>" in html
    if (chromium := find_chromium()) is None:
        pytest.skip("the rest needs a Chromium")
    with Browser(chromium, tmp_path / "profile") as browser:
        for width in (1280, 360):
            browser.send(
                "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
            )
            browser.send("Page.navigate", url=(out / "index.html").as_uri())
            browser.wait_for("document.readyState === 'complete'")
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            assert browser.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        assert browser.problems == []


def test_a_method_without_tokens_and_without_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_run("zsclip", tmp_path / "run")
    assert main(["interpret", str(tmp_path / "run"), "--output", str(tmp_path / "page")]) == 0
    out = capsys.readouterr().out
    assert "ZeroshotCLIP learns no text tokens" in out and "no --images" in out
    assert sorted(path.name for path in (tmp_path / "page").iterdir()) == ["index.html", "interpret.json", "words.txt"]


def test_wrong_options_are_said(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_run("coop", tmp_path / "run")
    run = str(tmp_path / "run")
    assert main(["interpret", run, "--images", str(pictures / "none")]) == 2
    assert "no folder" in capsys.readouterr().err
    assert main(["interpret", run, "--images", str(pictures), "--blocks", "9"]) == 2
    assert "--blocks 9: the image tower has the blocks 0 to 3" in capsys.readouterr().err
    assert CLASSNAMES and not (tmp_path / "run/interpret").exists()

"""Loading a run: what it may be given, what the classifier has, and one clear error for what cannot be used."""

import json
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import inference
from inference.run_folder import read_run
from tests.inference.conftest import Made
from tests.paths import ROOT

BIRD = ROOT / "datasets/emoji_data/images/bird"
BIRDS = sorted(BIRD.glob("*.webp"))[:3]
FOLDER = "MultiModalPromptLearner"


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_the_run_s_folder_that_of_its_weights_or_a_file(made: Made) -> None:
    run = made()
    expected = inference.load(run).probabilities(BIRDS)
    for given in (run / FOLDER, run / FOLDER / "model.pth.tar-1", str(run)):
        assert torch.equal(inference.load(given).probabilities(BIRDS), expected)


def test_an_epoch_is_chosen(made: Made) -> None:
    run = made("coop", epochs=2, TRAIN__CHECKPOINT_FREQ=1)
    first, last, default = (inference.load(run, epoch=epoch).text_features() for epoch in (1, 2, None))
    assert torch.equal(last, default) and not torch.equal(first, last)
    with pytest.raises(FileNotFoundError, match=r"model\.pth\.tar-3.*model\.pth\.tar-1, model\.pth\.tar-2"):
        inference.load(run, epoch=3)
    with pytest.raises(ValueError, match="ZeroshotCLIP learns nothing, so that there is no epoch 1"):
        inference.load(made("zsclip"), epoch=1)


def test_predictions_are_the_softmax_of_the_features(made: Made) -> None:
    classifier = inference.load(made())
    image, text = classifier.image_features(BIRDS), classifier.text_features()
    assert image.shape == (3, 128) and text.shape == (len(classifier.classnames), 128)
    logits = classifier.trainer.model.logit_scale.exp() * image @ text.t()
    torch.testing.assert_close(classifier.probabilities(BIRDS), logits.softmax(dim=1), rtol=1e-5, atol=1e-7)
    best = classifier.predict(BIRDS, top_k=2)
    assert [len(row) for row in best] == [2, 2, 2] and best[0][0].score >= best[0][1].score
    assert best[0][0].classname == classifier.classnames[int(logits[0].argmax())]
    torch.testing.assert_close(classifier.probabilities(BIRDS, batch=2), classifier.probabilities(BIRDS))
    assert classifier.predict([]) == []
    assert [one.classname for one in classifier.predict(BIRDS[0], top_k=2)[0]] == [one.classname for one in best[0]]


def test_of_equal_scores_the_first_class_counts(made: Made) -> None:
    found = inference.load(made()).best(torch.tensor([[0.1, 0.4, 0.1, 0.4]]), top_k=9)
    names = inference.load(made()).classnames
    assert [one.classname for one in found[0]] == [names[1], names[3], names[0], names[2]]


def test_a_picture_is_read_as_by_the_run(copied: Made, tmp_path: Path) -> None:
    run = copied()
    image = Image.open(BIRDS[0]).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying: turned by a quarter to the right it is upright
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.png", exif=exif)
    image.save(tmp_path / "upright.png")
    upright, lying = (tmp_path / f"{name}.png" for name in ("upright", "lying"))
    classifier = inference.load(run)
    assert torch.equal(classifier.reader(upright), classifier.reader(image))
    assert not torch.equal(classifier.reader(lying), classifier.reader(upright))
    change(run / "config.yaml", "EXIF_ORIENTATION: false", "EXIF_ORIENTATION: true")
    assert torch.equal(inference.load(run).reader(lying), classifier.reader(upright))


def test_texts_that_depend_on_the_image(made: Made) -> None:
    classifier = inference.load(made("cocoop"))
    assert classifier.image_features(BIRDS[:1]).shape == (1, 128)
    with pytest.raises(ValueError, match="CoCoOp has no text features of a class alone"):
        classifier.text_features()


# ---- class names ---------------------------------------------------------------------------------------------------


def test_names_that_the_run_does_not_say(copied: Made) -> None:
    run = copied()
    names = json.loads((run / "results.json").read_text(encoding="utf-8"))["classnames"]
    (run / "results.json").unlink()
    with pytest.raises(ValueError, match=r"(?s)does not say the names.*--classes.*datasets show Emoji --classes base"):
        inference.load(run)
    assert inference.load(run, classnames=names).classnames == names


@pytest.mark.parametrize("names", ["bird", [], ["bird", ""], ["bird", 1], {"bird": 1}])
def test_names_that_are_none(names: object, copied: Made) -> None:
    run = copied()
    with pytest.raises(ValueError, match=r"the class names: expected"):
        inference.load(run, classnames=names)  # type: ignore[arg-type]
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    (run / "results.json").write_text(json.dumps({**results, "classnames": names}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"results\.json: classnames: expected"):
        inference.load(run)


def test_contexts_of_each_class_are_for_these_classes(copied: Made) -> None:
    run = copied("coop", TRAINER__COOP__CSC=True)
    classifier = inference.load(run)
    assert len(classifier.predict(BIRDS)) == 3
    with pytest.raises(ValueError, match=r"(?s)for each of the classes.*other class names need a method whose prompts"):
        classifier.with_classes(["cat", "dog"])
    (run / "results.json").unlink()
    assert inference.load(run).classnames == classifier.classnames  # which its weights name


def test_a_name_that_is_too_long(made: Made) -> None:
    with pytest.raises(ValueError, match="CLIP takes prompts of up to 77 tokens"):
        inference.load(made()).with_classes(["a very long name " * 20])


# ---- what cannot be used -------------------------------------------------------------------------------------------


def test_what_is_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "some" / "notes"
    folder.mkdir(parents=True)
    (folder / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"is not the folder of a run: it has no config\.yaml.*notes\.txt"):
        inference.load(folder)
    with pytest.raises(FileNotFoundError, match="has no 'absent'"):
        inference.load(folder / "absent")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("VERSION: 1", "VERSION: !!python/object/apply:os.system ['touch hacked']", "is not valid YAML"),
        ("VERSION: 1", "VERSION: 1\nNEWER: 3", r"(?s)NEWER: no such key.*of another version of this project"),
        ("VERSION: 1", "VERSION: [", "is not valid YAML"),
        ("INTERPOLATION: bicubic", "INTERPOLATION: cubic", r"(?s)cannot be used.*INPUT\.INTERPOLATION"),
        ("NAME: MaPLe", "NAME: MaPle", r"TRAINER\.NAME: 'MaPle' is not registered \(did you mean"),
        ("NAME: MaPLe", "NAME: ''", r"has no TRAINER\.NAME"),
        ("NAME: MaPLe", "NAME: CoOp", r"(?s)prompt_learner/model.*It was trained by MaPLe"),
        ("NAME: Emoji", "NAME: Emojis", r"DATASET\.NAME 'Emojis' is not available \(did you mean"),
        ("PROMPT_DEPTH: ", "PROMPT_DEPTH: 1 #", r"(?s)does not fit the model.*TRAINER\.MAPLE\.PROMPT_DEPTH"),
        ("NAME: ViT-Micro/8", "NAME: /gone/vit.pt", r"MODEL\.BACKBONE\.NAME \(--backbone\) is '/gone/vit.pt'"),
        ("NO_TRANSFORM: false", "NO_TRANSFORM: true", "NO_TRANSFORM is set"),
    ],
)
def test_settings_that_cannot_be_used(old: str, new: str, message: str, copied: Made) -> None:
    run = copied()
    change(run / "config.yaml", old, new)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        inference.load(run)


def test_the_backbone_may_have_moved(copied: Made, tmp_path: Path) -> None:
    run = copied()
    expected = inference.load(run).probabilities(BIRDS)
    (tmp_path / "here").mkdir()
    moved = shutil.copy(ROOT / "clip/ViT-Micro-8.pt", tmp_path / "here/vit.pt")
    change(run / "config.yaml", "NAME: ViT-Micro/8", "NAME: /gone/vit.pt")
    with pytest.raises(ValueError, match=r"vit\.pt does not tell which activation"):
        inference.load(run, backbone=moved)
    change(run / "config.yaml", "ACTIVATION: ''", "ACTIVATION: quick_gelu")
    with pytest.raises(ValueError, match="does not match this run"):  # it was trained with the one of that name
        inference.load(run, backbone=moved)
    assert torch.equal(inference.load(run, backbone="ViT-Micro/8").probabilities(BIRDS), expected)


def test_weights_that_are_damaged_or_hostile(copied: Made, tmp_path: Path) -> None:
    run = copied()
    file = run / FOLDER / "model.pth.tar-1"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=re.escape(str(file))):
        inference.load(run)

    class Hostile:
        def __reduce__(self) -> object:
            return Path.touch, (tmp_path / "hacked",)

    file.write_bytes(pickle.dumps({"state_dict": Hostile()}))
    with pytest.raises(ValueError, match=re.escape(str(file))):
        inference.load(run)
    assert not (tmp_path / "hacked").exists()
    shutil.rmtree(run / FOLDER)
    with pytest.raises(FileNotFoundError, match=rf"has no {FOLDER}/model\.pth\.tar-<epoch>"):
        inference.load(run)


def test_a_device_that_is_not_there(made: Made) -> None:
    with pytest.raises(ValueError, match="device 'gpu' is not available"):
        inference.load(made(), device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="PyTorch finds no GPU"):
            inference.load(made(), device="cuda")


def test_where_a_run_was_does_not_decide_where_it_is_used(made: Made) -> None:
    run = made()
    change(run / "config.yaml", "DEVICE: auto", "DEVICE: cuda:7")
    assert read_run(run).cfg.DEVICE == "auto" and read_run(run, device="cpu").cfg.DEVICE == "cpu"

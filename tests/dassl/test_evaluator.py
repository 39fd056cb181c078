"""Classification results against values computed by hand."""

import csv

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dassl.config import get_cfg_default
from dassl.evaluation import EVALUATOR_REGISTRY, build_evaluator
from dassl.evaluation.outputs import write_confusion_counts, write_predictions
from tests.reads import Reads

NAMES = {0: "ant", 1: "bee", 2: "cat", 3: "dog"}
# true 0: predicted 0 0 1; true 1: 1; true 2: 2 0; no dog
TRUE = torch.tensor([0, 0, 0, 1, 2, 2])
PREDICTED = torch.tensor([0, 0, 1, 1, 2, 0])


def evaluated(cfg):
    evaluator = build_evaluator(cfg, lab2cname=NAMES)
    scores = torch.nn.functional.one_hot(PREDICTED, 4).float()
    for start in range(0, 6, 4):
        evaluator.process(scores[start : start + 4], TRUE[start : start + 4])
    return evaluator, evaluator.evaluate()


def test_accuracy_and_macro_f1(capsys) -> None:
    """F1 = 2 tp / (2 tp + fp + fn): ant 4/6, bee 2/3, cat 2/3; dog does not occur."""
    evaluator, results = evaluated(get_cfg_default())
    assert list(results) == ["accuracy", "error_rate", "macro_f1"]
    assert results["accuracy"] == pytest.approx(400 / 6)
    assert results["error_rate"] == pytest.approx(200 / 6)
    assert results["macro_f1"] == pytest.approx(100 * (4 / 6 + 2 / 3 + 2 / 3) / 3)
    assert evaluator.report == {
        "correct": 4,
        "total": 6,
        "accuracy": results["accuracy"],
        "macro_f1": results["macro_f1"],
    }
    expected = "=> result\n* total: 6\n* correct: 4\n* accuracy: 66.67%\n* error: 33.33%\n* macro_f1: 66.67%\n"
    assert expected in capsys.readouterr().out


def test_macro_f1_and_confusion_matrix_have_the_bits_of_scikit_learn(tmp_path, monkeypatch) -> None:
    from sklearn.metrics import confusion_matrix, f1_score

    cfg = get_cfg_default()
    cfg.OUTPUT_DIR, cfg.TEST.COMPUTE_CMAT = str(tmp_path), True
    counts = []
    monkeypatch.setattr("dassl.evaluation.evaluator.write_confusion_counts", lambda *args: counts.append(args[-1]))
    random = np.random.default_rng(0)
    for K in (1, 2, 3, 7, 20, 50):
        true = random.integers(0, K, 5 * K)
        predicted = np.where(random.random(5 * K) < 0.6, true, random.integers(0, K, 5 * K))
        evaluator = build_evaluator(cfg, lab2cname={label: str(label) for label in range(K)})
        evaluator.process(torch.nn.functional.one_hot(torch.from_numpy(predicted), K).float(), torch.from_numpy(true))
        found = evaluator.evaluate()["macro_f1"]
        assert found == 100.0 * f1_score(true, predicted, average="macro", labels=np.unique(true))
        assert (counts[-1] == confusion_matrix(true, predicted, labels=range(K))).all()


def test_results_are_read_in_one_transfer() -> None:
    """Batches are gathered where the scores are."""
    names = dict(enumerate("abcdef"))  # from five classes on there are ranks, too
    evaluator = build_evaluator(get_cfg_default(), lab2cname=names)
    with Reads() as found:
        for _ in range(3):
            evaluator.process(torch.eye(6), torch.arange(6))
    assert found == {}
    with Reads() as found:
        results = evaluator.evaluate()
    assert found == {"cpu": 1, "numpy": 1}
    assert (results["accuracy"], results["top5_accuracy"]) == (100, 100)


def test_per_class_results_and_confusion_matrix(tmp_path, capsys) -> None:
    cfg = get_cfg_default()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.TEST.PER_CLASS_RESULT = True
    cfg.TEST.COMPUTE_CMAT = True
    evaluator, results = evaluated(cfg)
    assert results["perclass_accuracy"] == pytest.approx(100 * (2 / 3 + 1 + 1 / 2) / 3)
    assert evaluator.report["per_class"][2] == {
        "label": 2,
        "classname": "cat",
        "correct": 1,
        "total": 2,
        "accuracy": 50.0,
    }
    assert "* class: 0 (ant)\ttotal: 3\tcorrect: 2\tacc: 66.67%" in capsys.readouterr().out
    matrix = torch.load(tmp_path / "cmat.pt", weights_only=True)
    expected = torch.tensor(
        [[2 / 3, 1 / 3, 0, 0], [0, 1, 0, 0], [1 / 2, 0, 1 / 2, 0], [0, 0, 0, 0]], dtype=torch.float64
    )
    assert torch.allclose(matrix, expected)


def test_reset_discards_predictions_and_report() -> None:
    evaluator, _ = evaluated(get_cfg_default())
    evaluator.reset()
    assert evaluator.report is None
    with pytest.raises(ValueError, match="Nothing to evaluate"):
        evaluator.evaluate()


def test_per_class_results_need_names() -> None:
    cfg = get_cfg_default()
    cfg.TEST.PER_CLASS_RESULT = True
    with pytest.raises(ValueError, match="needs the class names"):
        build_evaluator(cfg)


def test_unknown_evaluator() -> None:
    cfg = get_cfg_default()
    cfg.TEST.EVALUATOR = "classification"
    with pytest.raises(ValueError, match="did you mean Classification"):
        build_evaluator(cfg)
    assert "Classification" in EVALUATOR_REGISTRY


def test_a_class_without_images_keeps_its_row(tmp_path, capsys) -> None:
    """``dog`` has no image: a row of zeros, no accuracy, and a note; the average is over the other classes."""
    cfg = get_cfg_default()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.TEST.PER_CLASS_RESULT = True
    cfg.TEST.COMPUTE_CMAT = True
    evaluator, _ = evaluated(cfg)
    last = evaluator.report["per_class"][3]
    assert last == {"label": 3, "classname": "dog", "correct": 0, "total": 0, "accuracy": None}
    assert evaluator.notes == ["1 of 4 classes have no image in this evaluation: dog"]
    printed = capsys.readouterr().out
    assert "* class: 3 (dog)\ttotal: 0\tcorrect: 0\tacc: none\n" in printed
    assert "Note: 1 of 4 classes have no image in this evaluation: dog\n" in printed
    rows = list(csv.reader((tmp_path / "cmat.csv").open(encoding="utf-8", newline="")))
    assert rows == [
        ["true class", "ant", "bee", "cat", "dog"],
        ["ant", "2", "1", "0", "0"],
        ["bee", "0", "1", "0", "0"],
        ["cat", "1", "0", "1", "0"],
        ["dog", "0", "0", "0", "0"],
    ]


def test_no_files_without_a_folder(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = get_cfg_default()
    cfg.OUTPUT_DIR = ""
    cfg.TEST.COMPUTE_CMAT = cfg.TEST.PREDICTIONS = True
    evaluated(cfg)
    assert list(tmp_path.iterdir()) == []
    printed = capsys.readouterr().out
    assert "TEST.COMPUTE_CMAT: nothing is saved, since OUTPUT_DIR is empty" in printed
    assert "TEST.PREDICTIONS: nothing is saved, since OUTPUT_DIR is empty" in printed


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(5, 9), st.integers(1, 30), st.integers(1, 4))
def test_top5_accuracy_is_its_definition(seed: int, K: int, N: int, levels: int) -> None:
    """The share of images whose class is among the five best; few levels of scores make many ties, in which the first
    class wins, as it does in the accuracy."""
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, levels, (N, K)).astype(np.float32), rng.integers(0, K, N)
    evaluator = build_evaluator(get_cfg_default())
    for start in range(0, N, 7):
        evaluator.process(torch.from_numpy(scores[start : start + 7]), torch.from_numpy(labels[start : start + 7]))
    results = evaluator.evaluate()
    best = np.argsort(-scores, axis=1, kind="stable")
    assert results["accuracy"] == 100 * int((best[:, 0] == labels).sum()) / N
    assert results["top5_accuracy"] == 100 * int((best[:, :5] == labels[:, None]).any(axis=1).sum()) / N
    assert evaluator.report["top5_accuracy"] == results["top5_accuracy"] >= results["accuracy"]


def test_top5_is_printed_after_the_block_and_left_out_below_five_classes(capsys) -> None:
    evaluator = build_evaluator(get_cfg_default())
    evaluator.process(torch.eye(6)[:4], torch.tensor([0, 1, 2, 5]))  # the last: classes 0 to 2, 4 tie before class 5
    evaluator.evaluate()
    assert "* macro_f1: 75.00%\n* top-5 accuracy: 75.00%\n" in capsys.readouterr().out
    evaluated(get_cfg_default())
    assert "top-5" not in capsys.readouterr().out


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("batch", [1, 2, 6])
def test_scores_that_are_not_finite_are_an_error(value, batch) -> None:
    scores = torch.rand(6, 4)
    scores[3, 2] = scores[5, 2] = value
    evaluator = build_evaluator(get_cfg_default(), lab2cname=NAMES)
    for start in range(0, 6, batch):
        evaluator.process(scores[start : start + batch], TRUE[start : start + batch])
        evaluator.images += [f"/data/{i}.jpg" for i in range(start, start + batch)]
    with pytest.raises(ValueError, match=r"for 2 of 6 images, the first /data/3\.jpg, .* 1 of 4 classes, .* 'cat'"):
        evaluator.evaluate()
    evaluator.reset()
    evaluator.process(scores[3:], TRUE[3:])
    with pytest.raises(ValueError, match=r"for 2 of 3 images, the first image 1,"):
        evaluator.evaluate()


def test_scores_and_labels_that_do_not_fit(capsys) -> None:
    evaluator = build_evaluator(get_cfg_default(), lab2cname=NAMES)
    for scores, labels in [
        (torch.zeros(6), TRUE),
        (torch.zeros(6, 4, 1), TRUE),
        (torch.zeros(5, 4), TRUE),
        (torch.zeros(6, 4), TRUE[:, None]),
    ]:
        with pytest.raises(ValueError, match=r"needs scores \(B, K\) and labels \(B,\), not \("):
            evaluator.process(scores, labels)
    for K in (3, 5):
        with pytest.raises(ValueError, match=f"scores of {K} classes, expected 4"):
            evaluator.process(torch.zeros(6, K), TRUE)
    for label in (-1, 4, 10**12):
        evaluator.reset()
        evaluator.process(torch.zeros(3, 4), torch.tensor([0, label, 1]))
        with pytest.raises(
            ValueError, match=rf"1 of 3 .* the 4 classes \(0 to 3\), the first image 2 with label {label}"
        ):
            evaluator.evaluate()
    unnamed = build_evaluator(get_cfg_default())
    unnamed.process(torch.zeros(2, 7), torch.tensor([6, 7]))
    with pytest.raises(ValueError, match="scores of 8 classes, expected 7"):
        unnamed.process(torch.zeros(2, 8), torch.tensor([6, 7]))
    with pytest.raises(ValueError, match="the first image 2 with label 7"):
        unnamed.evaluate()
    assert "accuracy" not in capsys.readouterr().out


def predictions(folder, scores, labels, images, lab2cname):
    cfg = get_cfg_default()
    cfg.OUTPUT_DIR = str(folder)
    cfg.TEST.PREDICTIONS = True
    evaluator = build_evaluator(cfg, lab2cname=lab2cname)
    evaluator.image_root = "/data/own"
    for start in range(0, len(labels), 2):
        evaluator.process(scores[start : start + 2], labels[start : start + 2])
        evaluator.images += images[start : start + 2]
    evaluator.evaluate()
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_predictions(tmp_path, capsys) -> None:
    """Softmax of (ln 6, ln 3, 0): 0.6, 0.3, 0.1."""
    scores = torch.tensor([[6.0, 3, 1], [1, 3, 6], [2, 2, 1]]).log()
    images = ["/data/own/test/a, b/1.jpg", "/data/own/test/c/2.jpg", "/elsewhere/3.jpg"]
    rows = predictions(tmp_path, scores, torch.tensor([0, 1, 2]), images, {0: 'a, "b"', 1: "γάτα", 2: "猫🐈"})
    columns = "image true_class predicted_class score top1_class top1_score top2_class top2_score top3_class top3_score"
    assert rows == [
        columns.split(),
        ["test/a, b/1.jpg", 'a, "b"', 'a, "b"', "0.6", 'a, "b"', "0.6", "γάτα", "0.3", "猫🐈", "0.1"],
        ["test/c/2.jpg", "γάτα", "猫🐈", "0.6", "猫🐈", "0.6", "γάτα", "0.3", 'a, "b"', "0.1"],
        ["/elsewhere/3.jpg", "猫🐈", 'a, "b"', "0.4", 'a, "b"', "0.4", "γάτα", "0.4", "猫🐈", "0.2"],
    ]
    assert f"Predictions are saved to {tmp_path / 'predictions.csv'}\n" in capsys.readouterr().out


def test_predictions_have_the_five_best_classes(tmp_path) -> None:
    scores = torch.arange(8.0).repeat(3, 1)
    (header, *rows) = predictions(tmp_path, scores, torch.tensor([7, 0, 3]), list("abc"), dict(enumerate("abcdefgh")))
    assert (len(header), header[-2:]) == (14, ["top5_class", "top5_score"])
    assert [row[4::2] for row in rows] == [list("hgfed")] * 3
    assert all(row[2:4] == row[4:6] for row in rows)


def test_a_test_loop_that_names_no_images_gets_no_predictions(tmp_path, capsys) -> None:
    cfg = get_cfg_default()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.TEST.PREDICTIONS = True
    evaluated(cfg)
    assert not list(tmp_path.iterdir())
    assert "predictions.csv is not written: the trainer has its own test loop" in capsys.readouterr().out


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=3, max_size=3))
def test_any_names_survive_in_both_tables(tmp_path_factory, names) -> None:
    folder = tmp_path_factory.mktemp("names")
    write_predictions(folder / "p.csv", names, names, [0, 1, 2], np.array([[0, 1], [1, 2], [2, 0]]), np.ones((3, 2)))
    write_confusion_counts(folder / "c.csv", names, np.eye(3, dtype=int))
    with (folder / "p.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[0] for row in rows] == [row[1] for row in rows] == [row[2] for row in rows] == names
    with (folder / "c.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == [row[0] for row in rows] == names


def test_names_that_are_not_text_are_escaped_in_tables(tmp_path) -> None:
    """Surrogates: the bytes of "é" and of 0xff as a locale that is not UTF-8 gives them, and one without a byte."""
    names = ["caf\udcc3\udca9", "\udcff", "\ud800"]
    write_confusion_counts(tmp_path / "c.csv", names, np.eye(3, dtype=int))
    assert (tmp_path / "c.csv").read_text(encoding="utf-8").splitlines()[0] == r"true class,café,\xff,\ud800"


def test_class_names_do_not_control_the_terminal(capsys) -> None:
    cfg = get_cfg_default()
    cfg.TEST.PER_CLASS_RESULT = True
    evaluator = build_evaluator(cfg, lab2cname={0: "red\x1b[31m", 1: "tab\tnew\nline", 2: "up\u202eside"})
    evaluator.process(torch.eye(2, 3), torch.tensor([0, 1]))
    evaluator.evaluate()
    printed = capsys.readouterr().out
    assert r"* class: 0 (red\x1b[31m)" in printed and r"* class: 1 (tab\tnew\nline)" in printed
    assert r"Note: 1 of 3 classes have no image in this evaluation: up\u202eside" in printed
    assert not {"\x1b", "\u202e"} & set(printed)

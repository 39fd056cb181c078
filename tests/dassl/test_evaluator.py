"""Classification results against values computed by hand."""

import pytest
import torch

from dassl.config import get_cfg_default
from dassl.evaluation import EVALUATOR_REGISTRY, build_evaluator

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
    expected = torch.tensor([[2 / 3, 1 / 3, 0], [0, 1, 0], [1 / 2, 0, 1 / 2]], dtype=torch.float64)
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

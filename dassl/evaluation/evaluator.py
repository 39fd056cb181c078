"""Metrics of a test. Letters: B images, K classes."""

from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dassl.evaluation.build import EVALUATOR_REGISTRY
from dassl.utils.torchtools import torch_save

__all__ = ["Classification", "EvaluatorBase"]


class EvaluatorBase:
    """Collects predictions batch by batch, then evaluates them."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg

    def reset(self) -> None:
        raise NotImplementedError

    def process(self, mo: torch.Tensor, gt: torch.Tensor) -> None:
        raise NotImplementedError

    def evaluate(self) -> OrderedDict[str, Any]:
        raise NotImplementedError


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Accuracy, error rate and macro F1 in percent; optionally per-class accuracy and the confusion matrix.

    After :meth:`evaluate`, ``report`` has correct, total, accuracy, macro_f1 and, with TEST.PER_CLASS_RESULT,
    per_class: a list of dicts with label, classname, correct, total and accuracy.

    Args:
        lab2cname: class name of each label, needed for per-class results.
    """

    def __init__(self, cfg: Any, lab2cname: Mapping[int, str] | None = None, **kwargs: Any) -> None:
        super().__init__(cfg)
        self._lab2cname = lab2cname
        if cfg.TEST.PER_CLASS_RESULT and lab2cname is None:
            raise ValueError("TEST.PER_CLASS_RESULT needs the class names: pass lab2cname to the evaluator")
        self.reset()

    def reset(self) -> None:
        self._pred: list[torch.Tensor] = []
        self._true: list[torch.Tensor] = []
        self.report: dict[str, Any] | None = None

    def process(self, mo: torch.Tensor, gt: torch.Tensor) -> None:
        """Add a batch of scores ``mo`` (B, K) and labels ``gt`` (B,), without a transfer from their device."""
        self._pred.append(mo.max(1)[1])  # (B,)
        self._true.append(gt)

    def evaluate(self) -> OrderedDict[str, Any]:
        """Print the ``=> result`` block and return accuracy, error_rate, macro_f1 and the optional metrics.

        Raises:
            ValueError: no sample was processed.
        """
        from sklearn.metrics import f1_score  # takes about a second to import

        if not self._true or not sum(len(batch) for batch in self._true):
            raise ValueError("Nothing to evaluate: the split has no images")
        y_pred = torch.cat(self._pred).cpu().numpy()  # (total,)
        y_true = torch.cat(self._true).cpu().numpy()  # (total,)
        total = len(y_true)
        correct = int((y_pred == y_true).sum())
        accuracy = 100.0 * correct / total
        macro_f1 = 100.0 * float(f1_score(y_true, y_pred, average="macro", labels=np.unique(y_true)))
        results: OrderedDict[str, Any] = OrderedDict(accuracy=accuracy, error_rate=100.0 - accuracy, macro_f1=macro_f1)
        self.report = {"correct": correct, "total": total, "accuracy": accuracy, "macro_f1": macro_f1}
        print(
            "=> result\n"
            f"* total: {total:,}\n"
            f"* correct: {correct:,}\n"
            f"* accuracy: {accuracy:.2f}%\n"
            f"* error: {100.0 - accuracy:.2f}%\n"
            f"* macro_f1: {macro_f1:.2f}%"
        )
        if self.cfg.TEST.PER_CLASS_RESULT:
            per_class = self._by_class(y_true, y_pred)
            self.report["per_class"] = per_class
            results["perclass_accuracy"] = float(np.mean([row["accuracy"] for row in per_class]))
            _print_by_class(per_class, results["perclass_accuracy"])
        if self.cfg.TEST.COMPUTE_CMAT:
            self._save_confusion_matrix(y_true, y_pred)
        return results

    def _by_class(self, y_true: np.ndarray, y_pred: np.ndarray) -> list[dict[str, Any]]:
        assert self._lab2cname is not None
        hits: defaultdict[int, list[bool]] = defaultdict(list)
        for label, hit in zip(y_true.tolist(), (y_pred == y_true).tolist(), strict=True):
            hits[label].append(hit)
        return [
            {
                "label": label,
                "classname": self._lab2cname[label],
                "correct": sum(hits[label]),
                "total": len(hits[label]),
                "accuracy": 100.0 * sum(hits[label]) / len(hits[label]),
            }
            for label in sorted(hits)
        ]

    def _save_confusion_matrix(self, y_true: np.ndarray, y_pred: np.ndarray) -> None:
        """Save a tensor as OUTPUT_DIR/cmat.pt: rows are true labels and sum to 1, columns are predictions."""
        from sklearn.metrics import confusion_matrix

        matrix = confusion_matrix(y_true, y_pred, normalize="true")  # (labels, labels)
        path = Path(self.cfg.OUTPUT_DIR) / "cmat.pt"
        torch_save(torch.from_numpy(matrix), path)
        print(f"Confusion matrix is saved to {path}")


def _print_by_class(per_class: list[dict[str, Any]], average: float) -> None:
    print("=> per-class result")
    for row in per_class:
        print(
            f"* class: {row['label']} ({row['classname']})\t"
            f"total: {row['total']:,}\tcorrect: {row['correct']:,}\tacc: {row['accuracy']:.2f}%"
        )
    print(f"* average: {average:.2f}%")

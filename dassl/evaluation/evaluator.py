"""Metrics of a test. Letters: B images of a batch, N images in all, K classes."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dassl.config import setting
from dassl.evaluation.build import EVALUATOR_REGISTRY
from dassl.evaluation.outputs import relative_to, write_confusion_counts, write_predictions
from dassl.utils.console import printable
from dassl.utils.names import first_few
from dassl.utils.torchtools import torch_save

__all__ = ["Classification", "EvaluatorBase"]

TOP = 5  # classes of the top-5 accuracy and of a row of predictions.csv


class EvaluatorBase:
    """Collects predictions batch by batch, then evaluates them.

    Attributes:
        images: paths of the images in the order in which they are processed, for messages and predictions.csv. A test
            loop extends it beside its calls of :meth:`process`; one that does not gets messages with numbers instead.
        image_root: the folder that paths in predictions.csv are relative to.
    """

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.images: list[str] = []
        self.image_root = ""

    def reset(self) -> None:
        raise NotImplementedError

    def process(self, mo: torch.Tensor, gt: torch.Tensor) -> None:
        raise NotImplementedError

    def evaluate(self) -> OrderedDict[str, Any]:
        raise NotImplementedError


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Accuracy, error rate and macro F1 in percent, from five classes on top-5 accuracy; optionally per-class accuracy,
    the confusion matrix and a table of all predictions.

    After :meth:`evaluate`, ``report`` has correct, total, accuracy, macro_f1, top5_accuracy and, with
    TEST.PER_CLASS_RESULT, per_class: a list of dicts with label, classname, correct, total and accuracy (None for a
    class without images); ``notes`` has sentences on the data.

    Args:
        lab2cname: class name of each label, needed for per-class results.
    """

    def __init__(self, cfg: Any, lab2cname: Mapping[int, str] | None = None, **kwargs: Any) -> None:
        super().__init__(cfg)
        self._lab2cname = lab2cname
        if cfg.TEST.PER_CLASS_RESULT and lab2cname is None:
            raise ValueError("TEST.PER_CLASS_RESULT needs the class names: pass lab2cname to the evaluator")
        self._keep_top = bool(setting(cfg, "TEST.PREDICTIONS"))
        self.reset()

    def reset(self) -> None:
        self._pred: list[torch.Tensor] = []
        self._true: list[torch.Tensor] = []
        self._rank: list[torch.Tensor] = []  # of the true class, from 0
        self._finite: list[torch.Tensor] = []  # whether all scores of an image are
        self._top: list[tuple[torch.Tensor, torch.Tensor]] = []  # the best classes, and their probabilities
        self._finite_classes: torch.Tensor | None = None  # (K,)
        self._num_classes = max(self._lab2cname) + 1 if self._lab2cname else 0
        self.images = []
        self.report: dict[str, Any] | None = None
        self.notes: list[str] = []

    def process(self, mo: torch.Tensor, gt: torch.Tensor) -> None:
        """Add a batch of scores ``mo`` (B, K) and labels ``gt`` (B,), without a transfer from their device.

        Raises:
            ValueError: other shapes, or another number of classes than the dataset's.
        """
        if mo.ndim != 2 or gt.shape != mo.shape[:1]:
            raise ValueError(
                f"A test needs scores (B, K) and labels (B,), not {tuple(mo.shape)} and {tuple(gt.shape)}: see"
                " model_inference and parse_batch_test of the trainer"
            )
        K = self._num_classes = self._num_classes or mo.shape[1]
        if mo.shape[1] != K:
            raise ValueError(
                f"The model gives scores of {mo.shape[1]} classes, expected {K}, one for each class of the dataset:"
                " build it for the dataset that is tested"
            )
        mo, gt = mo.detach(), gt.to(mo.device, torch.long, non_blocking=mo.is_cuda)
        self._pred.append(mo.max(1)[1])  # (B,)
        self._true.append(gt)
        finite = mo.isfinite()  # (B, K)
        self._finite.append(finite.all(1))
        classes = finite.all(0)
        self._finite_classes = classes if self._finite_classes is None else self._finite_classes & classes
        if K >= TOP:
            label = gt.clamp(0, K - 1)[:, None]  # (B, 1); labels out of range are an error of evaluate
            score = mo.gather(1, label)  # (B, 1)
            tie = (mo == score) & (torch.arange(K, device=mo.device) < label)  # the first of equal scores wins
            self._rank.append(((mo > score) | tie).sum(1))
        if self._keep_top:
            best = mo.sort(dim=1, descending=True, stable=True)[1][:, :TOP]  # (B, min(K, TOP))
            self._top.append((best, mo.float().softmax(1).gather(1, best)))

    def evaluate(self) -> OrderedDict[str, Any]:
        """Print the ``=> result`` block and return accuracy, error_rate, macro_f1 and the optional metrics.

        Raises:
            ValueError: no sample was processed, scores are NaN or infinite, or labels are out of range.
        """
        if not self._true or not sum(len(batch) for batch in self._true):
            raise ValueError("Nothing to evaluate: the split has no images")
        gathered = [torch.cat(parts).long() for parts in (self._true, self._pred, self._finite, self._rank) if parts]
        y_true, y_pred, finite, *rank = torch.stack(gathered).cpu().numpy()  # (N,) each, in one transfer
        self._check(y_true, finite.astype(bool))
        total = len(y_true)
        correct = int((y_pred == y_true).sum())
        accuracy = 100.0 * correct / total
        macro_f1 = 100.0 * float(_f1_scores(y_true, y_pred).mean())
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
        if rank:
            top5 = 100.0 * int((rank[0] < TOP).sum()) / total
            results["top5_accuracy"] = self.report["top5_accuracy"] = top5
            print(f"* top-5 accuracy: {top5:.2f}%")
        counts = np.bincount(y_true, minlength=self._num_classes)  # (K,)
        if (absent := np.flatnonzero(counts == 0)).size:
            names = first_few(self._classname(label) for label in absent.tolist())
            self.notes = [f"{absent.size} of {len(counts)} classes have no image in this evaluation: {names}"]
            print(printable(f"Note: {self.notes[0]}"))
        if self.cfg.TEST.PER_CLASS_RESULT:
            per_class = self._by_class(counts, np.bincount(y_true[y_pred == y_true], minlength=len(counts)))
            self.report["per_class"] = per_class
            known = [row["accuracy"] for row in per_class if row["total"]]
            results["perclass_accuracy"] = float(np.mean(known))
            _print_by_class(per_class, results["perclass_accuracy"])
        if self.cfg.TEST.COMPUTE_CMAT and self._has_folder("TEST.COMPUTE_CMAT"):
            self._save_confusion_matrix(y_true, y_pred)
        if self._keep_top and self._has_folder("TEST.PREDICTIONS"):
            self._save_predictions(y_true)
        return results

    def _check(self, y_true: np.ndarray, finite: np.ndarray) -> None:
        """An error for scores of images (N,) that are not finite and for labels that no class has."""
        K = self._num_classes
        if not finite.all():
            assert self._finite_classes is not None
            bad_images, bad_classes = np.flatnonzero(~finite), (~self._finite_classes).nonzero().flatten().tolist()
            raise ValueError(
                f"Scores are NaN or infinite for {len(bad_images)} of {len(finite)} images, the first"
                f" {self._image(bad_images[0])}, and for {len(bad_classes)} of {K} classes, the first"
                f" {self._classname(bad_classes[0])!r}: no accuracy is computed. Look at the weights and, with PREC"
                " fp16, try fp32"
            )
        wrong = np.flatnonzero((y_true < 0) | (y_true >= K))
        if wrong.size:
            raise ValueError(
                f"{wrong.size} of {len(y_true)} images have a label that is not one of the {K} classes (0 to {K - 1}),"
                f" the first {self._image(wrong[0])} with label {y_true[wrong[0]]}: test with the classes that the"
                " model scores"
            )

    def _classname(self, label: int) -> str:
        return str((self._lab2cname or {}).get(label, label))

    def _image(self, index: int) -> str:
        return self.images[index] if index < len(self.images) else f"image {index + 1}"

    def _has_folder(self, option: str) -> bool:
        if not self.cfg.OUTPUT_DIR:
            print(f"{option}: nothing is saved, since OUTPUT_DIR is empty")
        return bool(self.cfg.OUTPUT_DIR)

    def _by_class(self, totals: np.ndarray, correct: np.ndarray) -> list[dict[str, Any]]:
        """Results of every class from its numbers of images and of correct predictions, both (K,)."""
        return [
            {
                "label": label,
                "classname": self._classname(label),
                "correct": hits,
                "total": total,
                "accuracy": 100.0 * hits / total if total else None,
            }
            for label, (total, hits) in enumerate(zip(totals.tolist(), correct.tolist(), strict=True))
        ]

    def _save_confusion_matrix(self, y_true: np.ndarray, y_pred: np.ndarray) -> None:
        """Save cmat.pt, a tensor (K, K) with true labels as rows, which sum to 1, and predictions as columns; a class
        without images has a row of zeros. cmat.csv has class names and numbers of images."""
        K = self._num_classes
        labels = range(K)
        counts = np.bincount(y_true * K + y_pred, minlength=K * K).reshape(K, K)
        path = Path(self.cfg.OUTPUT_DIR) / "cmat.pt"
        torch_save(torch.from_numpy(counts / counts.sum(axis=1, keepdims=True).clip(1)), path)
        write_confusion_counts(path.with_suffix(".csv"), [self._classname(label) for label in labels], counts)
        print(f"Confusion matrix is saved to {path}")
        print(f"Confusion matrix with class names and numbers of images is saved to {path.with_suffix('.csv')}")

    def _save_predictions(self, y_true: np.ndarray) -> None:
        """Save predictions.csv, one row per image in the order of the data."""
        if len(self.images) != len(y_true):
            print(
                "Warning: predictions.csv is not written: the trainer has its own test loop, which does not name the"
                ' images. After evaluator.process, it should call evaluator.images.extend(batch["impath"])'
            )
            return
        path = Path(self.cfg.OUTPUT_DIR) / "predictions.csv"
        images = [relative_to(self.image_root, image) for image in self.images]
        classnames = [self._classname(label) for label in range(self._num_classes)]
        classes, scores = (torch.cat(parts).cpu().numpy() for parts in zip(*self._top, strict=True))
        write_predictions(path, images, classnames, y_true.tolist(), classes, scores)
        print(f"Predictions are saved to {path}")


def _f1_scores(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    """The F1 score of each class that has images: 2 * correct / (images + predictions). scikit-learn's ``f1_score``
    with ``average="macro"`` is their mean; importing it takes a third of the time that a short test takes."""
    present = np.unique(y_true)
    hits, images, predictions = (
        np.bincount(values, minlength=present[-1] + 1)[present] for values in (y_true[y_true == y_pred], y_true, y_pred)
    )
    return 2.0 * hits / (images + predictions)


def _print_by_class(per_class: list[dict[str, Any]], average: float) -> None:
    print("=> per-class result")
    for row in per_class:
        accuracy = "none" if row["accuracy"] is None else f"{row['accuracy']:.2f}%"
        print(
            f"* class: {row['label']} ({printable(row['classname'])})\t"
            f"total: {row['total']:,}\tcorrect: {row['correct']:,}\tacc: {accuracy}"
        )
    print(f"* average: {average:.2f}%")

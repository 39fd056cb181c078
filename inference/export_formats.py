"""A classifier written in several formats into one folder, and what 8-bit weights cost it in accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dassl.utils import write_json
from dassl.utils.progress import progress

from .classifier import Classifier
from .export_bundle import describe_transform, public_name, write_bundle
from .export_model import (
    INPUT,
    OPSET,
    OUTPUT,
    Run,
    in_fp32,
    onnx_runner,
    require_onnx,
    write_int8,
    write_onnx,
    write_torch_export,
    write_torchscript,
)
from .labelled import Labelled, pictures_or_reason

FILES = {"onnx": "model.onnx", "torchscript": "model.torchscript", "torch_export": "model.pt2"}
INT8, DESCRIPTION = "model.int8.onnx", "model.json"
BATCH = 32


def export(
    classifier: Classifier,
    folder: Path,
    formats: list[str],
    int8: bool = False,
    images: str | None = None,
    hub: bool = False,
) -> dict[str, Any]:
    """Write a classifier in some of `inference.export.FORMATS`; returns what model.json describes.

    Args:
        int8: write an ONNX file with weights of 8 bits, too.
        images: a folder of pictures that the cost in accuracy is measured on; by default the run's test images.
        hub: write a folder ready for the hub: a bundle with all that is exported.

    Raises:
        ValueError: the method cannot be exported, the packages for it are missing, or the result differs.
    """
    if int8 and "onnx" not in formats:
        raise ValueError("--int8 makes an ONNX file smaller: add --format onnx")
    if "onnx" in formats:
        require_onnx()
    pictures, unmeasured = pictures_or_reason(classifier, images) if int8 else ([], "")
    described = _describe(classifier)
    programs = [name for name in formats if name in FILES]
    plain = in_fp32(classifier) if programs else classifier
    for name in programs:
        path = folder / FILES[name]
        if name == "onnx":
            worst = write_onnx(plain, path, described)
            described["opset"] = OPSET
        else:
            worst = {"torchscript": write_torchscript, "torch_export": write_torch_export}[name](plain, path)
        described["files"][FILES[name]] = {"largest_difference": worst}
        print(f"{path}: {path.stat().st_size:,} bytes; logits equal to {worst:.1e} of the largest one")
    if int8:
        write_int8(folder / FILES["onnx"], folder / INT8)
        cost = measure(plain, onnx_runner(folder / INT8), pictures) if pictures else {"not_measured": unmeasured}
        described["files"][INT8] = cost
        print(f"{folder / INT8}: {(folder / INT8).stat().st_size:,} bytes; {in_words(cost)}")
    if described["files"]:
        write_json(described, folder / DESCRIPTION)
    if hub or "bundle" in formats:
        written = write_bundle(classifier, folder, hub)
        print(f"{folder}: a bundle of {', '.join(path.name for path in written)}")
    return described


def _describe(classifier: Classifier) -> dict[str, Any]:
    cfg = classifier.run.cfg
    return {
        "trainer": classifier.trainer_name,
        "backbone": public_name(cfg.MODEL.BACKBONE.NAME),
        "classnames": classifier.classnames,
        "input": {"name": INPUT, "type": "float32", "shape": ["batch", 3, *cfg.INPUT.SIZE]},
        "output": {"name": OUTPUT, "type": "float32", "shape": ["batch", len(classifier.classnames)]},
        "scores": "softmax of the logits",
        "transform": describe_transform(cfg),
        "files": {},
    }


def measure(classifier: Classifier, exported: Run, pictures: list[Labelled]) -> dict[str, Any]:
    """How often the exported model's best class is the run's, and the accuracy of both where classes are known."""
    agreeing, labelled, own_correct, exported_correct = 0, 0, 0, 0
    starts = range(0, len(pictures), BATCH)
    for start in progress(starts, "int8", len(starts)):
        some = pictures[start : start + BATCH]
        images = torch.stack([classifier.reader(one.path) for one in some])
        own, other = (logits(images).argmax(dim=1).tolist() for logits in (classifier.logits, exported))
        agreeing += sum(a == b for a, b in zip(own, other, strict=True))
        known = [(one.label, a, b) for one, a, b in zip(some, own, other, strict=True) if one.label is not None]
        labelled += len(known)
        own_correct += sum(a == label for label, a, _ in known)
        exported_correct += sum(b == label for label, _, b in known)
    found: dict[str, Any] = {"images": len(pictures), "same_class": 100 * agreeing / len(pictures)}
    if labelled:
        found |= {
            "labelled": labelled,
            "accuracy": 100 * exported_correct / labelled,
            "accuracy_fp32": 100 * own_correct / labelled,
        }
    return found


def in_words(cost: dict[str, Any]) -> str:
    """What `measure` found, as a sentence."""
    if "not_measured" in cost:
        return f"the accuracy that it costs is not measured: {cost['not_measured']}"
    same = f"the same class as in fp32 for {cost['same_class']:.2f}% of {cost['images']} images"
    if "accuracy" not in cost:
        return same
    return f"accuracy {cost['accuracy']:.2f}% instead of {cost['accuracy_fp32']:.2f}%, {same}"

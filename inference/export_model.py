"""A trained classifier as a program of its own: ONNX, TorchScript, torch.export.

Each takes preprocessed images (B, 3, H, W) in fp32, of any number B, and gives logits (B, K).

Letters: B images, K classes, E joint width.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from dassl.utils import atomic_write
from trainers.conditional import ConditionalCLIP
from trainers.prompted_clip import FrozenTowersCLIP

from .classifier import Classifier

OPSET = 18  # of ONNX; onnxruntime reads it from version 1.14 on
TOLERANCE = 1e-4  # of the largest logit
LARGEST = 1_800_000_000  # bytes of weights inside an .onnx file, which cannot have more than 2 GiB
INPUT, OUTPUT = "image", "logits"

Run = Callable[[Tensor], Tensor]  # logits (B, K) of images (B, 3, H, W)


class Logits(nn.Module):
    """Logits (B, K) of images (B, 3, H, W). Text features that do not depend on the image are constants.

    Raises:
        ValueError: the model is not one that this project builds.
    """

    text: Tensor | None  # (K, E)

    def __init__(self, classifier: Classifier):
        super().__init__()
        model = classifier.trainer.model
        if not isinstance(model, FrozenTowersCLIP):
            raise ValueError(
                f"{classifier.trainer_name} cannot be exported: its model is a {type(model).__name__}, expected a "
                f"{FrozenTowersCLIP.__name__} of trainers/prompted_clip.py, whose features and logits are known"
            )
        self.side = int(model.image_encoder.input_resolution)
        self.conditional = isinstance(model, ConditionalCLIP)
        self.register_buffer("text", None if self.conditional else _text_features(model))
        self.model = copy.copy(model)  # shares the weights
        if not self.conditional:
            self.model._modules = {name: child for name, child in model._modules.items() if name != "text_encoder"}
            self.model.text_features = self.constant_text  # type: ignore[method-assign]

    def constant_text(self) -> Tensor:
        assert self.text is not None
        return self.text

    def forward(self, image: Tensor) -> Tensor:
        if not self.conditional:
            return self.model(image)
        features = self.model.adapt_image(self.model.encode_image(image))  # (B, E)
        assert isinstance(self.model, ConditionalCLIP)
        return self.model.score(features, self.model.prompt_learner.layout)  # in one piece, whatever the memory


@torch.no_grad()
def _text_features(model: FrozenTowersCLIP) -> Tensor | None:
    """(K, E); None for a method that scores without texts."""
    try:
        return model.text_features().clone()
    except NotImplementedError:
        return None


def in_fp32(classifier: Classifier) -> Classifier:
    """The classifier with towers in fp32 on the CPU, whatever PREC its run had."""
    trainer, cfg = classifier.trainer, classifier.run.cfg.clone()
    if trainer.precision.name == "fp32" and classifier.device.type == "cpu":
        return classifier
    cfg.defrost()
    cfg.DEVICE = "cpu"
    for node in cfg.TRAINER.values():
        if isinstance(node, CfgNode) and "PREC" in node:
            node.PREC = "fp32"
    cfg.freeze()
    return Classifier(replace(classifier.run, cfg=cfg), classifier.classnames)


def difference(exported: Run, classifier: Classifier, side: int) -> float:
    """The largest difference of the logits, as a share of the largest logit, on one and on three random images.

    Raises:
        ValueError: it is more than `TOLERANCE`.
    """
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for images in (torch.randn(count, 3, side, side, generator=generator) for count in (1, 3)):
        expected, found = classifier.logits(images).cpu(), exported(images)
        worst = max(worst, ((found - expected).abs().max() / expected.abs().max()).item())
    if not worst <= TOLERANCE:
        raise ValueError(
            f"the exported model differs from the run by {worst:.1e} of the largest logit, more than {TOLERANCE:g}: it "
            "was not written"
        )
    return worst


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' notes on what they do."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _examples(module: Logits) -> tuple[Tensor]:
    return (torch.randn(3, 3, module.side, module.side, generator=torch.Generator().manual_seed(0)),)


def _program(module: Logits, name: str) -> torch.export.ExportedProgram:
    try:
        with _quiet():
            shapes = ({0: torch.export.Dim("batch")},)
            return torch.export.export(module.eval(), _examples(module), dynamic_shapes=shapes)
    except Exception as error:  # whatever a method's own code makes the tracer raise
        reason = str(error).strip().split("\n")[0][:300]
        raise ValueError(f"{name} cannot be exported: torch.export cannot follow its model ({reason})") from error


def write_torch_export(classifier: Classifier, path: Path) -> float:
    """Write a program for `torch.export.load`; returns `difference`."""
    module = Logits(classifier)
    program = _program(module, classifier.trainer_name)
    with _quiet():
        worst = difference(program.module(), classifier, module.side)
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    _write(path, buffer)
    return worst


def write_torchscript(classifier: Classifier, path: Path) -> float:
    """Write a TorchScript archive; returns `difference`."""
    module, buffer = Logits(classifier), io.BytesIO()
    with _quiet():
        traced = torch.jit.freeze(torch.jit.trace(module.eval(), _examples(module)))
        worst = difference(traced, classifier, module.side)
        try:
            torch.jit.save(traced, buffer)
        except RuntimeError as error:  # an autograd.Function is such a call
            raise ValueError(
                f"{classifier.trainer_name} cannot be exported as TorchScript, which has no place for what its model "
                f"calls ({str(error).strip().splitlines()[0]}): choose another format, such as onnx or torch_export"
            ) from error
    _write(path, buffer)
    return worst


def _write(path: Path, buffer: io.BytesIO) -> None:
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


# ---- ONNX --------------------------------------------------------------------------------------------------------


def require_onnx() -> None:
    """Raise a ValueError if the packages for ONNX are not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"ONNX needs packages that are not installed ({error}): install requirements-onnx.txt with "
            "`bash scripts/setup.sh onnx`, or choose --format bundle, torchscript or torch_export"
        ) from error


def write_onnx(classifier: Classifier, path: Path, notes: Mapping[str, Any], opset: int = OPSET) -> float:
    """Write an ONNX file; returns `difference` with onnxruntime.

    Args:
        notes: become the file's metadata, as JSON.

    Weights of more than `LARGEST` bytes are in a second file, `<name>.data`.
    """
    require_onnx()
    module = Logits(classifier)
    program = _program(module, classifier.trainer_name)
    large = sum(value.nbytes for value in program.state_dict.values()) > LARGEST
    with _quiet():
        exported = torch.onnx.export(
            program, (), input_names=[INPUT], output_names=[OUTPUT], opset_version=opset, dynamo=True, verbose=False
        )
        assert exported is not None
        exported.model.metadata_props.update({key: json.dumps(value) for key, value in notes.items()})
    with new_files(path) as temporary:
        exported.save(str(temporary), external_data=large)
        return difference(onnx_runner(temporary), classifier, module.side)


def write_int8(source: Path, path: Path) -> None:
    """Write a copy of an ONNX file with dynamic quantisation: the weights of matrix products have 8 bits."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with new_files(path) as temporary, _quiet():
        quantize_dynamic(
            source,
            temporary,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=source.with_name(f"{source.name}.data").exists(),
        )


def onnx_runner(path: Path) -> Run:
    """Logits (B, K) of images (B, 3, H, W) by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


@contextmanager
def new_files(path: Path) -> Iterator[Path]:
    """A path of the same name in a temporary folder beside it; what is there takes its place if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        yield Path(folder) / path.name
        for file in sorted(Path(folder).iterdir(), key=lambda one: one.name == path.name):  # the weights first
            os.replace(file, path.with_name(file.name))

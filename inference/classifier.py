"""The classifier of a trained run: class names and scores for pictures, without the data it was trained on.

Letters: N pictures, B of a batch, K classes, E joint width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

import datasets  # noqa: F401  (registers the datasets, which have the templates)
from dassl.config import setting
from dassl.data.datasets import DATASET_REGISTRY
from dassl.data.transforms import build_transform
from dassl.engine.weights import find_weights
from dassl.utils import check_availability, first_few, load_checkpoint, read_image, to_rgb
from trainers.base import ClipTrainer
from trainers.conditional import ConditionalCLIP
from trainers.prompted_clip import FrozenTowersCLIP
from trainers.without_data import dataset_without_images, trainer_without_data

from .bundle import is_bundle, read_bundle
from .run_folder import Run, check_names, read_run

Picture = str | Path | Image.Image
SHARED = "whose prompts are shared by all classes, such as MaPLe, PromptSRC, KgCoOp, CoCoOp, or CoOp with CSC False"


class Prediction(NamedTuple):
    """A class, and its softmax probability over all classes of the classifier."""

    classname: str
    score: float


class Reader:
    """Reads a path or a PIL image as the run's own test does: (3, H, W). Apart from the model, for other processes.

    Attributes:
        transform: from an RGB image to the tensor.
    """

    def __init__(self, run: Run):
        transform = build_transform(run.cfg, is_train=False)
        if transform is None:
            raise ValueError(f"{run.folder}: INPUT.NO_TRANSFORM is set, so that pictures cannot become a batch")
        self.transform = transform
        self.upright = bool(setting(run.cfg, "INPUT.EXIF_ORIENTATION"))

    def __call__(self, picture: Picture) -> Tensor:
        if isinstance(picture, Image.Image):
            return self.transform(to_rgb(picture))
        return self.transform(read_image(picture, upright=self.upright))


def load(
    run: str | Path,
    epoch: int | None = None,
    backbone: str | Path | None = None,
    classnames: Sequence[str] | None = None,
    device: str | None = None,
) -> Classifier:
    """The classifier of a run, in evaluation mode.

    Args:
        run: the run's folder, as train.py wrote it, or a bundle (`python -m inference export`). A file of weights in a
            run's folder is understood, too.
        epoch: the epoch whose weights are loaded; by default the best, or else the last saved.
        backbone: name or file of the backbone, where it is no longer that of the run's config.yaml.
        classnames: as `Classifier.with_classes`; by default those of the run.
        device: "cpu", "cuda", "cuda:1", "mps"; by default the GPU if there is one and the run's USE_CUDA allows it.

    Raises:
        FileNotFoundError: no run, no weights of that epoch, or no backbone there.
        ValueError: the run is damaged or of another version, does not say its class names, or has learned something
            for each of its classes and is asked for others.
    """
    if is_bundle(run):
        if epoch is not None:
            raise ValueError(f"{run} is a bundle, which has the weights of one epoch: give no epoch")
        found = read_bundle(run, backbone, device)
    else:
        found = read_run(run, epoch, backbone, device)
    names = found.classnames if classnames is None else check_names(classnames, "the class names")
    if names is None:
        names = _names_in_weights(found)
    return Classifier(found, names)


class Classifier:
    """The model of a run for some class names. Pictures go through the run's own test transform, in its precision.

    Attributes:
        run: where it comes from.
        classnames: K names.
        trainer: the run's trainer, without data; `trainer.model` is the model.
        reader: from a picture to a tensor (3, H, W).
    """

    def __init__(self, run: Run, classnames: Sequence[str]):
        self.run, self.classnames = run, list(classnames)
        self.reader = Reader(run)
        self.trainer = _trained(run, self.classnames)
        self.trainer.set_model_mode("eval")

    @property
    def device(self) -> torch.device:
        return self.trainer.device

    def with_classes(self, names: Sequence[str]) -> Classifier:
        """A classifier with the same prompts for other class names (open vocabulary). This one is not changed.

        Raises:
            ValueError: the method has learned something for each of its classes.
        """
        return Classifier(self.run, check_names(names, "the class names"))

    def predict(self, pictures: Picture | Sequence[Picture], top_k: int = 5, batch: int = 64) -> list[list[Prediction]]:
        """The best classes of each picture, the highest score first; of equal scores the first class counts.

        Args:
            pictures: paths or PIL images.
            top_k: classes for each; all if there are fewer.
            batch: pictures that the model takes at a time.

        Raises:
            FileNotFoundError, ValueError: a picture cannot be read.
        """
        return self.best(self.probabilities(pictures, batch), top_k)

    def best(self, probabilities: Tensor, top_k: int = 5) -> list[list[Prediction]]:
        """The `top_k` best classes for each row of probabilities (N, K)."""
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}, expected at least 1")
        scores, labels = (part[:, :top_k].tolist() for part in probabilities.sort(dim=1, descending=True, stable=True))
        return [
            [Prediction(self.classnames[label], score) for label, score in zip(*row, strict=True)]
            for row in zip(labels, scores, strict=True)
        ]

    def probabilities(self, pictures: Picture | Sequence[Picture], batch: int = 64) -> Tensor:
        """Softmax probabilities (N, K) of pictures over the classes, in fp32 on the CPU."""
        rows = [self.logits(images).softmax(dim=1).cpu() for images in self._batches(pictures, batch)]
        return torch.cat(rows) if rows else torch.zeros(0, len(self.classnames))

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """(B, K) in fp32 of images (B, 3, H, W) from `reader`, as the run's own test computes them."""
        return self.trainer.model_inference(images.to(self.device)).float()

    @torch.no_grad()
    def image_features(self, pictures: Picture | Sequence[Picture], batch: int = 64) -> Tensor:
        """(N, E), normalised, in fp32 on the CPU."""
        model, rows = self._clip(), []
        for images in self._batches(pictures, batch):
            with self.trainer.precision.autocast():
                rows.append(model.image_features(images.to(self.device)).float().cpu())
        return torch.cat(rows) if rows else torch.zeros(0, model.text_encoder.text_projection.shape[1])

    @torch.no_grad()
    def text_features(self) -> Tensor:
        """(K, E), normalised, in fp32 on the CPU.

        Raises:
            ValueError: each image has text features of its own.
        """
        model = self._clip()
        if isinstance(model, ConditionalCLIP):
            raise ValueError(
                f"{self.trainer_name} has no text features of a class alone: each image has text features of its own"
            )
        with self.trainer.precision.autocast():
            return model.text_features().float().cpu()

    @property
    def trainer_name(self) -> str:
        return self.run.cfg.TRAINER.NAME

    def _batches(self, pictures: Picture | Sequence[Picture], batch: int) -> Iterator[Tensor]:
        given = [pictures] if isinstance(pictures, (str, Path, Image.Image)) else pictures
        for start in range(0, len(given), batch):
            yield torch.stack([self.reader(picture) for picture in given[start : start + batch]])

    def _clip(self) -> FrozenTowersCLIP:
        model = self.trainer.model
        if not isinstance(model, FrozenTowersCLIP):
            raise ValueError(
                f"the features of {self.trainer_name} are not known: its model is a {type(model).__name__}"
            )
        return model


def _trained(run: Run, classnames: list[str]) -> ClipTrainer:
    """The run's trainer with its weights, for these classes."""
    cfg = run.cfg
    if not cfg.DATASET.TEMPLATE:  # which the data set decides otherwise
        check_availability(cfg.DATASET.NAME, DATASET_REGISTRY.registered_names(), "DATASET.NAME")
    dataset = dataset_without_images(cfg.DATASET.NAME, classnames, setting(cfg, "DATASET.TEMPLATE"))
    with torch.random.fork_rng(devices=[]):  # initial values, which the weights replace
        trainer = trainer_without_data(cfg, dataset)
    names = trainer.get_model_names()
    if run.epoch is not None and not names:
        raise ValueError(f"{cfg.TRAINER.NAME} learns nothing, so that there is no epoch {run.epoch} to load")
    if not names or run.weights is None:
        return trainer
    try:
        trainer.load_model(str(run.weights), run.epoch)
    except ValueError as error:
        file = find_weights(run.weights, names, run.epoch)[names[0]]
        trained = (load_checkpoint(file).get("belongs_to") or {}).get("classes")
        if isinstance(trained, list) and trained != classnames:
            raise ValueError(
                f"{file} has something learned for each of the classes that it was trained on, {first_few(trained)}: "
                f"other class names need a method {SHARED}"
            ) from error
        raise
    return trainer


def _names_in_weights(run: Run) -> list[str]:
    """The class names that the weights of a class-specific method have."""
    for folder in sorted(path for path in run.folder.iterdir() if path.is_dir()):
        try:
            file = find_weights(folder, [folder.name], run.epoch)[folder.name]
        except FileNotFoundError:
            continue
        names = (load_checkpoint(file).get("belongs_to") or {}).get("classes") if file.is_file() else None
        if names is not None:
            return check_names(names, f"{file}: belongs_to.classes")
    cfg = run.cfg
    raise ValueError(
        f"{run.folder} does not say the names of its classes: it is not finished, or is of an earlier version. Give "
        f"them in the order of the labels (--classes, or classnames in Python): python -m datasets show "
        f"{cfg.DATASET.NAME} --classes {setting(cfg, 'DATASET.SUBSAMPLE_CLASSES')} prints them"
    )

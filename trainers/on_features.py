"""Methods that need no more of the images than their features from the frozen image tower.

Letters: N support images (the training images), V random views of each, B features of a batch, E joint width,
K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dassl.config.checks import one_of, whole
from dassl.engine import TrainerX
from dassl.engine.loops import run_steps
from dassl.utils import first_few

from .base import ClipTrainer
from .checkpoint import rows_of

SELECTION = one_of("val", "test")  # the values of SELECT_ON
VIEWS = whole(0, 1000)


@dataclass(frozen=True, eq=False)
class Features:
    """Features of images, as the image tower gives them: not normalised.

    A trainer that keeps them has them computed again when it is resumed: they are no part of what it has learned.
    """

    features: Tensor  # (N, E), or (V, N, E)
    labels: Tensor  # (N,)


class FeatureTrainer(ClipTrainer):
    """Trains on features of the support set, which pass through the image tower once for each view.

    `losses` and `update` get features (B, E) in place of images. What holds for the classes or the images that a method
    was trained on is named below; a checkpoint then knows its classes, and is tested on them or on some of them.

    A method that chooses something by accuracy has an option SELECT_ON in its node: "val", or "test" where the
    published code chooses on the test images, which the results then say.
    """

    #: Learned tensors and buffers with an entry for each class, by name in a checkpoint, and the dimension of it
    class_dims: Mapping[str, int] = {}
    #: Learned tensors and buffers whose rows are support images, which a checkpoint knows the number of
    of_support: tuple[str, ...] = ()
    unchanging = ("model",)  # all that is learned is in the checkpoint's root, which is registered

    def build_model(self) -> None:
        self._computed: dict[tuple[int, int], Features] = {}
        super().build_model()
        self.model.eval()

    def set_model_mode(self, mode: str = "train", names: Any = None) -> None:
        """Of what is learned: towers stay in evaluation mode, so that text features are kept from epoch to epoch."""
        self.checkpoint_root().train(mode == "train")

    def support(self, views: int = 0) -> Features:
        """Of the training images, in the data set's order: see `features_of`."""
        return self._features(self.dm.dataset.train_x, views)

    def selection(self, on: str = "") -> Features:
        """Of the images that something is chosen on: held out ones ("val"), or the test images ("test").

        Args:
            on: by default what the option SELECT_ON says, or else "val".
        """
        dataset, option = self.dm.dataset, self.options_of(self.cfg).get("SELECT_ON")
        items = dataset.test if (on or option) == "test" else getattr(dataset, "held_out", dataset.val)
        if not items:
            test = (
                f"; TRAINER.{self.config_node}.SELECT_ON test chooses on the test images, as the published code does, "
                "so that its accuracy is too high"
            )
            raise ValueError(
                f"{type(self).__name__} chooses by the accuracy on validation images, of which {self.cfg.DATASET.NAME} "
                f"has none: add some, or set DATASET.NUM_SHOTS{test if option else ''}"
            )
        return self._features(items)

    def _features(self, items: list[Any], views: int = 0) -> Features:
        """Computed once in a run."""
        key = (id(items), views)
        if key not in self._computed:
            features = self.features_of(items, views).to(self.device)
            if (missing := len(items) - features.shape[-2]) > 0:
                raise ValueError(
                    f"{missing} of {len(items)} images cannot be read (DATASET.ON_BAD_IMAGE skip), but "
                    f"{type(self).__name__} needs all of them: restore them, or take them out of the data"
                )
            labels = torch.tensor([item.label for item in items], device=self.device)
            self._computed[key] = Features(features, labels)
        return self._computed[key]

    def result_notes(self) -> list[str]:
        if self.options_of(self.cfg).get("SELECT_ON") != "test":
            return super().result_notes()
        note = "hyper-parameters were chosen on the test images, as the published code does: the accuracy is too high"
        return [*super().result_notes(), note]

    # ---- training ------------------------------------------------------------------------------------------------

    def feature_batches(self) -> Iterable[Features]:
        """The batches of this epoch, with features (B, E); a method gives it."""
        raise NotImplementedError

    def shuffled(self, features: Tensor, labels: Tensor) -> list[Features]:
        """Batches (B, E) of features (N, E) in a new random order, of the size and number that a loader would make."""
        loader, order = self.cfg.DATALOADER.TRAIN_X, torch.randperm(len(labels))
        size = loader.BATCH_SIZE
        if loader.DROP_LAST and len(labels) > size:
            order = order[: len(labels) // size * size]
        return [Features(features[rows], labels[rows]) for rows in order.to(labels.device).split(size)]

    def run_epoch(self) -> None:
        batches = [({"features": batch.features, "label": batch.labels},) for batch in self.feature_batches()]
        run_steps(self, batches, len(batches))

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return batch["features"].to(self.device), batch["label"].to(self.device)

    def losses(self, image: Tensor, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits (B, K) of features (B, E), and cross entropy."""
        logits = self.model.from_features(image)
        return logits, {"ce": self.cross_entropy(logits, label)}

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def belongs_to(self) -> dict[str, Any]:
        return super().belongs_to() | ({"classes": list(self.dm.dataset.classnames)} if self.class_dims else {})

    def read_weights(self, path: str) -> dict[str, Any]:
        """The weights of this run's classes, which must be among those that it was trained on; none is learned anew.

        Raises:
            ValueError: they are not.
        """
        checkpoint = super().read_weights(path)
        state, saved = checkpoint["state_dict"], checkpoint.get("belongs_to") or {}
        trained, own = saved.get("classes"), list(self.dm.dataset.classnames)
        if not self.class_dims or trained == own or not isinstance(trained, list):
            return checkpoint
        rows = rows_of(own, trained)
        if rows is None:
            other = [name for name in own if name not in trained]
            raise ValueError(
                f"{path} was trained on {len(trained)} classes, but {len(other)} of the {len(own)} classes of "
                f"{self.cfg.DATASET.NAME} are not among them: {first_few(other)}. {type(self).__name__} learns for "
                "each class: it can be tested on the classes that it was trained on, or on some of them"
            )
        picked = {}
        for name, dim in self.class_dims.items():
            if name in state and state[name].dim() > dim and state[name].shape[dim] == len(trained):
                picked[name] = state[name].index_select(dim, torch.tensor(rows))
        return {**checkpoint, "state_dict": {**state, **picked}, "belongs_to": {**saved, "classes": own}}

    def load_weights(self, name: str, state_dict: Mapping[str, Tensor], source: str) -> None:
        """Takes any number of support images."""
        own = self._models[name].state_dict(keep_vars=True)
        sizes = {tuple(state_dict[key].shape[:1]) for key in self.of_support if key in state_dict}
        if len(sizes) == 1 and () not in sizes:
            for key in self.of_support:
                own[key].data = own[key].data.new_zeros((*next(iter(sizes)), *own[key].shape[1:]))
        super().load_weights(name, state_dict, source)


class ViewTrainer(FeatureTrainer):
    """Trains on the images, each in a new random view in every epoch; or on a number of views of each, computed once.

    The option VIEWS of a method's node is that number, of which epochs take one after the other; 0 for the images.
    """

    def feature_batches(self) -> Iterable[Features]:
        views = self.options_of(self.cfg).VIEWS
        support = self.support(views)
        return self.shuffled(support.features[self.epoch % views], support.labels)

    def run_epoch(self) -> None:
        if self.options_of(self.cfg).VIEWS:
            super().run_epoch()
        else:
            TrainerX.run_epoch(self)

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        if "features" in batch:
            return super().parse_batch_train(batch)
        image, label = ClipTrainer.parse_batch_train(self, batch)
        with torch.no_grad(), self.precision.autocast():
            return self.model.encode_image(image), label

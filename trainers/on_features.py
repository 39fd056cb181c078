"""Methods that need no more of the images than their features from the frozen image tower.

Letters: N support images (the training images), V random views of each, B features of a batch, E joint width,
K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dassl.config.checks import one_of
from dassl.engine.loops import run_steps

from .base import ClipTrainer
from .checkpoint import rows_of

SELECTION = one_of("val", "test")  # the values of SELECT_ON


class Features(NamedTuple):
    """Features of images, as the image tower gives them: not normalised."""

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
    #: Learned tensors and buffers with an entry for each support image, which a checkpoint knows the number of
    of_support: tuple[str, ...] = ()

    def support(self, views: int = 0) -> Features:
        """Of the training images, in the data set's order: see `features_of`."""
        return self._features(self.dm.dataset.train_x, views)

    def selection(self) -> Features:
        """Of the images that hyper-parameters are chosen on: held out ones, or the test images with SELECT_ON test."""
        dataset, split = self.dm.dataset, self.options_of(self.cfg).SELECT_ON
        items = dataset.test if split == "test" else dataset.held_out
        if not items:
            name, node = type(self).__name__, self.config_node
            raise ValueError(
                f"{name} chooses its hyper-parameters on validation images, of which {self.cfg.DATASET.NAME} has none: "
                f"add some, or set DATASET.NUM_SHOTS; TRAINER.{node}.SELECT_ON test chooses on the test images, as the "
                "published code does, so that its accuracy is too high"
            )
        return self._features(items)

    def _features(self, items: list[Any], views: int = 0) -> Features:
        labels = torch.tensor([item.label for item in items], device=self.device)
        return Features(self.features_of(items, views).to(self.device), labels)

    def result_notes(self) -> list[str]:
        if self.options_of(self.cfg).get("SELECT_ON") != "test":
            return super().result_notes()
        note = "hyper-parameters were chosen on the test images, as the published code does: the accuracy is too high"
        return [*super().result_notes(), note]

    # ---- training ------------------------------------------------------------------------------------------------

    def feature_batches(self) -> Iterable[Features]:
        """The batches of this epoch, with features (B, E); a method gives it."""
        raise NotImplementedError

    def run_epoch(self) -> None:
        batches = [({"features": features, "label": label},) for features, label in self.feature_batches()]
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
        """The weights of this run's classes, which must be among those that it was trained on; none is learned anew."""
        checkpoint = super().read_weights(path)
        state, saved = checkpoint["state_dict"], checkpoint.get("belongs_to") or {}
        trained, own = saved.get("classes"), list(self.dm.dataset.classnames)
        if not self.class_dims or trained == own or not isinstance(trained, list):
            return checkpoint
        rows = rows_of(own, trained)
        counts = {state[name].shape[dim] for name, dim in self.class_dims.items() if name in state}
        if rows is None or counts != {len(trained)}:
            return checkpoint  # load_model says in what way the classes differ
        picked = {
            name: state[name].index_select(dim, torch.tensor(rows))
            for name, dim in self.class_dims.items()
            if name in state
        }
        return {**checkpoint, "state_dict": {**state, **picked}, "belongs_to": {**saved, "classes": own}}

    def load_weights(self, name: str, state_dict: Mapping[str, Tensor], source: str) -> None:
        root = self._models[name]
        for key in self.of_support:
            if key in state_dict:
                tensor = root.get_parameter(key) if key in dict(root.named_parameters()) else root.get_buffer(key)
                tensor.data = tensor.data.new_empty(state_dict[key].shape)
        super().load_weights(name, state_dict, source)

"""What every trainer that adapts a frozen CLIP shares: the backbone, precision, the training step, checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from yacs.config import CfgNode

from clip.draws import draw_as_built
from clip.model import CLIP
from clip.origins import origin_of
from clip.transformer import Transformer
from dassl.config import setting
from dassl.data.datasets import Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import first_few
from dassl.utils.cpu import choose_threads
from dassl.utils.device import sent

from .accumulate import accumulated_step
from .backbone import load_backbone, load_clip, multiply_adds, take_pixel_statistics  # noqa: F401  (plug-ins use them)
from .checkpoint import as_words, learned_shapes, load_learned, own_tensors
from .features.compute import FeatureBatches, RunFeatures, evaluation_loader
from .graphs import Graphs, capturable
from .precision import Precision
from .prompted_clip import FrozenTowersCLIP, owner, scores_features, unit, without_prompts


class ClipTrainer(TrainerX):
    """Trains what is learned in a `FrozenTowersCLIP`.

    A method sets `config_node` (its node under TRAINER) and `registered_name` (its folder in a run), and gives `build`.
    What has `requires_grad` in the model that `build` returns is learned. Everything else is there to be overridden
    where a method differs: `losses` for its loss terms, `update` for what is done with their gradients, `fit` (of the
    engine: docs/ENGINE.md) for what is computed once before training.
    """

    config_node: str
    registered_name = "prompt_learner"
    not_loaded: tuple[str, ...] = ("token_prefix", "token_suffix")  # computed from the current class names
    #: `losses` draws from the CPU's generator what holds for the whole batch, such as one text for each class
    draws_once = False
    graphs: Graphs | None = None

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> FrozenTowersCLIP:
        """The method's model.

        Args:
            options: the trainer's config node.
            dataset: has `classnames`, and a `template` if it has a hand-written prompt of its own.
            clip_model: the frozen backbone, already in the precision that the towers compute in.
        """
        raise NotImplementedError

    @classmethod
    def options_of(cls, cfg: CfgNode) -> CfgNode:
        """The settings that `build` gets: the trainer's config node."""
        return cfg.TRAINER[cls.config_node]

    @classmethod
    def words(cls, cfg: CfgNode, options: Mapping[str, Any]) -> str:
        """Some of these settings with other values, as words of a command line."""
        return as_words(cls.config_node, options)

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        """The values of `options` (the config node) that tensors of these shapes need; None for another method's.

        For messages: a method with options that shape what it learns overrides it.
        """
        return None

    def checkpoint_root(self) -> nn.Module:
        """The module that the names in a checkpoint are relative to."""
        return self.model

    def check_cfg(self, cfg: CfgNode) -> None:
        """An unknown backbone is an error before the data are read, and its pixel statistics are known then."""
        take_pixel_statistics(cfg)

    def check_steps(self, cfg: CfgNode) -> None:
        kind = type(self)
        if kind.forward_backward is not ClipTrainer.forward_backward:
            super().check_steps(cfg)
        if setting(cfg, "TRAIN.ACCUMULATE") > 1 and not issubclass(
            owner(kind, "update_in_pieces"), owner(kind, "update")
        ):
            raise ValueError(
                f"TRAIN.ACCUMULATE is {setting(cfg, 'TRAIN.ACCUMULATE')}, but {kind.__name__} makes its steps from the "
                "loss of a whole batch: use 1, and a smaller DATALOADER.TRAIN_X.BATCH_SIZE if memory is short"
            )

    def load_clip(self) -> CLIP:
        """The frozen backbone that `build_model` adds to, in fp32 on the CPU."""
        return load_clip(self.cfg)

    def build_model(self) -> None:
        cfg, options = self.cfg, self.options_of(self.cfg)
        self.precision = Precision(options.PREC, self.device)
        clip_model = self.load_clip()
        if self.device.type == "cpu":
            print(choose_threads(multiply_adds(clip_model)))  # before anything is computed
        self.precision.cast(clip_model)  # before the method adds what is learned, which stays fp32
        before = torch.get_rng_state()
        self.model = self.build(options, self.dm.dataset, clip_model)
        for tower in self.model.modules():
            if isinstance(tower, Transformer):
                tower.recompute = setting(cfg, "TRAIN.CHECKPOINT_TOWERS")
        learned = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if setting(cfg, "TRAIN.RANDOMNESS") == "published":
            torch.set_rng_state(before)
            self._draw_as_published(clip_model, learned)
        self._check_masters(learned)
        self.model.to(self.device)
        root = self.checkpoint_root()
        self.scaler = self.precision.grad_scaler() if learned else None
        self.optim = self.make_optimizer(self.param_groups(learned)) if learned else None
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM, self.lr_changes()) if learned else None
        if not learned:
            self.max_epoch = 0
        if own_tensors(root, self.model.pretrained_tensors()):
            if cfg.MODEL.INIT_WEIGHTS:
                self._load_initial(root, cfg.MODEL.INIT_WEIGHTS)
            self.register_model(self.registered_name, root, self.optim, self.sched)
        self.graphs = Graphs(self)

    def param_groups(self, learned: Mapping[str, nn.Parameter]) -> list[Any]:
        """What the optimizer trains: parameters, or groups of them with settings of their own."""
        return list(learned.values())

    def make_optimizer(self, groups: list[Any]) -> torch.optim.Optimizer:
        """The optimizer of what `param_groups` returned."""
        return build_optimizer(self.model, self.cfg.OPTIM, param_groups=groups)

    def _draw_as_published(self, clip_model: CLIP, learned: Mapping[str, nn.Parameter]) -> None:
        """Draw the initial values of what is learned as the published code does, after the numbers of its CLIP."""
        drawn = {id(parameter) for parameter in (*draw_as_built(clip_model), *self.model.draw_as_published())}
        other = [name for name, parameter in learned.items() if id(parameter) not in drawn]
        if other:
            raise ValueError(
                f"TRAIN.RANDOMNESS published: what the published code of {type(self).__name__} draws for "
                f"{first_few(other)} is not known here. Use TRAIN.RANDOMNESS portable"
            )

    @staticmethod
    def _check_masters(learned: Mapping[str, nn.Parameter]) -> None:
        other = [f"{name} ({p.dtype})" for name, p in learned.items() if p.dtype != torch.float32]
        if other:
            raise TypeError(f"learned parameters are fp32 whatever PREC is, these are not: {', '.join(other)}")

    def set_model_mode(self, mode: str = "train", names: Any = None) -> None:
        self.model.train(mode == "train")

    @capturable
    def losses(self, image: Tensor, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits (B, K) of training images (B, 3, H, W), and the loss terms by name, which are added up.

        Terms come with their weights. Each is printed and recorded in history.jsonl under its name.
        """
        logits = self.model(image)
        return logits, {"ce": self.cross_entropy(logits, label)}

    def cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        """The mean cross entropy of logits (B, K) and labels (B,), with TRAIN.LABEL_SMOOTHING."""
        return F.cross_entropy(logits, label, label_smoothing=setting(self.cfg, "TRAIN.LABEL_SMOOTHING"))

    def update(self, terms: Mapping[str, Tensor]) -> Tensor:
        """One optimizer step on the sum of the loss terms, which is returned."""
        loss = reduce(add, terms.values())
        self.model_backward_and_update(loss)
        return loss

    def update_in_pieces(self, pieces: Iterable[Mapping[str, Tensor]]) -> Tensor:
        """`update` for a batch in pieces (TRAIN.ACCUMULATE), whose terms add up to those of the batch.

        A piece is computed when it is asked for. A method with another `update` overrides this, too.
        """
        self.model_zero_grad()
        total = torch.zeros((), device=self.device)
        with self.model.text_features_once():
            for terms in pieces:
                loss = reduce(add, terms.values())
                self.model_backward(loss)
                total += loss.detach()
        self.model_update()
        return total

    def training_step(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Mapping[str, Tensor], Tensor]:
        """One optimizer step on a batch: logits (B, K), labels (B,), the loss terms and what was descended."""
        if (pieces := setting(self.cfg, "TRAIN.ACCUMULATE")) > 1:
            return accumulated_step(self, batch, pieces)
        image, label = self.parse_batch_train(batch)
        if self.graphs is not None and (found := self.graphs.losses(image, label)) is not None:
            logits, terms, loss = found
            self.detect_anomaly(loss)
            self.model_update()
            return logits, label, terms, loss
        with self.precision.autocast():
            logits, terms = self.losses(image, label)
        return logits, label, terms, self.update(terms)

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """One step; returns the loss, its terms and the accuracy on the device, without waiting for them."""
        logits, label, terms, loss = self.training_step(batch)
        if setting(self.cfg, "OPTIM.LR_STEP") == "iteration" or self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        reported = {"loss": loss, **terms, "acc": compute_accuracy(logits, label)[0]}
        return {name: value.detach() for name, value in reported.items()}

    def _checked_later(self) -> bool:
        """Whether `check_losses` will see every term: in the engine's loop, where no method overrides the step."""
        return self.losses_checked_later and type(self).forward_backward is ClipTrainer.forward_backward

    def detect_anomaly(self, loss: Tensor) -> None:
        """As the engine's, which waits for the loss, unless it is checked later."""
        if not self._checked_later():
            super().detect_anomaly(loss)

    def is_loss(self, name: str) -> bool:
        return super().is_loss(name) or (name != "acc" and self._checked_later())

    def model_backward(self, loss: Tensor) -> None:
        self.detect_anomaly(loss)
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def model_update(self, names: Any = None) -> None:
        if self.scaler is None:
            super().model_update(names)
        else:
            self.scaler.step(self.optim)
            self.scaler.update()

    def model_inference(self, input: Tensor) -> Tensor:
        if self.graphs is not None and (logits := self.graphs.logits(input)) is not None:
            return logits
        with self.precision.autocast():
            return self.model(input)

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return sent(batch["img"], self.device), sent(batch["label"], self.device)

    def features_of(self, items: Sequence[Datum], views: int = 0) -> Tensor:
        """Features of images as the frozen image tower gives them: not normalised, in its precision, on the CPU.

        Args:
            items: the images; the features are in their order.
            views: 0 for the test transform, (N, E); or the number of random views of the training transform, which
                depend on SEED alone, (views, N, E).
        """
        self.set_model_mode("eval")

        def encode(image: Tensor) -> Tensor:
            with self.precision.autocast():
                return without_prompts(self.model.image_encoder, image.to(self.device))

        features = self._run_features()
        if views:
            return features.of_views(encode, items, views)
        return features.of_loader(encode, evaluation_loader(self.cfg, items))

    def _run_features(self) -> RunFeatures:
        frozen = FrozenTowersCLIP.frozen_images(self.model)  # the tower alone: these features are without prompts
        tower, root = self.model.image_encoder, self._image_root()
        return RunFeatures(self.cfg, tower, self.precision.name, self.device, root, frozen)

    def evaluation_batches(self, split: str) -> Any:
        """The loader; or batches with stored features, where the test would compute nothing else from the images."""
        loader = super().evaluation_batches(split)
        if not (self._scores_images() and scores_features(self.model) and self.model.frozen_images()):
            return loader

        def encode(image: Tensor) -> Tensor:
            with self.precision.autocast():
                return self.model.encode_image(image.to(self.device))

        found = self._run_features().kept_of_loader(encode, loader)
        if found is None:
            return loader
        features, stored = found
        self.run_record.image_features = "stored" if stored else "computed"
        return FeatureBatches(features, loader)

    def scores(self, batch: Any) -> tuple[Any, Any]:
        if "features" not in batch:
            return super().scores(batch)
        with self.precision.autocast():
            logits = self.model.from_features(sent(batch["features"], self.device))
        return logits, sent(batch["label"], self.device)

    def _scores_images(self) -> bool:
        """Whether the test is the engine's: it gives images to the model, and evaluates what that returns."""
        return not self.overridden("test", "scores", "parse_batch_test", "model_inference")

    def overridden(self, *names: str) -> str:
        """The first of these methods that is not as it is here; "" if all are."""
        own = (n for n in names if getattr(getattr(self, n), "__func__", None) is not getattr(ClipTrainer, n))
        return next(own, "")

    def train_features(self) -> tuple[Tensor, Tensor]:
        """Features (N, E) of the training images, normalised, from the pretrained image tower, and labels (N,).

        The images are in the data set's order and go through the test transform. For `fit`.
        """
        items = self.dm.dataset.train_x
        labels = torch.tensor([item.label for item in items], device=self.device)
        return unit(self.features_of(items).to(self.device)), labels

    def belongs_to(self) -> dict[str, Any]:
        """The backbone by name, or by the last part of a path; the classes of class-specific contexts."""
        backbone = {"backbone": origin_of(self.cfg.MODEL.BACKBONE.NAME).label}
        class_specific = self.options_of(self.cfg).get("CSC", False)
        return backbone | ({"classes": list(self.dm.dataset.classnames)} if class_specific else {})

    def advice(self, checkpoint: Mapping[str, Any]) -> str:
        """The options, or else the trainer, that the shapes of the tensors need."""
        shapes = learned_shapes(checkpoint.get("state_dict") or {}, self.not_loaded)
        node = self.options_of(self.cfg)
        needed = self.options_for(shapes, node)
        if needed is not None:
            differing = {key: value for key, value in needed.items() if node.get(key) != value}
            if differing:
                return f"It fits with {self.words(self.cfg, differing)}"
            own = learned_shapes(self.checkpoint_root().state_dict(), self.not_loaded)
            widths = [(shape[-1:], own[key][-1:]) for key, shape in shapes.items() if key in own]
            other = any(there != here for there, here in widths)
            return "It was trained with another backbone: pass --backbone" if other else ""
        if general := super().advice(checkpoint):
            return general
        for name in TRAINER_REGISTRY.registered_names():
            other = TRAINER_REGISTRY.get(name)
            if "options_for" not in vars(other) or other.config_node not in self.cfg.TRAINER:
                continue
            needed = other.options_for(shapes, other.options_of(self.cfg))
            if needed is not None:
                words = other.words(self.cfg, needed)
                return f"It was trained by {name}: pass --trainer {name} {words}".rstrip()
        return ""

    def load_weights(self, name: str, state_dict: Mapping[str, Tensor], source: str) -> None:
        """Takes published checkpoints, which hold the whole model, too."""
        self._load(self._models[name], state_dict, source)

    def _load_initial(self, root: nn.Module, path: str) -> None:
        checkpoint = self.read_weights(path)
        try:
            self._load(root, checkpoint["state_dict"], path)
        except ValueError as error:
            raise ValueError(self._advised(error, checkpoint)) from error

    def _load(self, module: nn.Module, state_dict: Mapping[str, Tensor], source: str) -> None:
        load_learned(module, state_dict, source, self.model.pretrained_tensors(), self.not_loaded)
        if self.graphs is not None:
            self.graphs.clear()


PromptTrainer = ClipTrainer  # its former name

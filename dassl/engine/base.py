"""TrainerBase: registered models, their checkpoints, optimizer steps, and the hooks of a run."""

import math
import reprlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from dassl.engine.state import Fingerprint, changed_tensors, frozen_fingerprints, has_part, load_tensors
from dassl.engine.weights import find_weights, weights_below
from dassl.utils.checkpoints import load_checkpoint, save_checkpoint, without_module_prefix
from dassl.utils.files import write_error
from dassl.utils.tools import check_availability, tolist_if_not

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["RegisteredModel", "TrainerBase"]


class RegisteredModel(NamedTuple):
    """What :meth:`TrainerBase.register_model` was given, and the fingerprints of the parameters frozen at that time."""

    name: str
    model: nn.Module
    optim: Any
    sched: Any
    frozen: dict[str, Fingerprint]


class TrainerBase:
    """What every trainer shares, independent of its data. docs/ENGINE.md lists the hooks in the order they run in.

    A checkpoint of a registered model holds its buffers, its learned parameters, and the frozen parameters that have
    changed since it was registered; everything else belongs to the pretrained model, which is loaded anyway.
    """

    #: State-dict entries that are computed from the current data, such as embeddings of the class names, or that are
    #: not used, by a part of their names: ``load_model`` ignores them in a file and leaves the model's own unchanged.
    not_loaded: tuple[str, ...] = ()
    #: Attributes that training does not change, such as large frozen models, which are then not searched for changes
    #: after every epoch. A part of one that is registered is saved nevertheless.
    unchanging: tuple[str, ...] = ()
    start_epoch: int
    epoch: int
    max_epoch: int
    max_steps: int

    def __init__(self) -> None:
        self._models: OrderedDict[str, nn.Module] = OrderedDict()
        self._optims: OrderedDict[str, Any] = OrderedDict()
        self._scheds: OrderedDict[str, Any] = OrderedDict()
        self._frozen: dict[str, dict[str, Fingerprint]] = {}
        self._writer: SummaryWriter | None = None
        self.loaded_epoch: int | None = None
        self._anomalies = 0
        # Whether who calls forward_backward gives what it returns to check_losses, as run_epoch does
        self.losses_checked_later = False

    def register_model(self, name: str = "model", model: Any = None, optim: Any = None, sched: Any = None) -> None:
        """Have a model saved, loaded, resumed and stepped, with the optimizer and scheduler that train it.

        Call it after the pretrained weights are loaded and the frozen parameters have ``requires_grad=False``.
        """
        if "_models" not in self.__dict__:
            raise AttributeError("Call super().__init__() before register_model()")
        if name in self._models:
            raise ValueError(f"A model named '{name}' is already registered: {', '.join(self._models)}")
        self._models[name] = model
        self._optims[name] = optim
        self._scheds[name] = sched
        self._frozen[name] = frozen_fingerprints(model) if isinstance(model, nn.Module) else {}

    def registered_models(self) -> list[RegisteredModel]:
        """Everything that was registered, in order."""
        return [
            RegisteredModel(name, model, self._optims.get(name), self._scheds.get(name), self._frozen.get(name, {}))
            for name, model in self._models.items()
        ]

    def get_model_names(self, names: str | list[str] | None = None) -> list[str]:
        """``names`` as a list, checked; by default all registered names."""
        if names is None:
            return list(self._models)
        names = tolist_if_not(names)
        for name in names:
            check_availability(name, self._models)
        return names

    def save_model(
        self, epoch: int, directory: str, is_best: bool = False, val_result: float | None = None, model_name: str = ""
    ) -> None:
        """Write ``<directory>/<name>/model.pth.tar-<epoch + 1>`` (or ``model_name``) for every registered model."""
        for name, model, _, _, frozen in self.registered_models():
            state = {
                "state_dict": changed_tensors(model, frozen),
                "epoch": epoch + 1,
                "belongs_to": {**self.belongs_to(), "trainer": type(self).__name__},
                "optimizer": None,  # these files are weights to publish; the resume file is separate
                "scheduler": None,
                "val_result": val_result,
            }
            save_checkpoint(state, Path(directory) / name, is_best=is_best, model_name=model_name)

    def resume_model_if_exist(self, directory: str) -> int:
        """Resume from the state in ``directory`` if there is one; returns the epoch to start from."""
        return 0

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load every registered model from ``directory``: of ``epoch``, or else the best, or else the last saved.

        Args:
            directory: the run's folder; a registered model's own folder or one of its files is understood, too.

        Raises:
            FileNotFoundError: no such file; the other files in its folder are listed.
            ValueError: names or shapes do not fit, or :meth:`belongs_to` differs.
        """
        if not self._models:
            if directory:
                print(f"Nothing to load from {directory}: {type(self).__name__} has no registered model")
            return
        if not directory:
            print(
                f"Warning: what {type(self).__name__} learns is untrained: load_model() is skipped, as no trained"
                " weights are given (train.py --model-dir)"
            )
            return
        try:
            paths = find_weights(directory, list(self._models), epoch)
        except FileNotFoundError as error:
            others = weights_below(directory)  # of another trainer
            raise FileNotFoundError(self._advised(error, load_checkpoint(others[0]) if others else {})) from error
        for name, path in paths.items():
            checkpoint = self.read_weights(str(path))
            self._check_belonging(checkpoint.get("belongs_to") or {}, str(path))
            try:
                self.load_weights(name, checkpoint["state_dict"], str(path))
            except ValueError as error:
                raise ValueError(self._advised(error, checkpoint)) from error
            self.loaded_epoch = checkpoint.get("epoch")
            val_result = reprlib.repr(checkpoint.get("val_result"))
            print(f"Load {path} to {name} (epoch={self.loaded_epoch}, val_result={val_result})")

    def read_weights(self, path: str) -> dict[str, Any]:
        """A checkpoint as ``load_model`` takes it; a method whose weights depend on the data may adapt them here."""
        return load_checkpoint(path, need=("state_dict",))

    def belongs_to(self) -> dict[str, Any]:
        """Plain values that a checkpoint's weights depend on, such as the backbone; ``load_model`` compares them."""
        return {}

    def _check_belonging(self, saved: Mapping[str, Any], path: str) -> None:
        lines = [
            f"  {key}: {reprlib.repr(saved[key])} in the file, {reprlib.repr(own)} here"
            for key, own in self.belongs_to().items()
            if saved.get(key, own) != own
        ]
        if lines:
            remedy = "Use the same settings" + (" (the backbone: --backbone)." if "backbone" in saved else ".")
            raise ValueError("\n".join([f"{path} does not match this run:", *lines, remedy]))

    def advice(self, checkpoint: Mapping[str, Any]) -> str:
        """What to change so that a checkpoint that does not fit does, in words for the user; "" if that is unknown."""
        trainer = (checkpoint.get("belongs_to") or {}).get("trainer", type(self).__name__)
        return "" if trainer == type(self).__name__ else f"It was trained by {trainer}: pass --trainer {trainer}"

    def _advised(self, error: Exception, checkpoint: Mapping[str, Any]) -> str:
        return "\n".join(filter(None, [str(error), self.advice(checkpoint)]))

    def load_weights(self, name: str, state_dict: Mapping[str, Any], source: str) -> None:
        """Load a state dict into one registered model.

        Raises:
            ValueError: something other than frozen parameters and ``not_loaded`` is missing, or names or shapes do
                not fit.
        """
        model = self._models[name]
        own = {key for key in model.state_dict() if has_part(key, self.not_loaded)}
        state = {
            key: value for key, value in without_module_prefix(state_dict).items() if not has_part(key, self.not_loaded)
        }
        load_tensors(model, state, own | self._frozen[name].keys(), source)

    def set_model_mode(self, mode: str = "train", names: str | list[str] | None = None) -> None:
        """Put models into training mode (``train``) or evaluation mode (``test``, ``eval``)."""
        check_availability(mode, ["train", "test", "eval"])
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names: str | list[str] | None = None) -> None:
        """Step the schedulers: trainers call this on the last batch of an epoch."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def detect_anomaly(self, loss: torch.Tensor) -> None:
        """Raise FloatingPointError if the loss is not finite, which waits for the device."""
        if not torch.isfinite(loss).all():
            raise FloatingPointError(self._anomaly_message(float(loss.detach().flatten()[0])))

    def is_loss(self, name: str) -> bool:
        """Whether the value that ``forward_backward`` returns under this name must be finite."""
        return "loss" in name

    def check_losses(
        self, losses: Mapping[str, Any] | None, batch_idx: int | None = None, lr: float | None = None
    ) -> None:
        """Raise FloatingPointError if a loss that a step reported is not finite. Called when its values are read.

        With a gradient scaler, which skips steps that overflow, it takes ten such steps in a row.

        Args:
            batch_idx, lr: of the step; by default the current ones.
        """
        bad = [
            float(value) for name, value in (losses or {}).items() if self.is_loss(name) and not math.isfinite(value)
        ]
        self._anomalies = self._anomalies + 1 if bad else 0
        if bad and (getattr(self, "scaler", None) is None or self._anomalies >= 10):
            raise FloatingPointError(self._anomaly_message(bad[0], batch_idx, lr))

    def _anomaly_message(self, value: float, batch_idx: int | None = None, lr: float | None = None) -> str:
        batch_idx = getattr(self, "batch_idx", 0) if batch_idx is None else batch_idx
        where = f"epoch {getattr(self, 'epoch', 0) + 1}, batch {batch_idx + 1}"
        rates = [optim.param_groups[0]["lr"] for optim in self._optims.values() if optim is not None]
        rate = f" at learning rate {rates[0] if lr is None else lr:.3g}" if rates else ""
        return (
            f"Loss is infinite or NaN! ({value} in {where}{rate}.) Lower OPTIM.LR, try PREC fp32, or look for"
            " broken images; the last checkpoint was saved before this"
        )

    def init_writer(self, log_dir: str | Path, purge_step: int | None = None) -> None:
        """Write scalars to TensorBoard files in ``log_dir``; earlier points from ``purge_step`` on are discarded.

        The curves are an extra: if they cannot be written, the run says so once and goes on without them.
        """
        if self._writer is not None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            print(f"No TensorBoard curves are written: {error} (to have them: pip install tensorboard)")
            return
        print(f"Initialize tensorboard (log_dir={log_dir})")
        if threading.excepthook is threading.__excepthook__:
            threading.excepthook = _quiet_about_curves
        try:
            self._writer = SummaryWriter(log_dir=str(log_dir), purge_step=purge_step)
        except OSError as error:
            self._give_up_curves(error, str(log_dir))

    def close_writer(self) -> None:
        if (writer := self._writer) is not None:
            try:
                writer.close()
                self._writer = None
            except OSError as error:
                self._give_up_curves(error, writer.log_dir)

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        """Add a point to a TensorBoard curve; without a writer (as in a run that only tests) do nothing."""
        if self._writer is not None:
            try:
                self._writer.add_scalar(tag, scalar_value, global_step)
            except OSError as error:
                self._give_up_curves(error, self._writer.log_dir)

    def _give_up_curves(self, error: OSError, folder: str) -> None:
        self._writer = None
        print(f"{write_error(error, folder)}; the run goes on without TensorBoard curves")

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """Run the hooks of a training."""
        self.start_epoch = start_epoch
        self.max_epoch = max_epoch
        self.before_train()
        if self.start_epoch == 0:
            self.fit()
        for self.epoch in range(self.start_epoch, self.max_epoch):  # noqa: B020
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
        self.after_train()

    @classmethod
    def needs_epochs(cls) -> bool:
        """Whether ``OPTIM.MAX_EPOCH 0`` would leave it untrained: it takes gradient steps and has no ``fit``."""
        steps = cls.forward_backward is not TrainerBase.forward_backward
        return steps and cls.fit is TrainerBase.fit

    def before_train(self) -> None:
        pass

    def fit(self) -> None:
        """Hook: compute what needs no gradient steps (a closed form, a cache, initial statistics); default nothing.

        Called once before the first epoch, not when a run is resumed. A trainer with nothing else to do sets
        ``self.max_epoch = 0`` in ``build_model``.
        """

    def before_epoch(self) -> None:
        pass

    def after_epoch(self) -> None:
        pass

    def after_train(self) -> None:
        pass

    def run_epoch(self) -> None:
        raise NotImplementedError

    def test(self, split: str | None = None, **kwargs: Any) -> Any:
        raise NotImplementedError

    def final_test(self) -> Any:
        """Run the test that ends a run."""
        return self.test()

    def parse_batch_train(self, batch: Any) -> Any:
        raise NotImplementedError

    def parse_batch_test(self, batch: Any) -> Any:
        raise NotImplementedError

    def forward_backward(self, batch: Any) -> dict[str, Any]:
        raise NotImplementedError

    def model_inference(self, input: Any) -> Any:
        raise NotImplementedError

    def model_zero_grad(self, names: str | list[str] | None = None) -> None:
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].zero_grad()

    def model_backward(self, loss: torch.Tensor) -> None:
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: str | list[str] | None = None) -> None:
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].step()

    def model_backward_and_update(self, loss: torch.Tensor, names: str | list[str] | None = None) -> None:
        """One optimizer step on ``loss``."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)


def _quiet_about_curves(args: threading.ExceptHookArgs) -> None:
    """Show what ended a thread, unless it is TensorBoard's: it raises its error again in ``write_scalar``."""
    if not type(args.thread).__module__.startswith("tensorboard."):
        threading.__excepthook__(args)

"""CUDA graphs (TRAIN.CUDA_GRAPH): a step's losses and gradients, and a test's logits, launched as one piece of work.

A graph replays the kernels that were recorded, on the memory that they were recorded on. So a step copies its batch
into fixed tensors, replays, and finds losses and gradients in fixed tensors, too; the optimizer's step, learning rates
and the loss scaler's update remain outside. What Python decided while the graph was recorded is part of it.

Letters: B images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, TypeVar

import torch
from torch import Tensor

from dassl.config import setting

from .prompted_clip import FrozenTowersCLIP

Losses = TypeVar("Losses", bound=Callable[..., Any])
Results = list[list[Any]]  # groups of tensors, or None for a gradient that there is not
# A method that overrides one of these makes its steps in its own way
STEP_HOOKS = ("forward_backward", "training_step", "update", "model_backward", "model_backward_and_update")
# Relative distance of the first replay from the eager step. The kernels are the same, but some add up in any order
TOLERANCES = {"fp32": 1e-3}
TOLERANCE_IN_HALF = 2e-2


def capturable(losses: Losses) -> Losses:
    """Mark a trainer's `losses` as one that a graph may hold.

    It reads no value of a tensor, draws nothing on the host, and depends on nothing that changes between steps but
    tensors of the model, which change in place. A method that overrides `losses` has to mark its own.
    """
    losses.capturable = True  # type: ignore[attr-defined]
    return losses


class CudaBackend:
    """How `torch.cuda` records and replays."""

    def warm_up(self, work: Callable[[], Any]) -> None:
        """Run the work on a side stream, as PyTorch's documentation asks for before it is recorded."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(side)

    def capture(self, work: Callable[[], Results]) -> tuple[Results, Callable[[], None]]:
        """What the work returns, in tensors that the second value, when called, computes anew."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads pin batches meanwhile
            results = work()
        return results, graph.replay


@dataclass
class Recorded:
    """One graph, and what it reads and writes."""

    inputs: list[Tensor]
    results: Results
    replay: Callable[[], None]
    text: Tensor | None  # text features that were computed before, not in the graph
    attributes: dict[str, Any]  # plain ones of the model
    addresses: list[tuple[Tensor, int]]  # of the model's tensors

    def fits(self, model: FrozenTowersCLIP) -> bool:
        """Whether a replay computes what the model would: other values of its tensors count, other tensors do not."""
        here = all(tensor.data_ptr() == address for tensor, address in self.addresses)
        return here and self.attributes == plain_attributes(model)

    def run(self, inputs: Sequence[Tensor], model: FrozenTowersCLIP) -> None:
        for fixed, given in zip(self.inputs, inputs, strict=True):
            fixed.copy_(given, non_blocking=True)
        if self.text is not None:
            with torch.no_grad():
                text = model.text_features()  # kept, unless what it depends on has changed
                if text is not self.text:
                    self.text.copy_(text)
        self.replay()


def plain_attributes(model: FrozenTowersCLIP) -> dict[str, Any]:
    """What Python may decide by: the mode, switches and weights that are numbers."""
    return {name: value for name, value in vars(model).items() if isinstance(value, bool | int | float | str)}


def difference(found: Results, expected: Results) -> float:
    """The largest relative distance of two groups; infinite if other values are finite. Not finite ones are equal."""
    largest = 0.0
    for group, other in zip(found, expected, strict=True):
        if [one is None for one in group] != [one is None for one in other]:
            return float("inf")
        if not (pairs := [pair for pair in zip(group, other, strict=True) if pair[0] is not None]):
            continue
        a, b = (torch.cat([one.detach().float().flatten() for one in side]) for side in zip(*pairs, strict=True))
        finite = b.isfinite()
        if not torch.equal(a.isfinite(), finite):
            return float("inf")
        a, b = a[finite], b[finite]
        largest = max(largest, float((a - b).norm() / b.norm().clamp_min(1e-30)))
    return largest


class Recorder:
    """The graphs of one piece of work, one for each shape of its inputs.

    The first batch of a shape is computed without one, so that whatever is computed once is there. So is a batch of
    fewer images than an earlier one: the last of an epoch.

    Args:
        what: the work, for messages.
        trainer: a `ClipTrainer`.
    """

    def __init__(self, what: str, trainer: Any, backend: Any):
        self.what, self.trainer, self.backend = what, trainer, backend
        self.usable = False
        self._recorded: dict[Any, Recorded] = {}
        self._seen: set[Any] = set()
        self._largest = 0

    def clear(self) -> None:
        self._recorded.clear()

    def run(self, inputs: Sequence[Tensor], work: Callable[[Sequence[Tensor]], Results]) -> Results | None:
        """What `work(inputs)` returns, in tensors that the next run overwrites; None where it is to be done without.

        Args:
            inputs: tensors, the last with B rows.
        """
        size = len(inputs[-1])
        if not self.usable or size < self._largest:
            return None
        self._largest = size
        key = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        if key not in self._seen:
            self._seen.add(key)
            return None
        found = self._recorded.get(key)
        if found is None or not found.fits(self.trainer.model):
            self.clear()
            found = self._record(inputs, work)
            if found is None:
                return None
            self._recorded[key] = found
        else:
            found.run(inputs, self.trainer.model)
        return found.results

    def _record(self, inputs: Sequence[Tensor], work: Callable[[Sequence[Tensor]], Results]) -> Recorded | None:
        """Record, and compare the first replay with the same work done without; None, with a line, if they differ."""
        model, device = self.trainer.model, self.trainer.device
        fixed = [tensor.clone() for tensor in inputs]
        devices = [device] if device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices):  # the replay below draws what a step without it would have drawn
                model.forget_text_features()
                self.backend.warm_up(lambda: work(fixed))
                text = model.kept_text_features()
                results, replay = self.backend.capture(lambda: work(fixed))
            with torch.random.fork_rng(devices):
                expected = [[one if one is None else one.clone() for one in group] for group in work(fixed)]
            addresses = [(tensor, tensor.data_ptr()) for tensor in (*model.parameters(), *model.buffers())]
            found = Recorded(fixed, results, replay, text, plain_attributes(model), addresses)
            found.run(inputs, model)
            distance = difference(results, expected)
        except Exception as error:
            first_line = str(error).partition("\n")[0]
            self.give_up(f"recording it failed: {type(error).__name__}: {first_line}")
            return None
        if distance <= TOLERANCES.get(self.trainer.precision.name, TOLERANCE_IN_HALF):
            return found
        self.give_up(f"the first replay differs from it by {distance:.1e}, relatively")
        return None

    def give_up(self, reason: str) -> None:
        print(f"TRAIN.CUDA_GRAPH: each {self.what} runs without a graph: {reason}")
        self.usable = False
        self.clear()


def obstacle(trainer: Any) -> str:
    """Why no graph can be used; "" if there is no reason."""
    if not getattr(trainer.model, "capturable", False):
        return f"the model of {type(trainer).__name__} decides on the host how it computes"
    return ""


def step_obstacle(trainer: Any) -> str:
    """Why training steps cannot be recorded; "" if there is no reason."""
    cfg, name = trainer.cfg, type(trainer).__name__
    if (pieces := setting(cfg, "TRAIN.ACCUMULATE")) > 1:
        return f"TRAIN.ACCUMULATE is {pieces}"
    if setting(cfg, "TRAIN.CHECKPOINT_TOWERS"):
        return "TRAIN.CHECKPOINT_TOWERS is True"
    if hook := trainer.overridden(*STEP_HOOKS):
        return f"{name} has its own `{hook}`"
    if not getattr(trainer.losses, "capturable", False):
        return f"`losses` of {name} is not marked as `capturable`"
    return obstacle(trainer)


def test_obstacle(trainer: Any) -> str:
    """Why logits of a test cannot be recorded; "" if there is no reason."""
    own = trainer.overridden("model_inference")
    return f"{type(trainer).__name__} has its own `{own}`" if own else obstacle(trainer)


class Graphs:
    """The graphs of a trainer's steps and of its tests.

    Args:
        trainer: a `ClipTrainer` whose model is built.
        backend: in place of `CudaBackend`, for tests.

    Raises:
        ValueError: TRAIN.CUDA_GRAPH is on, but the trainer, its settings or its device do not allow graphs.
    """

    def __init__(self, trainer: Any, backend: Any = None):
        self.trainer, mode = trainer, setting(trainer.cfg, "TRAIN.CUDA_GRAPH")
        recorders = Recorder("training step", trainer, backend), Recorder("batch of a test", trainer, backend)
        self.steps, self.tests = recorders
        self._names: list[str] = []
        self._learned: list[Tensor] = []
        if mode == "off":
            return
        on_gpu = backend is not None or trainer.device.type == "cuda"
        reasons = (step_obstacle(trainer), test_obstacle(trainer)) if on_gpu else ("the device is not a CUDA GPU",) * 2
        for recorder, reason in zip(recorders, reasons, strict=True):
            recorder.backend = backend or CudaBackend()
            recorder.usable = not reason
            if reason and mode == "on":
                raise ValueError(f"TRAIN.CUDA_GRAPH is on, but {reason}: use auto or off")
        for reason in dict.fromkeys(filter(None, reasons)):
            what = " and ".join(f"each {r.what}" for r, own in zip(recorders, reasons, strict=True) if own == reason)
            print(f"TRAIN.CUDA_GRAPH auto: {what} runs without a graph: {reason}")

    def clear(self) -> None:
        """Forget all graphs: the weights are new."""
        self.steps.clear()
        self.tests.clear()

    def losses(self, image: Any, label: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor] | None:
        """Logits (B, K), loss terms and their sum, with gradients in place; None where a step is to be done without."""
        if not self.steps.usable:
            return None
        trainer, single = self.trainer, isinstance(image, Tensor)

        def work(inputs: Sequence[Tensor]) -> Results:
            self._learned = [p for p in trainer.model.parameters() if p.requires_grad]
            for parameter in self._learned:
                parameter.grad = None  # so that the backward pass makes it, in the memory of the graph
            with trainer.precision.autocast():
                given: Any = inputs[0] if single else list(inputs[:-1])
                logits, terms = trainer.losses(given, inputs[-1])
            loss = reduce(add, terms.values())
            (loss if trainer.scaler is None else trainer.scaler.scale(loss)).backward()
            self._names = list(terms)
            losses = [loss.detach(), *(term.detach() for term in terms.values())]
            return [[logits.detach()], losses, [parameter.grad for parameter in self._learned]]

        found = self.steps.run([image, label] if single else [*image, label], work)
        if found is None:
            return None
        (logits,), losses, gradients = found
        for parameter, gradient in zip(self._learned, gradients, strict=True):
            parameter.grad = gradient
        loss, *terms = (one.clone() for one in losses if one is not None)  # read later than the next step may start
        return logits.clone(), dict(zip(self._names, terms, strict=True)), loss

    def logits(self, image: Tensor) -> Tensor | None:
        """Logits (B, K) of images in a test; None where they are to be computed without a graph."""
        if not self.tests.usable or torch.is_grad_enabled():
            return None

        def work(inputs: Sequence[Tensor]) -> Results:
            with self.trainer.precision.autocast():
                return [[self.trainer.model(inputs[0])]]

        found = self.tests.run([image], work)
        return found[0][0].clone() if found else None

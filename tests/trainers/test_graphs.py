"""TRAIN.CUDA_GRAPH with a stand-in for the GPU: fixed tensors, when a graph is recorded, what makes it stale.

The stand-in computes a replay by running the recorded work again, with what a graph holds fast held fast: the tensors
that it reads and writes, the text features that were computed before, and the plain attributes of the model.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tests.trainers.small import batch_of, small_trainer
from trainers.base import ClipTrainer
from trainers.graphs import CudaBackend, Graphs, difference, plain_attributes


class StandIn:
    """Counts what it does; `spoil` changes what a replay gives."""

    def __init__(self, trainer: ClipTrainer) -> None:
        self.model, self.captures, self.replays = trainer.model, 0, 0
        self.spoil: Callable[[torch.Tensor], Any] = lambda tensor: None

    def warm_up(self, work: Callable[[], Any]) -> None:
        work()

    def capture(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        self.captures += 1
        text, attributes = self.model.kept_text_features(), plain_attributes(self.model)
        results = work()

        def replay() -> None:
            self.replays += 1
            now = plain_attributes(self.model)
            vars(self.model).update(attributes)
            if text is not None:
                self.model.text_features = lambda: text
            for group, new in zip(results, work(), strict=True):
                for fixed, value in zip(group, new, strict=True):
                    if fixed is not None:
                        with torch.no_grad():
                            self.spoil(fixed.copy_(value))
            vars(self.model).update(now)
            vars(self.model).pop("text_features", None)

        return results, replay


def with_graphs(name: str, **settings: object) -> tuple[ClipTrainer, StandIn]:
    trainer = small_trainer(name, **settings)
    stand_in = StandIn(trainer)
    trainer.cfg.TRAIN.CUDA_GRAPH = "on"
    trainer.graphs = Graphs(trainer, stand_in)
    return trainer, stand_in


def train(trainer: ClipTrainer, sizes: list[int]) -> list[dict[str, float]]:
    """Steps on batches of these sizes, whose reports are read after the last."""
    trainer.set_model_mode("train")
    torch.manual_seed(5)
    reports = [trainer.forward_backward(batch_of(trainer, size, seed)) for seed, size in enumerate(sizes)]
    return [{name: float(value) for name, value in report.items()} for report in reports]


def logits(trainer: ClipTrainer, sizes: list[int]) -> list[torch.Tensor]:
    trainer.set_model_mode("eval")
    images = [torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(n)) for n in sizes]
    with torch.no_grad():
        return [trainer.model_inference(image) for image in images]


def assert_same_bits(one: ClipTrainer, other: ClipTrainer) -> None:
    pairs = zip(one.model.named_parameters(), other.model.named_parameters(), strict=True)
    assert not [name for (name, a), (_, b) in pairs if not torch.equal(a, b)]


@pytest.mark.parametrize("name", ["coop", "maple", "vpt", "dept_kgcoop", "clip_lora"])
def test_steps_and_tests_equal_those_without_to_the_bit(name: str) -> None:
    """Two epochs with a last smaller batch and a test after each; the first full batch runs without."""
    plain, (graphs, stand_in) = small_trainer(name), with_graphs(name)
    sizes = [4, 4, 4, 2]
    for _ in range(2):
        assert train(graphs, sizes) == train(plain, sizes)
        assert_same_bits(graphs, plain)
        assert all(map(torch.equal, logits(graphs, [5, 5, 3]), logits(plain, [5, 5, 3])))
    assert stand_in.captures == 2
    assert stand_in.replays == (2 + 3) + (1 + 2)
    assert graphs.graphs.steps.usable and graphs.graphs.tests.usable


def test_several_views_of_an_image() -> None:
    """A list of tensors, each with a term of its own."""
    two = {"DATALOADER__K_TRANSFORMS": 2}
    plain, (graphs, stand_in) = small_trainer("coop", **two), with_graphs("coop", **two)
    for trainer in (plain, graphs):
        trainer.parse_batch_train = lambda batch: (batch["img"], batch["label"])
        own = trainer.losses

        def losses(image, label, own=own):
            logits, terms = own(image[0], label)
            return logits, terms | {"second": own(image[1], label)[1]["ce"]}

        trainer.losses = losses
        losses.capturable = True
    assert train(graphs, [4] * 4) == train(plain, [4] * 4)
    assert stand_in.captures == 1 and stand_in.replays == 3


def test_a_gradient_scaler() -> None:
    plain, (graphs, stand_in) = small_trainer("maple"), with_graphs("maple")
    for trainer in (plain, graphs):
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    assert train(graphs, [4] * 5) == train(plain, [4] * 5)
    assert_same_bits(graphs, plain)
    assert stand_in.replays == 4 and graphs.scaler.get_scale() == plain.scaler.get_scale() > 2.0**10


def test_a_larger_batch_is_recorded_anew_and_smaller_ones_run_without() -> None:
    graphs, stand_in = with_graphs("coop")
    train(graphs, [2, 2, 4, 4, 2, 4])
    assert (stand_in.captures, stand_in.replays) == (2, 3)


@pytest.mark.parametrize("change", ["loaded", "replaced", "moved", "text", "attribute"])
def test_no_test_uses_what_was_before(change: str) -> None:
    """Weights from a file; other tensors; a tensor elsewhere in memory; text features; a switch of the method."""
    plain, (graphs, stand_in) = small_trainer("dept_coop"), with_graphs("dept_coop")
    for trainer in (plain, graphs):
        logits(trainer, [5, 5, 5])
        if change == "loaded":
            root = trainer.checkpoint_root()
            learned = {name: p.detach() + 0.5 for name, p in root.named_parameters() if p.requires_grad}
            trainer.load_weights(trainer.registered_name, learned, "a test")
        elif change == "replaced":
            trainer.model.prompt_learner.ctx.data = trainer.model.prompt_learner.ctx.data + 1
        elif change == "moved":
            trainer.model.double().float()
        elif change == "text":
            train(trainer, [4])
        else:
            trainer.model.fused = False
    before = stand_in.captures
    assert all(map(torch.equal, logits(graphs, [5, 5]), logits(plain, [5, 5])))
    assert stand_in.captures == before + (change != "text")


@pytest.mark.parametrize("fault", ["other values", "not finite", "an exception"])
def test_a_graph_that_does_not_give_the_same_is_not_used(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain, (graphs, stand_in) = small_trainer("maple"), with_graphs("maple")
    if fault == "an exception":
        stand_in.capture = lambda work: 1 / 0
    else:
        stand_in.spoil = lambda tensor: tensor.mul_(1.01 if fault == "other values" else float("nan"))
    assert train(graphs, [4] * 4) == train(plain, [4] * 4)
    assert_same_bits(graphs, plain)
    assert not graphs.graphs.steps.usable and stand_in.captures <= 1
    failed, differs = "recording it failed: ZeroDivisionError: division by zero", "the first replay differs from it by"
    reason = failed if fault == "an exception" else differs
    assert capsys.readouterr().out.count(f"each training step runs without a graph: {reason}") == 1


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("prograd", {}, "ProGrad has its own `update`"),
        ("coprompt", {}, "`losses` of CoPrompt is not marked as `capturable`"),
        ("clap", {}, "`losses` of CLAP is not marked"),
        ("cocoop", {}, "the model of CoCoOp decides on the host"),
        ("coop", {"TRAIN__ACCUMULATE": 2}, "TRAIN.ACCUMULATE is 2"),
        ("coop", {"TRAIN__CHECKPOINT_TOWERS": True}, "TRAIN.CHECKPOINT_TOWERS is True"),
    ],
)
def test_what_cannot_be_recorded_is_an_error_or_one_line(name, settings, reason, capsys) -> None:
    trainer = small_trainer(name, **settings)
    trainer.cfg.TRAIN.CUDA_GRAPH = "on"
    with pytest.raises(ValueError, match=f"CUDA_GRAPH is on, but .*{reason}.*: use auto or off"):
        Graphs(trainer, StandIn(trainer))
    trainer.cfg.TRAIN.CUDA_GRAPH = "auto"
    capsys.readouterr()
    assert not Graphs(trainer, StandIn(trainer)).steps.usable
    assert reason in capsys.readouterr().out


def test_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="CUDA_GRAPH is on, but the device is not a CUDA GPU: use auto or off"):
        small_trainer("coop", TRAIN__CUDA_GRAPH="on")
    trainer = small_trainer("coop", TRAIN__CUDA_GRAPH="auto")
    assert capsys.readouterr().out.count("TRAIN.CUDA_GRAPH") == 1
    train(trainer, [4, 4])
    assert not trainer.graphs.steps.usable


def test_the_distance_of_two_results() -> None:
    """Of each group, of which values that are not finite must be so in both: amp's first steps overflow."""
    inf, none = torch.tensor([1.0, torch.inf]), None
    assert difference([[inf, none], [torch.ones(4)]], [[inf, none], [torch.ones(4) * 1.25]]) == pytest.approx(0.2)
    assert difference([[inf]], [[torch.ones(2)]]) == difference([[none]], [[inf]]) == float("inf")
    assert difference([[torch.zeros(2)]], [[torch.zeros(2)]]) == 0


def test_what_torch_cuda_is_asked_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three runs on a side stream that waits and is waited for, then one that is recorded."""
    calls: list[str] = []

    class Stream:
        def __init__(self, name: str = "side") -> None:
            self.name = name

        def wait_stream(self, other: "Stream") -> None:
            calls.append(f"{self.name} waits for {other.name}")

    class Graph:
        def replay(self) -> None:
            calls.append("replay")

    @contextmanager
    def inside(what: object, **options: str) -> Iterator[None]:
        calls.append(f"enter {getattr(what, 'name', 'graph')} {options.get('capture_error_mode', '')}".strip())
        yield
        calls.append("leave")

    main = Stream("main")
    fakes = {"Stream": Stream, "CUDAGraph": Graph, "graph": inside, "stream": inside, "current_stream": lambda: main}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    backend = CudaBackend()
    backend.warm_up(lambda: calls.append("work"))
    results, replay = backend.capture(lambda: calls.append("work") or [["results"]])
    replay()
    warm_up = ["side waits for main", "enter side", *["work"] * 3, "leave", "main waits for side"]
    assert calls == [*warm_up, "enter graph thread_local", "work", "leave", "replay"] and results == [["results"]]

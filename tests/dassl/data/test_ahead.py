"""Batches that are copied ahead, with stand-ins for CUDA's streams and events and for tensors on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from dassl.data import ahead
from dassl.data.ahead import copied_ahead

CUDA = torch.device("cuda", 0)


class OnGPU(torch.Tensor):
    """A tensor that says that it is on a GPU."""

    device = CUDA
    notes: list

    def record_stream(self, stream: str) -> None:
        self.notes.append(f"used on {stream.name}")


class Recorder:
    """Notes what the copies ask of CUDA, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notes: list[str] = []
        self.current = Stream(self, "computes")
        self.events = 0
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(self, "copies"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.current)
        monkeypatch.setattr(torch.cuda, "stream", self.stream)
        monkeypatch.setattr(torch.cuda, "Event", lambda blocking: Event(self))
        to = torch.Tensor.to
        recorder = self

        def moved(tensor: torch.Tensor, target: object, non_blocking: bool = False) -> torch.Tensor:
            if target != CUDA:
                return to(tensor, target)
            assert non_blocking and type(tensor) is torch.Tensor
            recorder.notes.append(f"copy on {recorder.current.name}")
            result = tensor.clone().as_subclass(OnGPU)
            result.notes = recorder.notes
            return result

        monkeypatch.setattr(torch.Tensor, "to", moved)

    @contextmanager
    def stream(self, stream: "Stream") -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before


class Stream:
    def __init__(self, recorder: Recorder, name: str) -> None:
        self.recorder, self.name = recorder, name

    def wait_stream(self, other: "Stream") -> None:
        self.recorder.notes.append(f"{self.name} waits for {other.name}")


class Event:
    def __init__(self, recorder: Recorder) -> None:
        self.recorder, self.number = recorder, recorder.events
        recorder.events += 1

    def record(self, stream: Stream) -> None:
        self.recorder.notes.append(f"step {self.number} ends on {stream.name}")

    def synchronize(self) -> None:
        self.recorder.notes.append(f"host waits for step {self.number}")


def batches(notes: list[str], count: int) -> Iterator[dict]:
    for i in range(count):
        notes.append(f"read {i}")
        yield {"img": torch.full((2, 3), float(i)), "label": torch.tensor([i, i]), "impath": ["a", "b"]}


def test_without_a_gpu_the_batches_are_as_they_are() -> None:
    given = [{"img": torch.zeros(1)}]
    assert copied_ahead(given, torch.device("cpu")) is given


def test_each_batch_is_read_and_copied_when_the_step_before_is_launched(monkeypatch) -> None:
    """No batch is read earlier than its turn; its copy is waited for by the GPU, not by the host."""
    recorder = Recorder(monkeypatch)
    notes = recorder.notes
    for i, batch in enumerate(copied_ahead(batches(notes, 2), CUDA)):
        assert batch["img"].device == CUDA and batch["img"].tolist() == [[float(i)] * 3] * 2
        assert batch["label"].device.type == "cpu" and batch["impath"] == ["a", "b"]
        notes.append(f"launch {i}")
    steps = [
        [
            *(f"read {i}", "copy on copies", "used on computes", "computes waits for copies", f"launch {i}"),
            f"step {i} ends on computes",
        ]
        for i in range(2)
    ]
    assert notes == steps[0] + steps[1]


def test_the_host_is_at_most_two_batches_ahead(monkeypatch) -> None:
    """Before the fourth batch is read the first step has ended, and so on."""
    notes = Recorder(monkeypatch).notes
    for _ in copied_ahead(batches(notes, 5), CUDA):
        pass
    order = [note for note in notes if note.startswith(("read", "host"))]
    waits = ["host waits for step 0", "read 3", "host waits for step 1", "read 4", "host waits for step 2"]
    assert order == ["read 0", "read 1", "read 2", *waits]
    assert ahead.AHEAD == 2


def test_nested_batches(monkeypatch) -> None:
    """Views of DATALOADER.K_TRANSFORMS, and a labelled beside an unlabelled batch; what is there already stays."""
    recorder = Recorder(monkeypatch)
    there = torch.zeros(1).as_subclass(OnGPU)
    labelled = {"img": [torch.ones(2), torch.zeros(2)], "label": torch.tensor([1]), "features": there}
    ((x, u),) = copied_ahead([(labelled, {"img": torch.ones(3), "img2": (torch.ones(1),)})], CUDA)
    assert [view.device for view in (*x["img"], u["img"], *u["img2"])] == [CUDA] * 4
    assert x["label"] is labelled["label"] and x["features"] is there
    assert type(x["img"]) is list and type(u["img2"]) is tuple
    assert recorder.notes.count("copy on copies") == recorder.notes.count("used on computes") == 4

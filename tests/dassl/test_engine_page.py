"""docs/ENGINE.md names every method of the trainers, and the hooks in the order in which they run."""

import re
from collections import Counter

import torch

from dassl.engine import TrainerX
from dassl.utils import set_random_seed
from tests.dassl.tiny import TinyTrainer, tiny_cfg
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "ENGINE.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \| `(\w+)` \| ([\w ]+) \|", PAGE, flags=re.MULTILINE)
TIMES = {"once": 1, "per epoch": 4, "per batch": 4 * 6, "per test batch": 5}  # 4 epochs of 6 batches; 30 images by 7


def recorded(cfg) -> list[str]:
    """The documented hooks that a whole run calls, in order."""
    calls: list[str] = []

    def recording(name: str):
        def hook(self, *args, **kwargs):
            calls.append(name)
            return getattr(TinyTrainer, name)(self, *args, **kwargs)

        return hook

    hooks = {name: recording(name) for _, name, _ in ROWS}
    set_random_seed(cfg.SEED)
    type("Recording", (TinyTrainer,), hooks)(cfg).train()
    return calls


def test_hooks_run_in_the_documented_order(tmp_path) -> None:
    calls = recorded(tiny_cfg(tmp_path))
    assert [int(number) for number, _, _ in ROWS] == list(range(1, len(ROWS) + 1))
    assert list(dict.fromkeys(calls)) == [name for _, name, _ in ROWS]
    assert Counter(calls) == {name: TIMES[times] for _, name, times in ROWS}
    assert calls[calls.index("fit") :].count("before_train") == 0
    epoch = ["before_epoch", "run_epoch", *6 * ["forward_backward", "parse_batch_train"], "after_epoch"]
    assert calls[calls.index("before_epoch") : calls.index("after_train")] == 4 * epoch


def test_a_run_without_epochs_calls_the_hooks_that_the_page_names(tmp_path) -> None:
    calls = recorded(tiny_cfg(tmp_path, "OPTIM.MAX_EPOCH", 0, "OPTIM.LR_SCHEDULER", "single_step"))
    assert list(dict.fromkeys(calls))[3:7] == ["before_train", "fit", "after_train", "test"]
    assert torch.load(tmp_path / "net" / "model.pth.tar-0", weights_only=True)["epoch"] == 0


def test_every_public_method_is_on_the_page() -> None:
    engine = [cls for cls in TrainerX.__mro__ if cls.__module__.startswith("dassl.engine")]
    methods = {name for cls in engine for name, value in vars(cls).items() if callable(value) and name[0] != "_"}
    assert len(methods) > 30
    assert methods - set(re.findall(r"`(\w+)", PAGE)) == set()

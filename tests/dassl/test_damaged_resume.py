"""A resume file that is damaged or holds something else is refused by one error that names the file and the entry."""

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dassl.engine.resume import RESUME_FILE
from dassl.utils import load_checkpoint, set_random_seed, torch_save
from tests.dassl.tiny import Stop, TinyTrainer, stop_after_epoch, tiny_cfg


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """The folder of a run that was stopped after two of four epochs."""
    folder = tmp_path_factory.mktemp("stopped")
    set_random_seed(5)
    trainer = TinyTrainer(tiny_cfg(folder))
    stop_after_epoch(trainer, 2)
    with pytest.raises(Stop):
        trainer.train()
    trainer.run_record.let_go()
    return folder


def resume(folder: Path, state: dict[str, Any]) -> None:
    """Start a run in ``folder`` that resumes from ``state``."""
    torch_save(state, folder / RESUME_FILE)
    trainer = TinyTrainer(tiny_cfg(folder))
    trainer.resume_model_if_exist(str(folder))
    trainer.run_record.let_go()


def changed(state: dict[str, Any], entry: str, value: Any) -> dict[str, Any]:
    """A copy of ``state`` with another value at ``models.net.ctx`` or the like; DELETE removes it."""
    state = copy.deepcopy(state)
    *parents, last = [int(part) if part.isdigit() else part for part in entry.split(".")]
    node = state
    for part in parents:
        node = node[part]
    if value is DELETE:
        del node[last]
    else:
        node[last] = value
    return state


DELETE = object()
PYTHON = (3, (0,) * 624 + (624,), None)
NUMPY = ("MT19937", torch.zeros(624, dtype=torch.int64), 0, 0, 0.0)

BROKEN = [
    ("epoch", 99, r"epoch: expected a whole number from 1 to 4, found int 99"),
    ("epoch", 0, "epoch: expected a whole number from 1 on, found int 0"),
    ("epoch", "2", "epoch: expected a whole number"),
    ("epoch", torch.tensor(2), "epoch: expected a whole number"),
    ("epoch", 1, "record.history: expected a row for each epoch up to 1"),
    ("epoch", DELETE, "epoch: required key not provided"),
    ("config", "[", "entry 'config', is not valid YAML"),
    ("config", "- a\n- b\n", "entry 'config', holds .*, expected keys"),
    ("config", 7, "config: expected str, found int 7"),
    ("config", "a: !!bool x", "entry 'config', is not valid YAML"),
    ("config", "[" * 600, "entry 'config', is not valid YAML"),
    ("config", "a: " + "x" * 2**20, "is larger than"),
    ("data", [], "data: expected a dictionary, found list of 0"),
    ("data.classes", "abc", "data.classes: expected a list, found str 'abc'"),
    ("data.batches", 2.5, "data.batches: expected a whole number"),
    ("data.images", {"train_x": 5}, "data.images.train_x: expected a dictionary, found int 5"),
    ("models", [], "models: expected a dictionary"),
    ("models.net", None, "models.net: expected a dict of tensors, found None"),
    ("models.net", {5: torch.ones(1)}, "models.net: expected strings as names of tensors"),
    ("models.net.prompt", torch.full((6,), torch.nan), "prompt holds NaN or infinite values"),
    ("models.net.prompt", torch.ones(6).to_sparse(), "prompt has shape .*_rebuild_sparse_tensor, not read>"),
    ("models.net.prompt", torch.ones(6, dtype=torch.int32), "prompt holds torch.int32"),
    ("models.net.prompt", 5, "prompt has shape .*: it is int 5, not a tensor"),
    ("models.net.prompt", DELETE, r"missing prompt \(6,\)"),
    ("frozen", 5, "frozen: expected a dictionary"),
    ("frozen.net.backbone.0.weight", [1.5], "frozen.net"),
    ("frozen.net", {"prompt": [1]}, "frozen.net.prompt: extra keys not allowed"),
    ("optimizers", {}, "optimizers.net: required key not provided"),
    ("optimizers.net", {}, "'optimizers.net', is not valid: .*required key not provided"),
    ("optimizers.net", [], "'optimizers.net', is not valid: it is list of 0"),
    ("optimizers.net.param_groups", [], "param_groups: expected a list of 1, found list of 0"),
    ("optimizers.net.param_groups.0.lr", "fast", "param_groups.0.lr: expected a number, found str 'fast'"),
    ("optimizers.net.param_groups.0.lr", torch.nan, "param_groups.0.lr: expected a number, found float nan"),
    ("optimizers.net.param_groups.0.params", [0], "param_groups.0.params: expected 9 parameters"),
    ("optimizers.net.state.0", 5, "state.0: expected the state of a parameter"),
    ("optimizers.net.state.0.momentum_buffer", torch.ones(2), r"'momentum_buffer' has shape \(2,\) in the file"),
    ("optimizers.net.state.0.momentum_buffer", torch.full((6,), torch.nan), "'momentum_buffer' holds NaN"),
    ("optimizers.net.state.99", {}, "state.99: extra keys not allowed"),
    ("schedulers.net", None, "'schedulers.net', is not valid: it is None"),
    ("schedulers.net", {}, "required key not provided"),
    ("schedulers.net.last_epoch", "x", "last_epoch: expected a number, found str 'x'"),
    ("schedulers.net.base_lrs", [], "base_lrs: expected a list of 1"),
    ("schedulers.net.successor", {"last_epoch": 1}, "successor.*required key not provided"),
    ("attributes", [], "attributes: expected a dictionary"),
    ("attributes.step_counter", 5, "attributes.step_counter: expected an attribute"),
    ("attributes.step_counter", {}, "attributes.step_counter: expected an attribute"),
    ("attributes.step_counter", {"value": {}}, "'step_counter', is not valid: expected a plain value, found dict of 0"),
    ("attributes.step_counter", {"value": b"x"}, "'step_counter', is not valid: expected a plain value"),
    ("attributes.average", {"value": {"model": "no such", "grad": True}}, "'average', is not valid: expected a plain"),
    ("attributes.average", {"value": {"mapping": [({"list": []}, 1)]}}, "'average', is not valid: unhashable"),
    ("attributes.average", {"state": {}}, "'average', is the state of an object, the trainer has None"),
    ("attributes.average", {"module": {}}, "'average', is of a module, the trainer has None"),
    ("attributes.scale.module.weight", torch.ones(2, 2), r"'scale', .*\n.*weight has shape \(2, 2\)"),
    ("attributes.scale_optim", {"state": {}}, "'scale_optim', is not valid"),
    ("attributes.scale_optim.state.state.0.exp_avg", DELETE, "state.0: 'exp_avg' is missing"),
    ("record", {}, "required key not provided"),
    ("record.history", 5, "record.history: expected a list, found int 5"),
    ("record.history", [], "record.history: expected a row for each epoch up to 2"),
    ("record.history.1", 3, "record.history.1: expected a dictionary"),
    ("record.history.1.losses", [1.0], "record.history.1.losses: expected a dictionary"),
    ("record.history.1.losses.loss", "low", "record.history.1.losses.loss"),
    ("record.history.1.epoch", 7, "record.history: expected a row for each epoch"),
    ("record.best_result", "best", "record.best_result: expected a number"),
    ("record.best_result", float("nan"), "record.best_result: expected a number"),
    ("rng", None, "rng: expected a dictionary, found None"),
    ("rng.python", (3, (0,) * 624, None), "rng.python.1"),
    ("rng.python", (3, (0,) * 624 + (700,), None), "entry 'rng', is not valid"),
    ("rng.python", PYTHON[:2], "rng.python: expected a list of 3"),
    ("rng.numpy", (*NUMPY[:2], 10**6, 0, 0.0), "rng.numpy.2: expected a whole number from 0 to 624"),
    (
        "rng.numpy",
        ("MT19937", torch.zeros(3, dtype=torch.int64), 0, 0, 0.0),
        r"rng.numpy.1: the tensor has shape \(3,\)",
    ),
    ("rng.torch", torch.zeros(10, dtype=torch.uint8), "rng.torch: the tensor has shape"),
    ("rng.torch", torch.zeros(5056), "rng.torch: the tensor holds torch.float32"),
    ("rng.torch", "seed", "rng.torch: the tensor has shape .*: it is str 'seed'"),
    ("rng.cuda", 5, "rng.cuda: expected a list"),
    ("rng.gpu", 1, "rng.gpu: expected a number below 1, found int 1"),
    ("rng.mps", torch.zeros(36), "rng.mps: expected a tensor of bytes or None"),
    ("more", 1, "more: extra keys not allowed"),
]


@pytest.mark.parametrize(("entry", "value", "message"), BROKEN)
def test_a_broken_entry_is_named(tmp_path, stopped, entry, value, message) -> None:
    state = load_checkpoint(stopped / RESUME_FILE)
    if entry == "frozen.net.backbone.0.weight":
        state["frozen"]["net"]["backbone.0.weight"] = value
    else:
        state = changed(state, entry, value)
    before = random.getstate(), np.random.get_state()[1].tolist()
    with pytest.raises(ValueError, match=message) as error:
        resume(tmp_path, state)
    assert str(tmp_path / RESUME_FILE) in str(error.value) and len(str(error.value)) < 3000
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before or entry == "rng.python"


def test_the_unbroken_state_is_accepted(tmp_path, stopped) -> None:
    resume(tmp_path, load_checkpoint(stopped / RESUME_FILE))


def test_a_damaged_state_is_seen(tmp_path, stopped) -> None:
    content = (stopped / RESUME_FILE).read_bytes()
    prompt = load_checkpoint(stopped / RESUME_FILE)["models"]["net"]["prompt"].numpy().tobytes()
    position = content.index(prompt) + 3
    (tmp_path / RESUME_FILE).write_bytes(content[:position] + bytes([content[position] ^ 64]) + content[position + 1 :])
    trainer = TinyTrainer(tiny_cfg(tmp_path))
    with pytest.raises(ValueError, match=r"its entry 'data/\d+' is damaged.*Delete it to start from scratch"):
        trainer.train()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", RESUME_FILE]


def test_a_folder_instead_of_a_state(tmp_path) -> None:
    (tmp_path / RESUME_FILE).mkdir()
    with pytest.raises(ValueError, match="is not a file: delete it"):
        TinyTrainer(tiny_cfg(tmp_path)).train()


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from([torch.ones(6), torch.tensor(1), torch.eye(2).to_sparse(), torch.full((6,), torch.nan)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def entries(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every entry in nested dicts and lists."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [found for key, item in pairs for found in [(*path, key), *entries(item, (*path, key))]]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_change_of_an_entry(tmp_path_factory, stopped, data) -> None:
    """It resumes, as with another loss in the history, or says why not."""
    state = load_checkpoint(stopped / RESUME_FILE)
    *parents, last = data.draw(st.sampled_from(entries(state)))
    node = state
    for part in parents:
        node = node[part]
    if data.draw(st.booleans()):
        node[last] = data.draw(anything)
    else:
        del node[last]
    folder = tmp_path_factory.getbasetemp() / "any_change"
    try:
        resume(folder, state)
    except ValueError as error:
        assert str(folder / RESUME_FILE) in str(error)

"""Config nodes from several modules are merged, whatever the order of the modules."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from yacs.config import CfgNode

import trainers
from dassl.config import get_cfg_default


def module(name: str, extend_cfg: Callable[[CfgNode], None]) -> Any:
    new: Any = ModuleType(f"trainers.{name}")
    new.extend_cfg = extend_cfg
    return new


def coop(cfg: CfgNode) -> None:
    cfg.TRAINER.COOP = CfgNode({"N_CTX": 16, "CSC": False})


def one_key_more(cfg: CfgNode) -> None:
    cfg.TRAINER.COOP.W = 8.0


def the_node_once_more(cfg: CfgNode) -> None:
    cfg.TRAINER.COOP = CfgNode({"N_CTX": 16, "W": 8.0})


@pytest.mark.parametrize("plugin", [one_key_more, the_node_once_more])
@pytest.mark.parametrize("first", [True, False])
def test_parts_of_one_node_are_merged(monkeypatch: pytest.MonkeyPatch, plugin: Callable[[CfgNode], None], first: bool):
    modules = [module("kg", plugin), module("coop", coop)]
    monkeypatch.setattr(trainers, "_MODULES", modules if first else modules[::-1])
    cfg = get_cfg_default()
    trainers.extend_cfg(cfg)
    assert dict(cfg.TRAINER.COOP) == {"N_CTX": 16, "CSC": False, "W": 8.0}


def test_a_changed_default_is_named(monkeypatch: pytest.MonkeyPatch):
    def fewer_tokens(cfg: CfgNode) -> None:
        cfg.TRAINER.COOP = CfgNode({"N_CTX": 4})

    monkeypatch.setattr(trainers, "_MODULES", [module("coop", coop), module("kg", fewer_tokens)])
    cfg = get_cfg_default()
    with pytest.warns(UserWarning, match=r"trainers/kg.py changes the default of TRAINER.COOP.N_CTX from 16 to 4"):
        trainers.extend_cfg(cfg)
    assert dict(cfg.TRAINER.COOP) == {"N_CTX": 4, "CSC": False}


def test_a_node_that_nobody_declares_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trainers, "_MODULES", [module("kg", one_key_more)])
    with pytest.raises(ValueError, match=r"no module declares:\n  trainers/kg.py: .*COOP"):
        trainers.extend_cfg(get_cfg_default())

"""Losses to the bit and the shell entries' commands, as they were when the record was made."""

import json

import pytest
import torch

from tests.guard.record import CASES, RECORD, commands, entries, losses
from tests.paths import ROOT

RECORDED = json.loads(RECORD.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_recorded(name: str) -> None:
    torch.set_num_threads(1)
    assert losses(*CASES[name]) == RECORDED["losses"][name]


def test_every_recorded_entry_is_there() -> None:
    assert {path.relative_to(ROOT).as_posix() for path in entries()} == set(RECORDED["commands"])


@pytest.mark.parametrize("entry", RECORDED["commands"])
def test_commands_are_those_recorded(entry: str) -> None:
    assert commands(ROOT / entry) == RECORDED["commands"][entry]

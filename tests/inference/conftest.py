"""Runs on the demonstration that the tests of one module share."""

import io
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from tests.trainers.test_every_method import make

Made = Callable[..., Path]


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The folder of a finished run of a method on the base classes, at one shot; settings are KEY__SUBKEY=value."""
    runs: dict[object, Path] = {}

    def get(name: str = "maple", epochs: int = 1, **settings: object) -> Path:
        key = (name, epochs, *settings.items())
        if key not in runs:
            folder = tmp_path_factory.mktemp("run") / name
            with redirect_stdout(io.StringIO()):
                make(name, folder, epochs=epochs, DATALOADER__TRAIN_X__BATCH_SIZE=20, **settings).train()
            runs[key] = folder
        return runs[key]

    return get


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Made:
    """A copy of such a run, to be changed."""

    def get(*args: object, **settings: object) -> Path:
        return Path(shutil.copytree(made(*args, **settings), tmp_path / "copy"))

    return get

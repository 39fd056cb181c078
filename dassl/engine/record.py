"""RunRecord: what a run measures, and the files in its output folder that say so."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from dassl.utils.results import write_results
from dassl.utils.schema import number, whole
from dassl.utils.tools import atomic_write, lock_folder, remove_temporaries

__all__ = ["RunRecord", "record_schema"]


class RunRecord:
    """The measurements of one run, apart from what is trained.

    Attributes:
        history: one dict per finished epoch, the lines of history.jsonl.
        best_result: the highest validation result so far.
        fit_seconds: what the hook ``fit`` took.
        training: whether a run is between its start and its last epoch's end, so that a test is a validation.
        losses, lr, steps, images: of the current epoch: averages by name, the last learning rate, numbers of optimizer
            steps and images.
        split, result, test_seconds: of the last test.
        image_features: where the last test had image features from: None, "stored" or "computed" (docs/OUTPUTS.md).
        results_written: whether results.json was written since the last test began.
        data: what identifies the training images, once it was looked up.
        config: the text of config.yaml, once this run has written it.
        lock: held on the output folder once this run reads its state or writes there.
    """

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.best_result = -float("inf")
        self.fit_seconds = 0.0
        self.training = False
        self.split: str | None = None
        self.result: float | None = None
        self.test_seconds = 0.0
        self.image_features: str | None = None
        self.results_written = False
        self.data: dict[str, Any] | None = None
        self.lock: FileLock | None = None
        self.config: str | None = None
        self.start_epoch()

    def start_epoch(self) -> None:
        """Forget the measurements of the last epoch and start the clock."""
        self.losses: dict[str, float] = {}
        self.lr: float | None = None
        self.steps = self.images = 0
        self._epoch_start = time.perf_counter()

    def end_epoch(self, epoch: int) -> None:
        """Add the current epoch to the history as number ``epoch``, counted from 1."""
        seconds = time.perf_counter() - self._epoch_start
        self.history.append(
            {
                "epoch": epoch,
                "losses": self.losses,
                "lr": self.lr,
                "steps": self.steps,
                "seconds": seconds,
                "images_per_second": self.images / seconds,
            }
        )

    @property
    def train_seconds(self) -> float:
        """The time of all epochs and of ``fit``."""
        return self.fit_seconds + sum(row["seconds"] for row in self.history)

    def hold(self, folder: str | Path) -> None:
        """Lock ``folder``, so that no other run writes between reading its state and continuing it.

        Raises:
            BlockingIOError: another process holds the folder.
        """
        if self.lock is None:
            self.lock = lock_folder(folder)

    def let_go(self) -> None:
        """Unlock the folder of a run that was refused."""
        if self.lock is not None:
            self.lock.release()
            self.lock = None

    def claim(self, folder: str | Path, dump: Callable[[], str]) -> None:
        """Make ``folder`` this run's own: lock it, write config.yaml, delete a former results.json.

        Nothing in the folder changes before this, so that a command that is refused does not change a finished run.
        Called again, it checks that the folder is still there.

        Args:
            dump: returns the text of config.yaml; called once a run.

        Raises:
            BlockingIOError: another process holds the folder.
            FileNotFoundError: the folder was claimed before, and has been removed since.
        """
        folder = Path(folder)
        path = folder / "config.yaml"
        if self.config is not None:
            if not path.is_file():
                raise FileNotFoundError(
                    f"{folder} was removed, emptied or renamed while this run was writing to it: nothing more is"
                    " written there. Start the run again, in a folder that stays"
                )
            return
        self.hold(folder)
        remove_temporaries(folder)
        config = dump()
        with atomic_write(path, "w") as file:
            file.write(config)
        (folder / "results.json").unlink(missing_ok=True)
        self.config = config

    def write_history(self, folder: str | Path) -> None:
        """Write history.jsonl, one line per epoch: the whole file, so that a resumed run repeats no line."""
        with atomic_write(Path(folder) / "history.jsonl", "w") as file:
            for row in self.history:
                file.write(json.dumps(row) + "\n")

    def write_results(self, folder: str | Path, results: Mapping[str, Any]) -> None:
        """Write results.json, which marks the run as finished."""
        write_results(Path(folder) / "results.json", results)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run continues from."""
        return {"history": self.history, "best_result": self.best_result, "fit_seconds": self.fit_seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
        for name in ("history", "best_result", "fit_seconds"):
            setattr(self, name, state[name])


def record_schema() -> Any:
    """The schema of a :meth:`RunRecord.state_dict`."""
    from voluptuous import ALLOW_EXTRA, Optional, Required, Schema
    from voluptuous import Any as OneOf

    row = {
        Required("epoch"): whole(1),
        Required("losses"): {str: OneOf(int, float)},  # a metric may be NaN
        Required("lr"): OneOf(None, number),
        Optional("steps"): whole(0),  # runs of earlier versions have none
        Required("seconds"): number,
        Required("images_per_second"): number,
    }
    rows = [Schema(row, extra=ALLOW_EXTRA)]
    return {Required("history"): rows, Required("best_result"): number, Required("fit_seconds"): number}

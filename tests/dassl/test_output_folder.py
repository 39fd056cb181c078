"""The output folder: a refused run does not change it, one process at a time writes, only a test makes results."""

import multiprocessing
from pathlib import Path

import pytest

from dassl.engine.resume import RESUME_FILE
from dassl.utils import lock_folder, read_results, set_random_seed
from tests.dassl.tiny import TinyTrainer, tiny_cfg


def train(cfg, trainer_class=TinyTrainer) -> TinyTrainer:
    set_random_seed(cfg.SEED)
    trainer = trainer_class(cfg)
    trainer.train()
    return trainer


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("OPTIM.LR", 0.9), "OPTIM.LR: 0.05 there, 0.9 now"),
        (("RESUME", "/nowhere"), "RESUME: no folder /nowhere"),
        (("TEST.FINAL_MODEL", "best"), r"TEST.FINAL_MODEL 'best' is not available \(did you mean best_val"),
        (("TEST.SPLIT", "vall"), r"TEST.SPLIT 'vall' is not available \(did you mean val"),
        (("TRAIN.PRINT_FREQ", 0), "TRAIN.PRINT_FREQ is 0"),
        (("OPTIM.LR_SCHEDULER", "cos"), r"OPTIM.LR_SCHEDULER 'cos' is not available \(did you mean cosine"),
    ],
)
def test_a_refused_command_leaves_a_finished_run_as_it_was(tmp_path, options, message):
    train(tiny_cfg(tmp_path))
    before = contents(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(tiny_cfg(tmp_path, *options))
    assert contents(tmp_path) == before


def test_an_unreadable_state_says_what_to_do(tmp_path):
    train(tiny_cfg(tmp_path))
    (tmp_path / RESUME_FILE).write_bytes(b"PK\3\4 cut")
    with pytest.raises(ValueError, match=f"{RESUME_FILE} .*is not a readable checkpoint.* Delete it to start from"):
        train(tiny_cfg(tmp_path))


def hold(folder: str, held, done) -> None:
    lock = lock_folder(folder)
    held.set()
    done.wait(60)
    lock.release()


@pytest.mark.slow
def test_a_second_process_is_told_to_wait(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(str(tmp_path), held, done))
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(BlockingIOError, match=f"another process is writing to {tmp_path}"):
            train(tiny_cfg(tmp_path))
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    finally:
        done.set()
        other.join(60)
    train(tiny_cfg(tmp_path))
    assert read_results(tmp_path / "results.json")


class OwnLoop(TinyTrainer):
    """Trains and validates in its own loop, as some published trainers do."""

    stop = False

    def train(self) -> None:
        self.before_train()
        for self.epoch in range(self.start_epoch, self.max_epoch):  # noqa: B020
            self.run_epoch()
            self.test(split="val")
            if self.stop:
                return
        self.after_train()


class StoppedLoop(OwnLoop):
    stop = True


def test_a_validation_in_a_custom_loop_is_no_result(tmp_path):
    train(tiny_cfg(tmp_path), StoppedLoop)
    assert read_results(tmp_path / "results.json") is None
    train(tiny_cfg(tmp_path), OwnLoop)
    found = read_results(tmp_path / "results.json")
    assert (found["split"], found["epoch"]) == ("test", 4)

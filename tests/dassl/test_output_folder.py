"""The output folder: a refused run does not change it, one process at a time writes, only a test makes results."""

import multiprocessing
import shutil
import threading
from pathlib import Path

import pytest

from dassl.engine import simple
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


class CountsEpochs(TinyTrainer):
    """Notes each epoch that a process trains, in a file beside the run's folder."""

    def run_epoch(self) -> None:
        super().run_epoch()
        with open(f"{self.output_dir}.epochs", "a", encoding="utf-8") as file:
            file.write(f"{self.epoch}\n")


def in_thread(function, *args) -> threading.Thread:
    """Run a function in a thread, which is another owner of a lock, as another process is."""
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread


def test_two_starts_train_each_epoch_once(tmp_path, monkeypatch):
    """The second start comes while the first is between reading the state and continuing from it."""
    looked, go, readers = threading.Event(), threading.Event(), []
    find = simple.find_resume

    def find_and_wait(directory):
        readers.append(threading.current_thread())
        path = find(directory)
        looked.set()
        go.wait(60)
        return path

    monkeypatch.setattr(simple, "find_resume", find_and_wait)
    cfg = tiny_cfg(tmp_path / "run")
    started_at = []

    def start() -> None:
        trainer = train(cfg, CountsEpochs)
        trainer.run_record.let_go()  # as the end of a process does
        started_at.append(trainer.start_epoch)

    first = in_thread(start)
    try:
        assert looked.wait(60)
        with pytest.raises(BlockingIOError, match=f"another process is writing to {tmp_path / 'run'}"):
            train(cfg, CountsEpochs)
        assert readers == [first], "the second must not read a state that the first may still change"
    finally:
        go.set()
        first.join(60)
    in_thread(start).join(60)
    assert started_at == [0, 4]
    assert (tmp_path / "run.epochs").read_text().split() == ["0", "1", "2", "3"]


def test_a_refused_start_lets_go_of_the_folder(tmp_path):
    train(tiny_cfg(tmp_path)).run_record.let_go()
    with pytest.raises(ValueError, match=r"OPTIM\.LR"):
        train(tiny_cfg(tmp_path, "OPTIM.LR", 0.9))
    locks = []
    in_thread(lambda: locks.append(lock_folder(tmp_path))).join(60)
    assert len(locks) == 1


@pytest.mark.parametrize("hook", ["before_epoch", "run_epoch", "after_epoch", "final_test"])
@pytest.mark.parametrize("remains", [False, True], ids=["removed", "emptied"])
def test_a_folder_that_is_removed_ends_the_run(tmp_path, hook, remains):
    """Nothing is written in its place: neither a new folder nor files without the others."""
    folder = tmp_path / "run"
    trainer = TinyTrainer(tiny_cfg(folder, "TRAIN.CHECKPOINT_FREQ", 1))
    trainer.init_writer = lambda *args, **kwargs: None  # TensorBoard has a thread and errors of its own
    original = getattr(trainer, hook)

    def removing(*args):
        if trainer.epoch in (2, 3):
            shutil.rmtree(folder)
            if remains:
                folder.mkdir()
        return original(*args)

    setattr(trainer, hook, removing)
    with pytest.raises(FileNotFoundError, match=f"{folder} was removed, emptied or renamed while this run was writing"):
        trainer.train()
    left = [path for path in tmp_path.rglob("*") if path != folder]
    allowed = {"learner", "net", "checkpoint", "model.pth.tar-3"} if hook == "after_epoch" else set()
    assert {path.name for path in left} <= allowed

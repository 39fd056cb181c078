"""A disk that is full at any moment: one line that names the file, nothing half-written, and the same bits later."""

import errno
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dassl.utils import atomic_write, files, remove_temporaries, write_json
from dassl.utils.files import WriteError
from dassl.utils.torchtools import torch_save
from tests.dassl.tiny import TinyTrainer, tiny_cfg
from tests.paths import ROOT

LIMITS = (0, 1000, 4000, 9000)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs limits of file sizes")
def test_a_run_on_a_full_disk_ends_in_one_line_and_resumes_with_the_same_bits(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.dassl.disk_limits", str(tmp_path), *map(str, LIMITS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    named = set()
    for limit, outcome in json.loads(done.stdout).items():
        said = outcome["said"]
        assert outcome["status"] == 2, (limit, said)
        assert not [word for word in ("Traceback", "enforce fail", "Exception ignored") if word in said], said
        (last,) = [line for line in said.splitlines() if line.startswith("error: ")]  # of two streams, in any order
        assert last.endswith("; the same command resumes"), said
        assert said.count("TensorBoard curves") <= 1
        named.add(Path(last.split()[1]).name)
        assert (outcome["left"], outcome["again"], outcome["same"]) == ([], 0, True), limit
    assert {"log.txt", "config.yaml", "resume.pth.tar"} <= named


def write_by(monkeypatch: pytest.MonkeyPatch, write: Callable[[bytes], int]) -> None:
    """Have the files that the project writes write by a function."""

    class Disk(io.FileIO):
        def write(self, data):
            return write(data)

    class File(files._RecordingFile, Disk):
        pass

    monkeypatch.setattr(files, "_RecordingFile", File)


WRITERS = {
    "torch": lambda path: torch_save({"a": torch.arange(100_000), "b": "text"}, path),
    "json": lambda path: write_json(list(range(20_000)), path),
    "bytes": lambda path: _write(path, lambda file: file.write(bytes(100_000))),
}


def _write(path: Path, write) -> None:
    with atomic_write(path) as file:
        write(file)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("free", [0, 1, 63, 64, 1000, 66_000])
def test_a_file_is_the_former_one_after_a_failed_write(tmp_path, monkeypatch, capfd, writer, free) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"former")
    written = 0

    def write(data: bytes) -> int:
        nonlocal written
        written += memoryview(data).nbytes
        if written > free:
            raise OSError(errno.ENOSPC, "No space left on device")
        return memoryview(data).nbytes

    write_by(monkeypatch, write)
    with pytest.raises(WriteError, match=r"file cannot be written \(No space left.*, its former .*free space"):
        WRITERS[writer](path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"former"
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(WriteError, match="b cannot be written"):
        write_json({}, tmp_path / "a" / "b")


def test_a_signal_inside_a_write_of_torch_is_raised_as_it_is(tmp_path, monkeypatch, capfd) -> None:
    def write(data: bytes) -> int:
        raise KeyboardInterrupt

    write_by(monkeypatch, write)
    with pytest.raises(KeyboardInterrupt):
        torch_save(torch.arange(100_000), tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


# TensorBoard


def curves_given_up(tmp_path: Path, capfd) -> None:
    TinyTrainer(tiny_cfg(tmp_path)).train()
    output = capfd.readouterr()
    assert output.out.count("goes on without TensorBoard curves") == 1
    assert "Traceback" not in output.err
    assert (tmp_path / "results.json").is_file()


def test_curves_that_cannot_be_made_do_not_end_a_run(tmp_path, capfd) -> None:
    (tmp_path / "tensorboard").write_text("not a folder")
    curves_given_up(tmp_path, capfd)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_curves_that_cannot_be_written_any_more_do_not_end_a_run(tmp_path, capfd, monkeypatch) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    def write(self, data, real=RecordWriter.write, calls=[]):  # noqa: B006
        calls.append(data)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, data)

    monkeypatch.setattr(RecordWriter, "write", write)
    curves_given_up(tmp_path, capfd)


# What killed processes leave


@pytest.fixture(scope="module")
def dead() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_dead_writer_left_is_deleted_by_the_next_write(tmp_path: Path, dead: int) -> None:
    left = [f".a.{dead}-{files._machine()}.dassl-tmp", f".a.{dead}.dassl-tmp"]
    living = [f".a.{os.getppid()}-{files._machine()}.dassl-tmp", ".a.1-00000000.dassl-tmp"]
    others = [f".b.{dead}-{files._machine()}.dassl-tmp", f".a.b.{dead}.txt"]
    for name in (*left, *living, *others):
        (tmp_path / name).touch()
    write_json({}, tmp_path / "a")
    assert {path.name for path in tmp_path.iterdir()} == {"a", *living, *others}


def test_what_writers_of_another_machine_left_is_deleted_after_an_hour(tmp_path: Path) -> None:
    for name, age in (("old", 4000), ("new", 3000)):
        path = tmp_path / f".{name}.1-00000000.dassl-tmp"
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    remove_temporaries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".new.1-00000000.dassl-tmp"]


def test_a_write_that_is_killed_leaves_nothing_after_the_next_one(tmp_path: Path) -> None:
    code = "import os, sys; from dassl.utils import atomic_write\n"
    code += "with atomic_write(sys.argv[1]) as file: os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "cache")], cwd=ROOT)
    assert [path.suffix for path in tmp_path.iterdir()] == [".dassl-tmp"]
    write_json({}, tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]

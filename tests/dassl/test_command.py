"""How commands end: one line and a shell's status for a signal, a full disk, a dead worker, a closed pipe."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dassl.utils import DiskFullError, command
from dassl.utils.failures import WorkerError, explain
from dassl.utils.files import WriteError
from tests.paths import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


def start(code: str, *argv: str) -> subprocess.Popen[str]:
    """Python with the interrupt that a terminal's programs have, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *argv],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def signalled(code: str, number: int, ready: Callable[[], bool] | None = None) -> tuple[int, str]:
    """Status and output of a program that gets a signal once it has printed "ready"."""
    process = start(code)
    assert process.stdout
    while "ready" not in (line := process.stdout.readline()):
        assert line, "ended before it was ready"
    process.send_signal(number)
    text = process.communicate(timeout=60)[0]
    return process.returncode, text


WAIT = """
import time
from dassl.utils import command
def main():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)
command.run(main)
"""


@pytest.mark.parametrize(
    ("number", "status", "name"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM"), (signal.SIGHUP, 129, "SIGHUP")],
)
def test_a_signal_ends_a_command_in_one_line(number: int, status: int, name: str) -> None:
    found, text = signalled(WAIT, number)
    lines = text.splitlines()
    assert (found, lines[0], len(lines)) == (status, "cleaned up", 2)
    assert lines[1].startswith(f"stopped by {name}") and "the same command starts again" in lines[1]


ATOMIC = """
import sys, time
from dassl.utils import atomic_write, command
def main():
    with atomic_write({path!r}) as file:
        file.write(b"half")
        print("ready", flush=True)
        time.sleep(60)
command.run(main)
"""


def test_a_signal_while_a_file_is_written_leaves_the_former_one_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("whole")
    assert signalled(ATOMIC.format(path=str(tmp_path / "a")), signal.SIGTERM)[0] == 143
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "whole"


SWALLOWED = """
import time
from dassl.utils import command
class Swallows:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(60)
def main():
    Swallows()
    time.sleep(60)
command.run(main)
"""


def test_a_signal_that_a_destructor_swallows_arrives_all_the_same() -> None:
    status, text = signalled(SWALLOWED, signal.SIGINT)
    assert (status, text.count("\n")) == (130, 1) and text.startswith("stopped by Ctrl-C")


TURNED = """
import time
from dassl.utils import command
def main():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        raise ImportError("numpy failed to import")
command.run(main)
"""


def test_a_signal_that_a_library_turns_into_its_own_error_is_still_a_signal() -> None:
    status, text = signalled(TURNED, signal.SIGTERM)
    assert (status, text.count("\n")) == (143, 1) and "numpy" not in text


STUBBORN = """
import multiprocessing, time
from dassl.utils import command
def main():
    multiprocessing.get_context({method!r}).Process(target=time.sleep, args=(60,), daemon=True).start()
    while True:
        try:
            print("ready", multiprocessing.active_children()[0].pid, flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            pass
if __name__ == "__main__":
    command.run(main)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_second_signal_ends_at_once_what_ignores_the_first(method: str) -> None:
    process = start(STUBBORN.format(method=method))
    assert process.stdout
    child = int(process.stdout.readline().split()[1])
    process.send_signal(signal.SIGINT)
    time.sleep(command.REPEATED + 0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    assert process.wait(10) == 130
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_what_a_command_was_started_to_ignore_stays_ignored() -> None:
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    code += "from dassl.utils import command; command.watch_signals()\n"
    code += "print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    assert start(code).communicate(timeout=30)[0] == "True\n"


@pytest.mark.parametrize("lines", [3, 100_000])
def test_a_closed_pipe_ends_a_command_quietly(lines: int) -> None:
    code = f"""
import time
from dassl.utils import command
def main():
    time.sleep(0.3)
    try:
        for number in range({lines}):
            print(number)
    except Exception as error:
        return command.fail(error)
    return 0
command.run(main)
"""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, timeout=30)
    os.close(writer)
    assert (done.returncode, done.stderr) == (command.BROKEN_PIPE, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("lines", [3, 100_000])
def test_an_output_on_a_full_disk_is_one_line(lines: int) -> None:
    code = f"from dassl.utils import command\ndef main():\n  for n in range({lines}): print(n)\n  return 0\n"
    code += "def guarded():\n  try: return main()\n  except Exception as error: return command.fail(error)\n"
    code += "command.run(guarded)"
    with open("/dev/full", "w") as full:
        command_line = [sys.executable, "-c", code]
        done = subprocess.run(command_line, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the standard output cannot be written (No space left on device)")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "memory ran out: lower DATALOADER.TRAIN_X.BATCH_SIZE"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "memory ran out (CUDA out of mem"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: y"), "me"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory ran out ("),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "7 was killed by SIGKILL, us"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is"), "(/dev/shm) is full"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "worker process 7, 8 ended"),
        (WorkerError("a worker is stopped"), "a worker is stopped"),
        (WriteError(errno.ENOSPC, "No space left on device", "/x/y"), "/x/y cannot be written (No space left"),
        (WriteError(errno.EROFS, "Read-only file system", "/x"), "use a folder on a disk that can be written to"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded"),
    ],
)
def test_errors_from_outside_are_explained_in_one_line(error: Exception, line: str) -> None:
    found, from_outside = explain(error)
    assert found and line in found and from_outside and "\n" not in found


def test_mistakes_are_not_explained_and_wrong_input_is_not_from_outside() -> None:
    assert explain(RuntimeError("size mismatch")) == (None, False)
    assert explain(KeyError("x")) == (None, False)
    assert explain(ValueError("out of memory is a class name")) == ("out of memory is a class name", False)
    assert explain(FileNotFoundError("no folder")) == ("no folder", False)


def test_an_operation_that_an_apple_gpu_lacks_is_named_with_a_way_out() -> None:
    told = "The operator 'aten::_linalg_eigh.eigenvalues' is not currently implemented for the MPS device. If you want"
    line, from_outside = explain(NotImplementedError(told))
    assert line and line.startswith(
        "PyTorch cannot compute aten::_linalg_eigh.eigenvalues on the Mac's GPU: set PYTORCH_E"
    )
    assert not from_outside and explain(NotImplementedError("encode_image")) == (None, False)


def test_a_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASSL_TRACEBACK", "1")
    with pytest.raises(MemoryError):
        command.fail(MemoryError())


def test_a_message_of_our_own_about_a_disk_is_not_about_the_output(capfd: pytest.CaptureFixture[str]) -> None:
    assert command.fail(DiskFullError("data.bin needs 2.0 MiB, 1.0 MiB are free"), "resume") == 2
    assert capfd.readouterr() == ("", "error: data.bin needs 2.0 MiB, 1.0 MiB are free; resume\n")

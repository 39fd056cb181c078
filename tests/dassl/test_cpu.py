"""Threads, cores and kept memory of a run on the CPU."""

import os
import subprocess
import sys

import pytest
import torch

from dassl.utils import cpu
from tests.paths import ROOT

VIT_MICRO, VIT_B16 = 3e7, 17e9  # multiply-adds per image


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Control groups in a folder: ``groups(of_process, file=content)``."""

    def write(of_process, files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        (tmp_path / "of_process").write_text(of_process)
        monkeypatch.setattr(cpu, "_CGROUPS", tmp_path)
        monkeypatch.setattr(cpu, "_GROUP_OF_PROCESS", tmp_path / "of_process")

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    return write


@pytest.mark.parametrize(
    "of_process, files, expected",
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "350000 100000\n"}, 3),  # what docker --cpus 3.5 sets
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2),  # of a group around it
        ("0::/\n", {"cpu.max": "1600000 100000\n"}, 8),  # more than the affinity
        ("0::/\n", {"cpu.max": "garbage\n"}, 8),
        ("9:name=systemd:/x\n4:cpu,cpuacct:/job\n0::/\n",
         {"cpu,cpuacct/job/cpu.cfs_quota_us": "400000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"}, 4),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)  # fmt: skip
def test_cores_are_the_affinity_within_the_quota_of_the_control_group(groups, of_process, files, expected):
    groups(of_process, files)
    assert cpu.cores() == expected


def test_cores_without_control_groups(groups, monkeypatch, tmp_path):
    groups("", {})
    monkeypatch.setattr(cpu, "_GROUP_OF_PROCESS", tmp_path / "none")
    assert cpu.cores() == 8


def test_a_small_model_takes_one_thread_a_real_one_all_cores(monkeypatch):
    monkeypatch.setattr(cpu, "cores", lambda: 3)
    assert cpu.choose_threads(VIT_MICRO).startswith("CPU threads: 1 (the model is too small")
    assert torch.get_num_threads() == 1
    assert cpu.choose_threads(VIT_B16).startswith("CPU threads: 3 (this process may use 3 cores")
    assert torch.get_num_threads() == 3
    monkeypatch.setattr(cpu, "cores", lambda: 16)
    cpu.choose_threads(VIT_B16)
    assert torch.get_num_threads() == 4  # PyTorch's own number, which the choices before have not changed
    torch.set_num_threads(2)
    cpu.choose_threads(VIT_B16)
    assert torch.get_num_threads() == 2  # as set by the caller


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_the_environment_wins(monkeypatch, name):
    monkeypatch.setenv(name, "4")
    assert cpu.choose_threads(VIT_MICRO) == f"CPU threads: 4 ({name} is 4)"
    assert torch.get_num_threads() == 4


FAULTS = """
import resource
from dassl.utils.cpu import keep_freed_memory
keep_freed_memory() if {keep} else None

def step():
    pieces = [bytearray(2**23) for _ in range(4)]  # 8 MiB each, written to, from the C library as PyTorch's tensors

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def faults(keep: bool, **environment: str) -> tuple[int, int]:
    """Page faults of ten steps that allocate 32 MiB each, and the peak memory in KiB."""
    run = subprocess.run(
        [sys.executable, "-c", FAULTS.format(keep=keep)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    count, peak = map(int, run.stdout.split())
    return count, peak


@pytest.mark.skipif(sys.platform != "linux", reason="the settings are those of Linux' C library")
def test_freed_memory_is_used_again_without_page_faults():
    without, peak = faults(False)
    if without < 1000:
        pytest.skip(f"only {without} page faults in ten steps: another C library, or large pages")
    kept, peak_kept = faults(True)
    assert kept < without / 20
    assert peak_kept < 1.05 * peak
    given, _ = faults(True, MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072")
    assert given > without / 2  # what the user has set is left

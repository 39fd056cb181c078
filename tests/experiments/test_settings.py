"""Settings that mean the same are the same, whatever their spelling; wrong ones are refused in one line."""

import os
from pathlib import Path

import pytest

from experiments.options import split_options
from experiments.runs import run_status
from tests.paths import ROOT
from tests.stand_in import SCRIPTS, Shell, dry


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def spellings(tmp_path: Path) -> dict[str, tuple[str, Path]]:
    """A folder's spellings: how DATA is written, and where the command is called."""
    data = tmp_path / "my data; ü'\"$x"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    return {
        "absolute": (str(data), ROOT),
        "relative to the root": (os.path.relpath(data, ROOT), ROOT),
        "relative to the caller": (data.name, tmp_path),
        "dots": (f"./../{tmp_path.name}/{data.name}", tmp_path),
        "slash": (f"{data}//", ROOT),
        "link": (str(tmp_path / "link"), ROOT),
        "relative link": ("link/", tmp_path),
        "home": (f"~/{data.name}", ROOT),
    }


@pytest.mark.parametrize("first", ["absolute", "relative to the root"])
def test_one_folder_is_one_setting(shell: Shell, spellings: dict, tmp_path: Path, first: str) -> None:
    """A finished run on own data is skipped from everywhere, through the entry and the sweep."""
    entry = ("maple/base2new_train.sh", "image_folder", "1")
    sweep = ("sweep.sh", "maple", "base2new_train", "image_folder", "1")
    data, folder = spellings[first]
    done, calls = shell(*entry, cwd=folder, DATA=data, HOME=str(tmp_path))
    assert done.returncode == 0 and len(calls) == 1, done.stderr
    for name, (data, folder) in spellings.items():
        words = sweep if "relative" in name else entry
        done, calls = shell(*words, cwd=folder, DATA=data, HOME=str(tmp_path))
        assert done.returncode == 0, (name, done.stderr)
        assert "Finished already, skipped" in done.stdout and len(calls) == 1, name


@pytest.mark.parametrize("output", ["runs", "./runs/", "~/runs", "x/../runs", "link"])
def test_one_output_folder_is_one_setting(shell: Shell, tmp_path: Path, output: str) -> None:
    for name in ("x", "runs"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("runs")
    entry = ("maple/base2new_train.sh", "dtd", "1")
    shell(*entry, OUTPUT=str(tmp_path / "runs"))
    done, calls = shell(*entry, cwd=tmp_path, OUTPUT=output, HOME=str(tmp_path))
    assert done.returncode == 0 and len(calls) == 1, done.stderr


def test_other_folders_are_other_settings(shell: Shell, tmp_path: Path) -> None:
    shell("maple/base2new_train.sh", "split_file", "1", DATA=str(tmp_path / "a"))
    done, calls = shell("maple/base2new_train.sh", "split_file", "1", DATA=str(tmp_path / "b"))
    assert done.returncode == 2 and len(calls) == 1
    assert f"DATASET.ROOT: the run has {tmp_path}/a, now {tmp_path}/b is asked for" in done.stderr


def test_entries_start_through_links_sh_and_from_anywhere(shell: Shell, tmp_path: Path) -> None:
    expected, _ = shell("vpt/base2new_train_vpt.sh", "dtd", "1", DRY_RUN="1", DATA="/d")
    link = tmp_path / "train.sh"
    link.symlink_to(SCRIPTS / "vpt/base2new_train_vpt.sh")
    published = tmp_path / "published.sh"
    published.symlink_to(SCRIPTS / "maple/base2new_train_maple.sh")
    for command in (["bash", str(link)], ["sh", str(link)], ["sh", "train.sh"]):
        done, _ = shell.run([*command, "dtd", "1"], tmp_path, DRY_RUN="1", DATA="/d")
        assert done.stdout == expected.stdout and done.stdout, done.stderr
    done, _ = shell.run(["sh", str(published), "dtd", "1"], tmp_path, DRY_RUN="1")
    assert "--trainer MaPLe" in done.stdout
    done, _ = shell.run(["sh", "scripts/sweep.sh", "vpt", "base2new_train", "dtd", "1"], DRY_RUN="1", DATA="/d")
    assert done.stdout == expected.stdout


def test_shell_files_keep_their_line_endings() -> None:
    assert "*.sh text eol=lf" in (ROOT / ".gitattributes").read_text(encoding="utf-8")


# ---- options ---------------------------------------------------------------------------------------------------


def test_pairs_in_both_spellings_and_flags_are_one_setting(shell: Shell) -> None:
    first = ("maple/base2new_train.sh", "dtd", "1", "OPTIM.LR", "0.1", "MODEL.BACKBONE.NAME", "RN50")
    second = ("maple/base2new_train.sh", "dtd", "1", "OPTIM.LR=1e-1", "--backbone", "RN50")
    assert dry(shell, *first)[0].endswith("OPTIM.LR 0.1 MODEL.BACKBONE.NAME RN50 ")
    shell(*first)
    done, calls = shell(*second)
    assert done.returncode == 0 and len(calls) == 1, done.stderr
    done, calls = shell(*first[:3], "OPTIM.LR=0.2", "--backbone=RN50")
    assert "OPTIM.LR: the run has 0.1, now 0.2 is asked for" in done.stderr
    (built,) = shell(*second, "--no-train", OUTPUT="elsewhere", DRY_RUN="1")[0].stdout.splitlines()
    assert built.index(" --no-train ") < built.index("OPTIM.LR 1e-1")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["A.B", "1", "C.D=2"], (("A.B", "1", "C.D", "2"), ())),
        (["A.B=x=y", "C.D", "e=f"], (("A.B", "x=y", "C.D", "e=f"), ())),
        (["A.B=", "--no-train", "C.D", "-1"], (("A.B", "", "C.D", "-1"), ("--no-train",))),
        (["--device", "cuda:1"], (("DEVICE", "cuda:1"), ())),
        (["--head", "x", "--resume=out"], (("MODEL.HEAD.NAME", "x", "RESUME", "out"), ())),
        (["A.B"], (("A.B",), ())),
    ],
)
def test_words_after_the_arguments(words: list[str], expected: tuple) -> None:
    assert split_options(words) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("OPTIM.LR", "0.1", "OPTIM.MAX_EPOCH"), "pairs KEY VALUE, but there are 3"),
        (("--bakbone", "RN50"), "no flag '--bakbone' (did you mean --backbone"),
        (("--root", "/data"), "--root is set by DATA=<folder> before the command"),
        (("--output-dir=/out",), "--output-dir is set by OUTPUT=<folder>"),
        (("--seed", "3"), "--seed is set by the argument SEED"),
        (("OPTIM.LR", "0.1", "2", "3"), "expected pairs KEY VALUE such as OPTIM.LR 0.002"),
    ],
)
def test_wrong_options(shell: Shell, words: tuple, message: str) -> None:
    done, calls = shell("maple/base2new_train.sh", "dtd", "1", *words)
    assert done.returncode == 2 and not calls
    assert done.stderr.startswith("error: ") and message in done.stderr


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("SHOTS", "abc", "SHOTS is 'abc', expected a whole number"),
        ("SHOTS", "0", "SHOTS is '0', expected a number of images per class from 1 on, or -1 for all"),
        ("SHOTS", "-2", "SHOTS is '-2'"),
        ("SHOTS", "1.5", "SHOTS is '1.5'"),
        ("SHOTS", "9" * 5000, "SHOTS is '999"),
        ("LOADEP", "last", "LOADEP is 'last', expected a whole number"),
        ("SUB", "novel", "no classes 'novel' (SUB)"),
        ("SOURCE", "imgenet", "no dataset 'imgenet': there is no configs/datasets/imgenet.yaml (did you mean imagenet"),
        ("CFG", "vit_mircro", "no config 'vit_mircro' of MaPLe"),
        ("CFG", "vit_micro.yaml", "(did you mean vit_micro"),
        ("DRY_RUN", "yes", "DRY_RUN is 'yes', expected 1"),
        ("PYTHON", "/no/python", "there is no '/no/python'"),
    ],
)
@pytest.mark.parametrize("through", ["entry", "sweep"])
def test_wrong_settings(shell: Shell, through: str, setting: str, value: str, message: str) -> None:
    """In a sweep they are reported once, before the first run."""
    name = "xd_test" if setting == "SOURCE" else "base2new_test" if setting == "SUB" else "base2new_train"
    words = (
        (f"maple/{name}.sh", "dtd", "1") if through == "entry" else ("sweep.sh", "maple", name, "dtd eurosat", "1 2")
    )
    done, calls = shell(*words, **{setting: value})
    assert done.returncode == 2 and not calls
    assert done.stderr.count(message) == 1 and len(done.stderr.splitlines()) <= 2, done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("mapel", "base2new", "dtd", "1"), "no method 'mapel' in experiments/methods.py (did you mean maple?)"),
        (("maple", "base2nwe", "dtd", "1"), "(did you mean base2new"),
        (("maple", "base2new", "dtd", "one"), "the seeds are 'one', expected whole numbers"),
        (("maple", "base2new", "dtd", "1-3"), "the seeds are '1-3'"),
        (("maple", "base2new", "dtt eurosaat", "1 2"), "no dataset 'eurosaat'"),
        (("coop", "main", "dtd", "1"), "scripts/coop/main.sh runs a list of seeds itself"),
        (("maple", "reproduce", "dtd", "1"), "usage: bash scripts/maple/reproduce.sh DATASET SEED WEIGHTS_FOLDER"),
    ],
)
def test_a_sweep_s_typos_are_reported_once_and_before_the_first_run(shell: Shell, words: tuple, message: str) -> None:
    done, calls = shell("sweep.sh", *words)
    assert done.returncode == 2 and not calls
    assert done.stderr.count(message) == 1 and done.stderr.count("There are") <= 1, done.stderr


def test_a_sweep_over_shots_and_one_without_seeds(shell: Shell) -> None:
    done, _ = shell("sweep.sh", "maple", "few_shot", "dtd,eurosat", "1,2", SHOTS="1 4", DRY_RUN="1")
    assert done.stdout.count("DATASET.NUM_SHOTS") == 2 * 2 * 2
    done, _ = shell("sweep.sh", "zsclip", "zeroshot", "dtd eurosat", "1 2 3", "OPTIM.LR=1", DRY_RUN="1")
    assert len(done.stdout.splitlines()) == 2


# ---- what a test takes from its training -----------------------------------------------------------------------


def test_a_test_has_the_model_of_its_training(shell: Shell) -> None:
    backbone = ("MODEL.BACKBONE.NAME", "RN50", "MODEL.BACKBONE.ACTIVATION=gelu")
    trained = (*backbone, "TRAINER.MAPLE.N_CTX=4", "INPUT.SIZE=(64, 64)", "OPTIM.LR=0.1")
    shell("maple/base2new_train.sh", "dtd", "1", *trained)
    done, calls = shell("maple/base2new_test.sh", "dtd", "1")
    pairs = calls[1].partition("SUBSAMPLE_CLASSES new ")[2]
    backbone = "MODEL.BACKBONE.ACTIVATION gelu MODEL.BACKBONE.NAME RN50"
    assert pairs == f"INPUT.SIZE (64, 64) {backbone} TRAINER.MAPLE.N_CTX 4", "the rate is no such setting"
    done, calls = shell("maple/base2new_test.sh", "dtd", "1")
    assert "Finished already, skipped" in done.stdout and len(calls) == 2
    done, calls = shell("maple/base2new_test.sh", "dtd", "1", "TRAINER.MAPLE.N_CTX", "2", SUB="base")
    assert calls[2].count("N_CTX") == 1 and "TRAINER.MAPLE.N_CTX 2" in calls[2], "options have priority"


def test_an_unchanged_training_adds_nothing_to_its_test(shell: Shell) -> None:
    shell("maple/base2new_train.sh", "dtd", "1")
    _, calls = shell("maple/base2new_test.sh", "dtd", "1")
    assert calls[1].endswith("DATASET.SUBSAMPLE_CLASSES new")


@pytest.mark.parametrize("name", ["log.txt", ".lock", ".config.yaml.12.dassl-tmp"])
def test_a_run_that_failed_before_its_first_step_is_new(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert run_status(tmp_path).state == "new"
    (tmp_path / "config.yaml").touch()
    assert run_status(tmp_path).state == "unfinished"

"""The shell entries: what they run, where the output goes, what they skip, resume and refuse.

tests/stand_in.py replaces train.py.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from experiments.methods import METHODS
from tests.paths import ROOT
from tests.stand_in import SCRIPTS, Shell, dry, option, write_stand_in

SHELL_FILES = [*sorted(SCRIPTS.rglob("*.sh")), ROOT / ".ci" / "run"]
MAPLE = "vit_b16_c2_ep5_batch4_2ctx"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.mark.parametrize("path", SHELL_FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_is_valid_bash_that_stops_at_errors(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True, timeout=20)
    assert "set -euo pipefail" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path",
    [p for p in SHELL_FILES if p.parent.parent == SCRIPTS and not p.read_text(encoding="utf-8").count("exec bash")],
    ids=lambda path: path.relative_to(SCRIPTS).as_posix(),
)
def test_every_entry_prints_commands_whose_configs_exist(shell, path: Path) -> None:
    arguments = {
        "main.sh": ("caltech101", "vit_b16", "end", "16", "1", "False"),
        "eval.sh": ("caltech101", "vit_b16"),
        "zeroshot.sh": ("caltech101",),
    }.get(path.name, ("caltech101", "1"))
    if path.name.startswith("few_shot"):
        arguments = ("caltech101", "16", "1")
    if path.name.startswith("reproduce"):
        arguments = ("caltech101", "1", "weights")
    if path.stem == "xd_test" and "cross_dataset" in METHODS[path.parent.name].undefined:
        arguments = ("imagenet_a", "1")
    commands = dry(shell, path.relative_to(SCRIPTS).as_posix(), *arguments)
    assert commands
    for command in commands:
        assert "python train.py --root ./data --trainer" in command
        assert (ROOT / option(command, "--config-file")).is_file()
        assert option(command, "--config-file").split("/")[2] == option(command, "--trainer")
        assert option(command, "--dataset-config-file") == f"configs/datasets/{arguments[0]}.yaml"


def test_base_to_new(shell) -> None:
    common = f"caltech101/shots_16/MaPLe/{MAPLE}/seed2"
    (train,) = dry(shell, "maple/base2new_train.sh", "caltech101", "2", "OPTIM.LR", "0.01")
    assert option(train, "--output-dir") == f"output/base2new/train_base/{common}"
    assert option(train, "--seed") == "2"
    assert "--eval-only" not in train
    assert train.rstrip().endswith("DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES base OPTIM.LR 0.01")

    (test,) = dry(shell, "maple/base2new_test.sh", "caltech101", "2")
    assert option(test, "--output-dir") == f"output/base2new/test_new/{common}"
    assert option(test, "--model-dir") == f"output/base2new/train_base/{common}"
    assert option(test, "--load-epoch") == "5"
    assert "--eval-only DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES new" in test

    (base,) = dry(shell, "maple/base2new_test.sh", "caltech101", "2", SUB="base")
    assert option(base, "--output-dir") == f"output/base2new/test_base/{common}"
    assert "DATASET.SUBSAMPLE_CLASSES base" in base


@pytest.mark.parametrize("entry", ["base2new_train", "base2new_test", "xd_train", "xd_test"])
def test_published_names_run_the_same(shell, entry: str) -> None:
    arguments = ("caltech101", "1")
    assert dry(shell, f"maple/{entry}_maple.sh", *arguments) == dry(shell, f"maple/{entry}.sh", *arguments)


def test_cross_dataset_trains_the_two_epoch_config_and_tests_its_last_epoch(shell) -> None:
    config = f"{MAPLE}_cross_datasets"
    (train,) = dry(shell, "maple/xd_train.sh", "imagenet", "1")
    assert option(train, "--output-dir") == f"output/imagenet/MaPLe/{config}_16shots/seed1"
    assert "DATASET.NUM_SHOTS 16" in train
    assert "SUBSAMPLE" not in train
    assert dry(shell, "maple/xd_train.sh", "1") == [train]

    (test,) = dry(shell, "maple/xd_test.sh", "imagenet_a", "1")
    assert option(test, "--output-dir") == f"output/evaluation/MaPLe/{config}_16shots/imagenet_a/seed1"
    assert option(test, "--model-dir") == f"output/imagenet/MaPLe/{config}_16shots/seed1"
    assert option(test, "--load-epoch") == "2"
    assert "PROTOCOL domain_generalization" in test
    assert "PROTOCOL cross_dataset" in dry(shell, "maple/xd_test.sh", "dtd", "1")[0]


def test_another_source_has_another_evaluation_folder(shell) -> None:
    (test,) = dry(shell, "maple/xd_test.sh", "emoji", "1", SOURCE="emoji")
    assert option(test, "--output-dir") == "output/evaluation_emoji/MaPLe/vit_micro_16shots/emoji/seed1"


def test_few_shot_runs_all_shots_and_seeds(shell) -> None:
    commands = dry(shell, "maple/few_shot.sh", "dtd")
    folders = [f"output/dtd/MaPLe/{MAPLE}_{k}shots/seed{s}" for k in (1, 2, 4, 8, 16) for s in (1, 2, 3)]
    assert [option(command, "--output-dir") for command in commands] == folders
    assert [option(c, "DATASET.NUM_SHOTS") for c in commands] == [k for k in ("1", "2", "4", "8", "16") for _ in "123"]
    (one,) = dry(shell, "maple/few_shot.sh", "dtd", "4", "0", "OPTIM.LR", "0.1")
    assert option(one, "--seed") == "0"
    assert one.rstrip().endswith("OPTIM.LR 0.1")


@pytest.mark.parametrize(("dataset", "epochs"), [("dtd", None), ("imagenet", "25"), ("sun397", "25")])
def test_tcp_trains_half_as_long_on_imagenet_and_sun397(shell, dataset: str, epochs: str | None) -> None:
    """Its train.py sets it, over the config's 50 epochs; the test loads the last one."""
    (train,) = dry(shell, "tcp/base2new_train.sh", dataset, "1")
    assert ("OPTIM.MAX_EPOCH" in train) == (epochs is not None)
    assert epochs is None or option(train, "OPTIM.MAX_EPOCH") == epochs
    (test,) = dry(shell, "tcp/base2new_test.sh", dataset, "1")
    assert option(test, "--load-epoch") == (epochs or "50")


def test_coop_few_shot_trains_as_long_as_its_paper(shell) -> None:
    """200 epochs with 8 and 16 shots, 100 with 2 and 4, 50 with 1; ImageNet always 50."""
    commands = dry(shell, "coop/few_shot.sh", "dtd", "1 2 4 8 16", "1")
    names = [Path(option(command, "--config-file")).stem for command in commands]
    assert names == ["vit_b16_ep50", "vit_b16_ep100", "vit_b16_ep100", "vit_b16", "vit_b16"]
    assert "vit_b16_ep50.yaml" in dry(shell, "coop/few_shot.sh", "imagenet", "16", "1")[0]


def test_coop_main_and_eval_have_the_published_folders(shell) -> None:
    variant = "vit_b16_ep50_16shots/nctx16_cscFalse_ctpend"
    train = dry(shell, "coop/main.sh", "imagenet", "vit_b16_ep50", "end", "16", "16", "False")
    assert [option(c, "--output-dir") for c in train] == [f"output/imagenet/CoOp/{variant}/seed{s}" for s in (1, 2, 3)]
    assert "TRAINER.COOP.N_CTX 16 TRAINER.COOP.CSC False TRAINER.COOP.CLASS_TOKEN_POSITION end" in train[0]
    test = dry(shell, "coop/eval.sh", "imagenetv2", "vit_b16_ep50", SEEDS="1")
    assert [option(c, "--output-dir") for c in test] == [f"output/evaluation/CoOp/{variant}/imagenetv2/seed1"]
    assert option(test[0], "--model-dir") == f"output/imagenet/CoOp/{variant}/seed1"
    assert option(test[0], "--load-epoch") == "50"


def test_zero_shot(shell) -> None:
    (command,) = dry(shell, "zsclip/zeroshot.sh", "dtd", "rn50")
    assert option(command, "--output-dir") == "output/ZeroshotCLIP/rn50/dtd"
    assert option(command, "--config-file") == "configs/trainers/ZeroshotCLIP/rn50.yaml"
    (ensemble,) = dry(shell, "zsclip/zeroshot.sh", "dtd", TRAINER="ZeroshotCLIP2")
    assert option(ensemble, "--output-dir") == "output/ZeroshotCLIP2/vit_b16/dtd"


def test_language_prompting_is_ivlp_with_its_own_config(shell) -> None:
    (command,) = dry(shell, "language-prompting/base2new_train_lp.sh", "emoji", "1")
    assert option(command, "--config-file") == "configs/trainers/IVLP/vit_micro_language_only.yaml"


def test_no_arguments_run_the_embedded_default(shell) -> None:
    done, _ = shell("maple/base2new_train.sh", DRY_RUN="1")
    assert "emoji 1" in done.stdout
    assert "configs/trainers/MaPLe/vit_micro.yaml" in done.stdout
    assert "--seed 1 " in done.stdout


def test_environment_sets_data_config_and_shots(shell) -> None:
    (command,) = dry(shell, "maple/base2new_train.sh", "dtd", "1", DATA="/big disk/data", CFG="vit_micro", SHOTS="4")
    assert "--root /big disk/data " in command
    assert option(command, "--output-dir") == "output/base2new/train_base/dtd/shots_4/MaPLe/vit_micro/seed1"


def test_relative_folders_start_at_the_callers(shell, tmp_path: Path) -> None:
    done, _ = shell("maple/base2new_train.sh", "dtd", "1", cwd=tmp_path, DRY_RUN="1", OUTPUT="mine", DATA="d")
    assert f"--output-dir {tmp_path}/mine/base2new" in done.stdout
    assert f"--root {tmp_path}/d " in done.stdout


@pytest.mark.parametrize(
    ("entry", "arguments", "message"),
    [
        ("maple/base2new_train.sh", ("dtd",), "usage: bash .*base2new_train.sh DATASET SEED"),
        ("maple/base2new_train.sh", ("dtd", "one"), "usage: "),
        ("maple/base2new_train.sh", ("dtt", "1"), "no dataset 'dtt'.*caltech101"),
        ("maple/base2new_train.sh", ("dtd", "1", "OPTIM.LR"), "pairs KEY VALUE, but there are 1"),
        ("maple/few_shot.sh", (), "usage: "),
        ("maple/reproduce.sh", ("dtd", "1"), "usage: .*WEIGHTS_FOLDER"),
        ("maple/reproduce.sh", ("dtd", "1", "/nowhere"), "no weights for dtd, seed 1: neither in /nowhere"),
        ("maple/base2new_test.sh", ("dtd", "1"), "no finished training in .*run .*maple/base2new_train.sh"),
        ("coop/main.sh", ("dtd", "vit_b16"), "usage: .*DATASET CFG CTP NCTX SHOTS CSC"),
        ("sweep.sh", ("maple",), "usage: "),
        ("sweep.sh", ("maple", "base3new", "dtd", "1"), "no scripts/maple/base3new.sh. There are: base2new_test.sh"),
    ],
)
def test_usage_errors_say_what_to_do(shell, entry: str, arguments: Sequence[str], message: str) -> None:
    done, calls = shell(entry, *arguments)
    assert done.returncode == 2
    assert re.search(message, done.stderr, re.DOTALL), done.stderr
    assert not calls


def test_unknown_config_is_named(shell) -> None:
    done, _ = shell("maple/base2new_train.sh", "dtd", "1", CFG="vit_x")
    assert done.returncode == 2
    assert "configs/trainers/MaPLe/vit_x.yaml" in done.stderr


def test_finished_run_is_skipped_and_an_unfinished_one_resumed(shell, tmp_path: Path) -> None:
    failed, calls = shell("maple/base2new_train.sh", "dtd", "1", FAIL="1")
    assert failed.returncode == 1
    assert len(calls) == 1

    resumed, calls = shell("maple/base2new_train.sh", "dtd", "1")
    assert "Unfinished, resuming" in resumed.stdout
    assert calls[0] == calls[1], "the same command resumes the run"

    skipped, calls = shell("maple/base2new_train.sh", "dtd", "1")
    assert skipped.returncode == 0
    assert "Finished already, skipped" in skipped.stdout
    assert "76.66 %" in skipped.stdout
    assert len(calls) == 2


@pytest.mark.parametrize("content", ["", "{", '{"accuracy": 70.0}', '{"complete": true}', "[]"])
def test_only_a_complete_results_file_counts_as_done(shell, tmp_path: Path, content: str) -> None:
    folder = tmp_path / f"out/base2new/train_base/dtd/shots_16/MaPLe/{MAPLE}/seed1"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(content, encoding="utf-8")
    done, calls = shell("maple/base2new_train.sh", "dtd", "1")
    assert done.returncode == 0
    assert len(calls) == 1


def test_finished_run_with_other_settings_is_an_error(shell) -> None:
    arguments = ("maple/base2new_train.sh", "dtd", "1")
    shell(*arguments, "OPTIM.MAX_EPOCH", "3", "INPUT.SIZE", "[48, 48]")
    same, calls = shell(*arguments, "OPTIM.MAX_EPOCH", "3", "INPUT.SIZE", "(48, 48)", "DATALOADER.NUM_WORKERS", "0")
    assert same.returncode == 0
    assert len(calls) == 1

    other, calls = shell(*arguments, "OPTIM.MAX_EPOCH", "10")
    assert other.returncode == 2
    assert "OPTIM.MAX_EPOCH: the run has 3, now 10 is asked for" in other.stderr
    assert "Set OUTPUT to another folder" in other.stderr
    assert len(calls) == 1


def test_finished_run_of_an_edited_config_file_is_an_error(shell, tmp_path: Path) -> None:
    shell("maple/base2new_train.sh", "dtd", "1")
    (file,) = (tmp_path / "out").rglob("config.yaml")
    assert "LR: 0.0035" in file.read_text(), "the published rate"
    file.write_text(file.read_text().replace("LR: 0.0035", "LR: 0.0026"))
    done, calls = shell("maple/base2new_train.sh", "dtd", "1")
    assert done.returncode == 2 and len(calls) == 1
    assert "OPTIM.LR: the run has 0.0026, now 0.0035 is asked for" in done.stderr


def test_a_finished_test_of_another_epoch_is_an_error(shell) -> None:
    shell("maple/base2new_train.sh", "dtd", "1")
    shell("maple/base2new_test.sh", "dtd", "1")
    done, calls = shell("maple/base2new_test.sh", "dtd", "1", LOADEP="3")
    assert done.returncode == 2 and len(calls) == 2
    assert "epoch: the run tested 5, now 3 is asked for" in done.stderr


def test_a_training_without_a_test_can_finish(shell) -> None:
    shell("maple/base2new_train.sh", "dtd", "1", "TEST.NO_TEST", "True")
    done, calls = shell("maple/base2new_train.sh", "dtd", "1", "TEST.NO_TEST", "True")
    assert "Finished already, skipped" in done.stdout and "(not tested)" in done.stdout and len(calls) == 1
    done, calls = shell("maple/base2new_test.sh", "dtd", "1")
    assert done.returncode == 0 and len(calls) == 2


def test_runs_on_own_images_are_not_mistaken_for_each_other(shell) -> None:
    first = shell("maple/base2new_train.sh", "image_folder", "1", DATA="/data/birds")
    assert first[0].returncode == 0 and option(first[1][0], "--root") == "/data/birds"
    done, calls = shell("maple/base2new_train.sh", "image_folder", "1", DATA="/data/boats")
    assert done.returncode == 2 and len(calls) == 1
    assert "DATASET.ROOT: the run has /data/birds, now /data/boats is asked for" in done.stderr


def test_a_test_loads_the_epoch_that_was_trained_and_is_repeated_after_a_new_training(shell, tmp_path: Path) -> None:
    shell("maple/base2new_train.sh", "dtd", "1", "OPTIM.MAX_EPOCH", "3")
    _, calls = shell("maple/base2new_test.sh", "dtd", "1")
    assert option(calls[-1], "--load-epoch") == "3"

    trained = tmp_path / f"out/base2new/train_base/dtd/shots_16/MaPLe/{MAPLE}/seed1/results.json"
    os.utime(trained, (2e9, 2e9))
    _, again = shell("maple/base2new_test.sh", "dtd", "1")
    assert again[-1] == calls[-1]
    assert len(again) == 3


def test_best_validation_model_is_loaded_without_an_epoch(shell, tmp_path: Path) -> None:
    shell("maple/base2new_train.sh", "dtd", "1")
    folder = tmp_path / f"out/base2new/train_base/dtd/shots_16/MaPLe/{MAPLE}/seed1"
    (folder / "config.yaml").write_text("OPTIM:\n  MAX_EPOCH: 5\nTEST:\n  FINAL_MODEL: best_val\n", encoding="utf-8")
    _, calls = shell("maple/base2new_test.sh", "dtd", "1")
    assert "--model-dir" in calls[-1]
    assert "--load-epoch" not in calls[-1]


@pytest.mark.parametrize("layout", ["seed1", "base/seed1", "dtd/base/seed1", "."])
def test_reproduce_finds_the_published_layouts(shell, tmp_path: Path, layout: str) -> None:
    weights = tmp_path / "weights"
    file = weights / layout / "MultiModalPromptLearner" / "model.pth.tar-5"
    file.parent.mkdir(parents=True)
    file.touch()
    done, calls = shell("maple/reproduce_maple.sh", "dtd", "1", str(weights))
    assert done.returncode == 0, done.stderr
    assert [Path(option(call, "--model-dir")) for call in calls] == [weights / layout] * 2
    assert [option(call, "DATASET.SUBSAMPLE_CLASSES") for call in calls] == ["base", "new"]
    assert "out/reproduce/base2new/test_new/dtd/" in calls[1]
    assert option(calls[0], "--load-epoch") == "5"
    _, calls = shell("maple/reproduce_maple_xd.sh", "dtd", "1", str(weights))
    assert option(calls[-1], "--load-epoch") == "2"


def run_line(path: Path) -> re.Match[str] | None:
    """The first command of a config's header: settings, script and arguments."""
    header = path.read_text(encoding="utf-8").split("# Run:")[1].splitlines()[0]
    return re.match(r"\s*((?:\w+=\S+ )*)bash scripts/(\S+) ([^,;]*)", header)


@pytest.mark.parametrize(
    "path",
    [path for path in sorted((ROOT / "configs" / "trainers").rglob("*.yaml")) if run_line(path)],
    ids=lambda path: path.relative_to(ROOT / "configs" / "trainers").as_posix(),
)
def test_the_command_in_a_config_s_header_runs_that_config(shell, path: Path) -> None:
    settings, entry, arguments = run_line(path).groups()
    words = shlex.split(arguments.replace("DATASET", "caltech101").replace("SEED", "1"))
    commands = dry(shell, entry, *words, **dict(setting.split("=") for setting in settings.split()))
    assert {option(command, "--config-file") for command in commands} == {path.relative_to(ROOT).as_posix()}


def test_relative_folders_of_a_sweep_start_at_the_callers(shell, tmp_path: Path) -> None:
    done, calls = shell("sweep.sh", "maple", "base2new_train", "dtd", "1", cwd=tmp_path, OUTPUT="mine", DATA="pictures")
    assert done.returncode == 0
    assert option(calls[0], "--output-dir").startswith(f"{tmp_path}/mine/")
    assert option(calls[0], "--root") == f"{tmp_path}/pictures"


def test_sweep_continues_after_a_failure_and_names_it(shell) -> None:
    done, calls = shell("sweep.sh", "vpt", "base2new_train", "dtd", "1 2", FAIL="1")
    assert done.returncode == 1
    assert len(calls) == 2
    assert "failed: scripts/vpt/base2new_train_vpt.sh dtd 2" in done.stderr
    done, calls = shell("sweep.sh", "maple", "base2new", "dtd", "1")
    assert done.returncode == 0
    assert len(calls) == 4


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what setup and quickstart need, with a stand-in for python3 that makes a stand-in environment."""
    copy = tmp_path / "clone"
    shutil.copytree(SCRIPTS, copy / "scripts", ignore=shutil.ignore_patterns("emoji"))
    for folder in ("configs", "dassl", "experiments"):
        shutil.copytree(ROOT / folder, copy / folder)
    (copy / "requirements.txt").write_text("one==1\n", encoding="utf-8")
    return copy


def test_setup_installs_once_and_again_when_the_requirements_change(checkout: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    base = tmp_path / "python3"
    base.write_text(
        "#!/usr/bin/env bash\n"
        f'echo "$*" >> {notes}\n'
        'case "$*" in\n'
        '    "-m venv --clear .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;\n'
        "    --version) echo Python 3.12.0 ;;\n"
        '    "-m pip install"*) exit ${PIP_EXIT:-0} ;;\n'
        "esac\n",
        encoding="utf-8",
    )
    base.chmod(0o755)

    def setup(*extras: str, **env: str) -> tuple[int, int]:
        command = ["bash", "scripts/setup.sh", *extras]
        variables = {"PATH": os.environ["PATH"], "PYTHON": str(base)} | env
        code = subprocess.run(command, cwd=checkout, env=variables, capture_output=True, timeout=60).returncode
        return code, notes.read_text(encoding="utf-8").count("-m pip install")

    assert setup(PIP_EXIT="1") == (1, 1)
    assert setup() == (0, 2), "an install that failed is tried again"
    assert "--quiet" not in notes.read_text(encoding="utf-8"), "pip shows its progress"
    assert setup() == (0, 2)
    (checkout / "requirements.txt").write_text("one==2\n", encoding="utf-8")
    assert setup() == (0, 3)
    assert notes.read_text(encoding="utf-8").count("venv --clear") == 1

    (checkout / "requirements-ray.txt").write_text("ray==1\n", encoding="utf-8")
    assert setup() == (0, 3), "only who asks for Ray gets it"
    assert setup("ray", PIP_EXIT="1") == (1, 4)
    assert setup() == (0, 4), "the rest is there in spite of it"
    assert setup("ray") == (0, 5) and setup("ray") == (0, 5)
    assert "--requirement=requirements.txt --requirement=requirements-ray.txt\n" in notes.read_text(encoding="utf-8")
    assert setup("rai") == (2, 5)


def test_setup_refuses_an_old_interpreter(checkout: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/usr/bin/env bash\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    variables = {"PATH": os.environ["PATH"], "PYTHON": str(old)}
    done = subprocess.run(["bash", "scripts/setup.sh"], cwd=checkout, env=variables, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Python 3.10 or newer is needed" in done.stderr


def test_quickstart_runs_every_method_on_both_halves(checkout: Path, tmp_path: Path) -> None:
    """Zero-shot CLIP, MaPLe, CoOp and CoCoOp through their entries, then the table with its label."""
    (checkout / "scripts/setup.sh").write_text("exit 0\n", encoding="utf-8")
    write_stand_in(checkout / ".venv/bin/python")
    variables = {"PATH": os.environ["PATH"], "CALLS": str(tmp_path / "calls")}
    done = subprocess.run(
        ["bash", "scripts/quickstart.sh"], cwd=checkout, env=variables, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    halves = [(option(c, "--trainer"), option(c, "DATASET.SUBSAMPLE_CLASSES")) for c in calls]
    assert halves == [(t, s) for t in ("ZeroshotCLIP", "MaPLe", "CoOp", "CoCoOp") for s in ("base", "new")]
    assert "These are not CLIP's numbers" in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.count("76.66") == 3]) == 4
    assert all(f"{t}: {t}/vit_micro\n" in done.stdout for t in ("ZeroshotCLIP", "MaPLe", "CoOp", "CoCoOp"))
    results = json.loads(next((checkout / "output").rglob("results.json")).read_text(encoding="utf-8"))
    assert results["complete"] is True

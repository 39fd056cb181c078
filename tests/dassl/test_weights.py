"""Where `load_model` looks for weights: a run's folder, a model's folder, a file, and what it says about others."""

from pathlib import Path

import pytest

from dassl.engine.weights import find_weights, weights_below


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "shots_16" / "seed1" / "prompt_learner"
    folder.mkdir(parents=True)
    for epoch in (2, 10, 9):
        (folder / f"model.pth.tar-{epoch}").touch()
    (folder / "checkpoint").write_text("model.pth.tar-9\n")
    return folder.parent


def test_the_run_its_model_folder_and_a_file(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = run / "prompt_learner"
    for given in (run, f"{run}/", learner, f"{learner}/"):
        assert find_weights(given, ["prompt_learner"], 2) == {"prompt_learner": learner / "model.pth.tar-2"}
        assert find_weights(given, ["prompt_learner"]) == {"prompt_learner": learner / "model.pth.tar-9"}
    file = learner / "model.pth.tar-10"
    assert find_weights(file, ["prompt_learner"]) == find_weights(file, ["prompt_learner"], 10)
    assert find_weights(file, ["prompt_learner"]) == {"prompt_learner": file}
    monkeypatch.chdir(learner)
    assert find_weights(".", ["prompt_learner"], 2)["prompt_learner"].samefile("model.pth.tar-2")
    monkeypatch.setenv("HOME", str(run))
    assert find_weights("~/prompt_learner", ["prompt_learner"], 2)["prompt_learner"].is_file()


def test_several_models(run: Path) -> None:
    (run / "net").mkdir()
    names = ["prompt_learner", "net"]
    expected = {name: run / name / "model.pth.tar-2" for name in names}
    assert find_weights(run, names, 2) == expected
    assert find_weights(run / "net" / "..", names, 2).keys() == expected.keys()
    assert find_weights(run / "prompt_learner" / "model.pth.tar-2", names) == expected


def test_the_best_or_else_the_last_saved(run: Path) -> None:
    learner = run / "prompt_learner"

    def found() -> str:
        return find_weights(run, ["prompt_learner"])["prompt_learner"].name

    for pointer in (b"model.pth.tar-\0\xff\xfe", b"", b"../../../etc/passwd", 10**6 * b"x y"):
        (learner / "checkpoint").write_bytes(pointer)
        with pytest.raises(ValueError, match=r"checkpoint holds .*, expected the name of a file in its folder"):
            found()
    (learner / "checkpoint").write_text("model.pth.tar-2\n")
    assert found() == "model.pth.tar-2"
    (learner / "model-best.pth.tar").touch()
    assert found() == "model-best.pth.tar"
    (learner / "model-best.pth.tar").unlink()
    (learner / "checkpoint").unlink()
    assert found() == "model-best.pth.tar", "which load_checkpoint answers with the files that are there"


def test_what_is_not_there_is_answered_with_what_is(run: Path, tmp_path: Path) -> None:
    names = ["prompt_learner"]
    with pytest.raises(FileNotFoundError, match=r"no 'seed2' \(did you mean seed1\?\)"):
        find_weights(run.parent / "seed2", names)
    with pytest.raises(FileNotFoundError, match=r"has no 'shots_1' \(did you mean shots_16\?\)"):
        find_weights(tmp_path / "shots_1" / "seed1" / "prompt_learner", names)
    with pytest.raises(FileNotFoundError, match=r"these runs in it have: .*seed1. Give one of them"):
        find_weights(run.parent, names)
    with pytest.raises(FileNotFoundError, match=r"has no VPT/model.pth.tar-<epoch>. It holds prompt_learner"):
        find_weights(run, ["VPT"])
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"It holds nothing"):
        find_weights(empty, names)
    with pytest.raises(ValueError, match=r"model.pth.tar-2 is a file, so its epoch cannot be chosen"):
        find_weights(run / "prompt_learner" / "model.pth.tar-2", names, 9)


def test_weights_of_any_model(run: Path) -> None:
    assert [path.name for path in weights_below(run)] == ["model.pth.tar-10", "model.pth.tar-2", "model.pth.tar-9"]
    assert weights_below(run) == weights_below(run / "prompt_learner")
    assert weights_below(run / "nowhere") == []

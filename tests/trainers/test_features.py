"""Stored image features: with the bits of an evaluation from the images, found again only where nothing has changed."""

import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision.transforms as T
from torch import Tensor

from dassl.data.data_manager import DatasetWrapper
from dassl.data.datasets import Datum
from dassl.data.loader import Loader
from dassl.engine.state import fingerprint
from experiments import entry, processes
from experiments.methods import METHODS
from experiments.protocols import Request, base2new_train
from tests.dassl.test_full_disk import write_by
from tests.paths import ROOT
from tests.trainers.test_every_method import learned, make
from trainers.base import ClipTrainer
from trainers.features import __main__ as tool
from trainers.features import store as store_module
from trainers.features.compute import FeatureBatches, evaluation_loader, features_of_loader
from trainers.features.keys import key_of_images, key_of_loader, key_of_tower, key_of_views
from trainers.features.store import FeatureStore

IMAGES = 12
BATCH = 5  # the last batch is smaller
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEATURES", str(tmp_path / "features"))
    monkeypatch.setattr(store_module, "_said", set())
    torch.set_num_threads(1)  # of so few images
    return tmp_path / "features"


def trainer_of(name: str, output: Path, prec: str = "fp32", **settings: Any) -> ClipTrainer:
    """A trainer on the demonstration whose test has a few images."""
    trainer = make(name, output, prec)
    trainer.cfg.defrost()
    trainer.cfg.merge_from_list(["DATALOADER.NUM_WORKERS", 0, "DATALOADER.TEST.BATCH_SIZE", BATCH])
    trainer.cfg.merge_from_list([word for key, value in settings.items() for word in (key.replace("__", "."), value)])
    trainer.test_loader = evaluation_loader(trainer.cfg, trainer.dm.dataset.test[:IMAGES])
    return trainer


def logits_of(trainer: ClipTrainer, features: str = "on") -> Tensor:
    """The scores (N, K) that a test gives to the evaluator."""
    trainer.cfg.DATALOADER.FEATURES = features
    seen: list[Tensor] = []
    trainer.evaluator.process = lambda logits, labels: (  # type: ignore[method-assign]
        seen.append(logits),
        type(trainer.evaluator).process(trainer.evaluator, logits, labels),
    )[1]
    trainer.test()
    return torch.cat(seen)


@pytest.fixture
def zero_shot(tmp_path: Path) -> ClipTrainer:
    return trainer_of("zsclip", tmp_path / "run")


def source_of(trainer: ClipTrainer) -> str | None:
    return trainer.run_record.image_features


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.mark.parametrize("name", METHODS)
def test_an_evaluation_from_stored_features_has_the_bits_of_one_from_images(
    name: str, tmp_path: Path, shared_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every method. The first one stores features, and all others find those."""
    monkeypatch.setenv("FEATURES", str(shared_folder))
    trainer = trainer_of(name, tmp_path)
    trainer.set_model_mode("eval")
    trainer.fit()
    model, image = trainer.model.eval(), next(iter(trainer.test_loader))["img"]
    with torch.no_grad():
        before = model.encode_image(image)
        assert torch.equal(model(image), model.from_features(before))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
        assert torch.equal(before, model.encode_image(image)) == model.frozen_images()
    from_images = logits_of(trainer, "off")
    assert source_of(trainer) is None
    if not model.frozen_images():
        assert torch.equal(logits_of(trainer), from_images)
        assert source_of(trainer) is None
        return
    known = bool([*shared_folder.iterdir()])
    assert torch.equal(logits_of(trainer), from_images)
    assert source_of(trainer) == ("stored" if known else "computed")
    monkeypatch.setattr(Loader, "__iter__", None)  # the images are not read
    assert torch.equal(logits_of(trainer), from_images)
    assert source_of(trainer) == "stored"


@pytest.mark.parametrize("prec", ["bf16", "amp"])
def test_other_precisions_have_features_of_their_own(prec: str, tmp_path: Path, folder: Path) -> None:
    logits_of(trainer_of("zsclip", tmp_path / "fp32"))
    trainer = trainer_of("zsclip", tmp_path / prec, prec)
    from_images = logits_of(trainer, "off")
    for expected in ("computed", "stored"):
        assert torch.equal(logits_of(trainer), from_images)
        assert source_of(trainer) == expected
    assert len(list(folder.iterdir())) == 2


def test_results_and_predictions_are_those_of_an_evaluation_from_images(tmp_path: Path) -> None:
    written = {}
    for name in ("off", "on", "again"):
        trainer = trainer_of("zsclip", tmp_path / name, DATALOADER__FEATURES="off" if name == "off" else "on")
        trainer.evaluator._keep_top = True  # TEST.PREDICTIONS
        trainer.final_test()
        results = json.loads((tmp_path / name / "results.json").read_text())
        same = ("accuracy", "correct", "total", "macro_f1", "top5_accuracy", "notes", "precision", "learned_parameters")
        predictions = (tmp_path / name / "predictions.csv").read_bytes()
        written[name] = ([results[key] for key in same], predictions)
        assert results["image_features"] == {"off": None, "on": "computed", "again": "stored"}[name]
        assert results["total"] == IMAGES
    assert written["off"] == written["on"] == written["again"]


@pytest.mark.slow
@pytest.mark.parametrize("randomness", ["portable", "published"])
def test_validation_in_every_epoch_leaves_training_as_it_is(randomness: str, tmp_path: Path) -> None:
    """The published code's loader draws a number in every evaluation; so do stored features."""
    ended = []
    for features in ("off", "on"):
        trainer = make("coop", tmp_path / features, epochs=2)
        trainer.cfg.defrost()
        options = {"TRAIN.RANDOMNESS": randomness, "TEST.FINAL_MODEL": "best_val", "DATALOADER.FEATURES": features}
        options |= {"DATALOADER.NUM_WORKERS": 0, "TEST.NO_TEST": False, "DATALOADER.TRAIN_X.BATCH_SIZE": 23}
        trainer.cfg.merge_from_list([word for pair in options.items() for word in pair])
        trainer.build_data_loader()
        trainer.val_loader = evaluation_loader(trainer.cfg, trainer.dm.dataset.val[:IMAGES])
        trainer.test_loader = trainer.val_loader
        torch.manual_seed(3)
        trainer.train()
        ended.append((learned(trainer), trainer.history[-1]["losses"], torch.get_rng_state(), trainer.best_result))
    (a, *rest_a), (b, *rest_b) = ended
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (rest_a[0], rest_a[2]) == (rest_b[0], rest_b[2])
    assert torch.equal(rest_a[1], rest_b[1])


# ---- where features are not stored -----------------------------------------------------------------------------


def overridden(name: str) -> Callable[[ClipTrainer], None]:
    """Have a method of its own, which does the same."""

    def override(trainer: ClipTrainer) -> None:
        base = getattr(type(trainer), name)
        trainer.__class__ = type("Own", (type(trainer),), {name: lambda self, *args: base(self, *args)})

    return override


def of_model(name: str) -> Callable[[ClipTrainer], None]:
    def override(trainer: ClipTrainer) -> None:
        base = getattr(type(trainer.model), name)
        own = {name: lambda self, *args: base(self, *args)}
        trainer.model.__class__ = type("Own", (type(trainer.model),), own)

    return override


def with_transform(*steps: Any) -> Callable[[ClipTrainer], None]:
    def change(trainer: ClipTrainer) -> None:
        dataset = trainer.test_loader.items.dataset
        dataset.transform = T.Compose([*dataset.transform.transforms, *steps])

    return change


def with_wrapper(trainer: ClipTrainer) -> None:
    trainer.test_loader.items.dataset.__class__ = type("Own", (DatasetWrapper,), {})


def skipping(trainer: ClipTrainer) -> None:
    trainer.cfg.DATASET.ON_BAD_IMAGE = "skip"
    trainer.test_loader = evaluation_loader(trainer.cfg, trainer.dm.dataset.test[:IMAGES])


def unfrozen(trainer: ClipTrainer) -> None:
    trainer.model.image_encoder.proj.requires_grad_(True)


CASES = {
    **{f"trainer's {name}": overridden(name) for name in ("model_inference", "parse_batch_test", "scores", "test")},
    **{f"model's {name}": of_model(name) for name in ("forward", "encode_image")},
    "random transform": with_transform(T.RandomErasing(0)),
    "transform that cannot be described": with_transform(lambda image: image),
    "wrapper of one's own": with_wrapper,
    "unreadable images skipped": skipping,
    "learned in the tower": unfrozen,
}


@pytest.mark.parametrize("case", CASES)
def test_a_test_that_may_compute_something_else_reads_the_images(
    case: str, zero_shot: ClipTrainer, folder: Path
) -> None:
    CASES[case](zero_shot)
    zero_shot.test()
    assert source_of(zero_shot) is None
    assert not folder.exists()


def test_no_folder_for_a_run_that_writes_nothing(zero_shot: ClipTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEATURES")
    zero_shot.cfg.OUTPUT_DIR = zero_shot.output_dir = ""
    zero_shot.test()
    assert source_of(zero_shot) is None


def test_relative_folders_start_at_the_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEATURES", "some/folder")
    assert store_module.given_folder() == ROOT / "some/folder"
    monkeypatch.setenv("FEATURES", "~/f")
    assert store_module.given_folder() == Path.home() / "f"


# ---- what changes features -------------------------------------------------------------------------------------


def test_a_changed_image_is_noticed(zero_shot: ClipTrainer, tmp_path: Path, folder: Path) -> None:
    items = []
    for number, item in enumerate(zero_shot.dm.dataset.test[:4]):
        path = tmp_path / f"{number}.png"
        shutil.copy2(item.impath, path)
        items.append(Datum(str(path), item.label, classname=item.classname))
    zero_shot.test_loader = evaluation_loader(zero_shot.cfg, items)
    first = logits_of(zero_shot)
    shutil.copy(zero_shot.dm.dataset.test[200].impath, items[2].impath)  # another size and time
    changed = logits_of(zero_shot)
    assert source_of(zero_shot) == "computed"
    assert torch.equal(changed, logits_of(zero_shot, "off"))
    assert [torch.equal(*rows) for rows in zip(first, changed, strict=True)] == [True, True, False, True]
    os.utime(items[0].impath, ns=(0, 10**18))
    logits_of(zero_shot)
    assert source_of(zero_shot) == "computed"
    assert len(list(folder.iterdir())) == 3


def test_an_image_that_changes_meanwhile(zero_shot: ClipTrainer, tmp_path: Path, folder: Path, capsys) -> None:
    path = tmp_path / "image.png"
    shutil.copy2(zero_shot.dm.dataset.test[0].impath, path)
    zero_shot.test_loader = evaluation_loader(zero_shot.cfg, [Datum(str(path), 0)])
    encode = zero_shot.model.encode_image

    def slow(image: Tensor) -> Tensor:
        os.utime(path, ns=(0, 10**18))
        return encode(image)

    zero_shot.model.encode_image = slow
    zero_shot.test()
    assert "not stored: the images have changed meanwhile" in capsys.readouterr().out
    assert not list(folder.iterdir())


def test_labels_and_places_do_not_matter_but_order_does(tmp_path: Path) -> None:
    def key(root: str, *names: str) -> Any:
        for name in names:
            path = tmp_path / root / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("pixels")
            os.utime(path, (1, 1))
        return key_of_images([Datum(f"{tmp_path}/{root}/{name}", 0) for name in names], f"{tmp_path}/{root}", "Data")

    assert key("a", "1", "2") == key("b", "1", "2")
    assert key("a", "1", "2") != key("a", "2", "1")
    assert key_of_images([Datum(f"{tmp_path}/none", 0)], str(tmp_path), "Data") is None


def test_weights_architecture_and_arithmetic(zero_shot: ClipTrainer) -> None:
    tower, device = zero_shot.model.image_encoder, torch.device("cpu")

    def key() -> Any:
        return key_of_tower(tower, "fp32", device)

    first = key()
    assert key() == first
    changes: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "weight": (lambda: tower.ln_post.bias[7].add_(1e-6), lambda: tower.ln_post.bias[7].zero_()),
        "heads": (
            lambda: setattr(tower.transformer.resblocks[1].attn, "num_heads", 1),
            lambda: setattr(tower.transformer.resblocks[1].attn, "num_heads", 2),
        ),
        "threads": (lambda: torch.set_num_threads(2), lambda: torch.set_num_threads(1)),
    }
    before = tower.ln_post.bias[7].clone()
    changes["weight"] = changes["weight"][0], lambda: tower.ln_post.bias[7].copy_(before)
    for name, (change, undo) in changes.items():
        change()
        if name == "heads":  # made once while the weights are not changed
            tower.ln_post.bias.add_(0)
        assert key() != first, name
        undo()
        tower.ln_post.bias.add_(0)
        assert key() == first, name
    gelu, tower.transformer.resblocks[0].mlp.gelu = tower.transformer.resblocks[0].mlp.gelu, torch.nn.GELU()
    tower.ln_post.bias.add_(0)
    assert key() != first
    tower.transformer.resblocks[0].mlp.gelu = gelu
    assert key_of_tower(tower, "amp", device) != first


def test_transform_and_batches(zero_shot: ClipTrainer) -> None:
    cfg, items = zero_shot.cfg, zero_shot.dm.dataset.test[:IMAGES]
    keys = [key_of_loader(evaluation_loader(cfg, items))]
    changes = {"INPUT.INTERPOLATION": "bilinear", "INPUT.PIXEL_STD": [1.0, 1.0, 1.0], "INPUT.EXIF_ORIENTATION": True}
    for key, value in (changes | {"DATALOADER.TEST.BATCH_SIZE": 7, "INPUT.TRANSFORMS": ["random_flip"]}).items():
        cfg.merge_from_list([key, value])
        keys.append(key_of_loader(evaluation_loader(cfg, items)))
    assert None not in keys
    assert len({str(key) for key in keys}) == len(keys)
    cfg.merge_from_list(["INPUT.TRANSFORMS", ["random_flip", "gaussian_blur"]])  # of the training alone
    assert key_of_loader(evaluation_loader(cfg, items)) == keys[-1]


# ---- features of a support set ---------------------------------------------------------------------------------


def test_features_of_images_and_of_random_views(zero_shot: ClipTrainer, folder: Path, monkeypatch) -> None:
    cfg, items = zero_shot.cfg, zero_shot.dm.dataset.train_x[:20]
    cfg.merge_from_list(["INPUT.TRANSFORMS", ["random_resized_crop", "random_flip", "normalize"]])
    found: dict[str, list[Tensor]] = {}
    state = torch.get_rng_state()
    for features in ("off", "on", "on again"):
        cfg.DATALOADER.FEATURES = features.split()[0]
        found[features] = [zero_shot.features_of(items), zero_shot.features_of(items, views=2)]
        if features == "on":
            monkeypatch.setattr(Loader, "__iter__", None)
    assert torch.equal(state, torch.get_rng_state())
    plain, views = found["off"]
    assert (plain.shape, views.shape) == ((20, 128), (2, 20, 128))
    assert not torch.equal(views[0], views[1])
    for others in (found["on"], found["on again"]):
        assert torch.equal(others[0], plain)
        assert torch.equal(others[1], views)
    zero_shot.test_loader = evaluation_loader(cfg, items)
    logits_of(zero_shot)
    assert source_of(zero_shot) == "stored"  # the test would compute the same
    first = key_of_views(cfg, 2)
    cfg.SEED = 2
    assert key_of_views(cfg, 2) != first
    cfg.SEED = -1
    assert key_of_views(cfg, 2) is None


# ---- the folder ------------------------------------------------------------------------------------------------

KEY = {"dataset": "Data", "images": 5, "precision": "fp32", "views": 0}


def features(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.linspace(-1, 1, 40).view(5, 8).to(dtype)


def fetch(folder: Path, compute: Callable[[], Tensor] = features, **key: Any) -> tuple[Tensor, bool]:
    return FeatureStore(folder).fetch(KEY | key, "ViT", lambda alive: compute())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_file_is_mapped_and_aligned(dtype: torch.dtype, folder: Path) -> None:
    assert fetch(folder, lambda: features(dtype))[1] is False
    found, stored = fetch(folder)
    assert stored
    assert found.dtype == dtype
    assert torch.equal(found, features(dtype))
    assert found.data_ptr() % 64 == 0
    if sys.platform == "linux":
        assert str(folder) in Path("/proc/self/maps").read_text()
    found += 1  # in this process's memory alone
    assert torch.equal(fetch(folder)[0], features(dtype))


def test_views_keep_their_shape(folder: Path) -> None:
    fetch(folder, lambda: features().view(2, 5, 4), views=2)
    assert torch.equal(fetch(folder, views=2)[0], features().view(2, 5, 4))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "shortened": lambda content: content[:-1],
    "lengthened": lambda content: content + b"\0",
    "a flipped bit": lambda content: content[:-70] + bytes([content[-70] ^ 4]) + content[-69:],
    "zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"not features" * 100,
    "the header's length": lambda content: b"\xff" * 8 + content[8:],
    "the shape": lambda content: content.replace(b"[5, 8]", b"[8, 5]"),
    "another file's": lambda content: content.replace(b"fp32", b"fp16"),
    "other metadata": lambda content: content.replace(b'"key"', b'"kez"'),
    "another kind": lambda content: content.replace(b'"F32"', b'"I32"'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_anew(damage: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch(folder)
    (path,) = folder.iterdir()
    good = path.read_bytes()
    path.write_bytes(DAMAGES[damage](good))
    assert path.read_bytes() != good
    found, stored = fetch(folder)
    assert torch.equal(found, features())
    assert not stored
    assert f"{path} is damaged" in capsys.readouterr().out
    assert fetch(folder)[1]
    assert torch.equal(fetch(folder)[0], features())


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    found, stored = fetch(tmp_path / "file/below")
    assert torch.equal(found, features())
    assert not stored
    (line,) = capsys.readouterr().out.splitlines()
    assert "not stored" in line


def test_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_by(monkeypatch, full)
    assert torch.equal(fetch(folder)[0], features())
    (line,) = capsys.readouterr().out.splitlines()
    assert "not stored" in line
    assert "free space on that disk" in line
    assert not list(folder.iterdir())


@needs_fork
def test_a_store_that_can_only_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(folder)
    monkeypatch.setattr(os, "utime", _refuse)
    monkeypatch.setattr(store_module, "mkdir_if_missing", _refuse)
    assert fetch(folder)[1]
    assert torch.equal(fetch(folder, images=6)[0], features())


def _refuse(*args: Any, **more: Any) -> None:
    raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))


# ---- several processes -----------------------------------------------------------------------------------------


def _worker(folder: Path, calls: Path, started: Any, seconds: float) -> None:
    def compute() -> Tensor:
        with calls.open("a") as file:
            file.write("computed\n")
        started.set()
        time.sleep(seconds)
        return features()

    found, _ = fetch(folder, compute)
    assert torch.equal(found, features())


@pytest.fixture
def workers(folder: Path, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts processes that fetch the same features; ends them after the test."""
    context = multiprocessing.get_context("fork")
    running = []

    def start(count: int, seconds: float) -> SimpleNamespace:
        event, calls = context.Event(), tmp_path / "calls"
        some = [context.Process(target=_worker, args=(folder, calls, event, seconds)) for _ in range(count)]
        running.extend(some)
        for process in some:
            process.start()
        return SimpleNamespace(started=event, calls=calls, processes=some)

    yield start
    for process in running:
        process.kill()
        process.join()


@needs_fork
def test_of_eight_processes_one_computes(workers: Callable[..., Any], folder: Path) -> None:
    started = workers(8, 0.3)
    for process in started.processes:
        process.join(20)
    assert [process.exitcode for process in started.processes] == [0] * 8
    assert started.calls.read_text() == "computed\n"
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]  # neither locks nor temporary files


@needs_fork
def test_a_killed_process_locks_nobody_out(workers: Callable[..., Any], folder: Path) -> None:
    started = workers(1, 60)
    assert started.started.wait(20)
    started.processes[0].kill()
    assert torch.equal(fetch(folder)[0], features())
    assert fetch(folder)[1]
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]


@needs_fork
def test_a_process_that_gives_no_sign_of_life_is_not_waited_for(
    workers: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store_module, "PATIENCE", 0.3)
    started = workers(1, 60)
    assert started.started.wait(20)
    assert torch.equal(fetch(folder)[0], features())
    assert "Waiting for another process" in capsys.readouterr().out
    assert fetch(folder)[1]


# ---- the tool --------------------------------------------------------------------------------------------------


def listed(folder: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> Any:
    assert tool.main([*words, "--folder", str(folder), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_list_and_clear(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for dataset in ("Pets", "Food 101", "Cars"):
        fetch(folder, dataset=dataset, computer=["cpu", "AVX2"], transform="Resize")
    names = {entry["dataset"]: Path(entry["file"]) for entry in listed_first(folder, capsys)}
    foreign, own = folder / "model.safetensors", folder / "Pets-notes.txt"
    foreign.write_text("weights")
    own.write_text("mine")
    names["Cars"].write_bytes(b"damaged")
    os.utime(names["Pets"], (1, 1))
    rows = {entry["dataset"]: entry for entry in listed(folder, "list", capsys=capsys)}
    assert rows.keys() == {"Cars", "Food_101", "Pets"}
    assert (rows["Pets"]["images"], rows["Pets"]["bytes"]) == (5, names["Pets"].stat().st_size)
    assert rows["Pets"]["used"] == 1
    assert [entry["damaged"] for entry in rows.values()] == [True, False, False]

    assert tool.main(["list", "--folder", str(folder)]) == 0
    table = capsys.readouterr().out
    assert "Food_101" in table
    assert "3 files" in table.splitlines()[-1]

    assert [entry["dataset"] for entry in listed(folder, "clear", "--unused-for", "30", capsys=capsys)] == ["Pets"]
    assert [entry["dataset"] for entry in listed(folder, "clear", "--dataset", "cars", capsys=capsys)] == ["Cars"]
    (folder / ".Pets-1.safetensors.lock").touch()
    assert tool.main(["clear", "--folder", str(folder)]) == 0
    assert "1 files" in capsys.readouterr().out
    assert sorted(folder.iterdir()) == [own, foreign]


def listed_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    return listed(folder, "list", capsys=capsys)


def test_the_tool_starts_without_torch(folder: Path) -> None:
    fetch(folder)
    command = [sys.executable, "-X", "importtime", "-m", "trainers.features", "list", "--folder", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "1 files" in done.stdout
    assert not [line for line in done.stderr.splitlines() if line.endswith(" torch")]


# ---- experiments -----------------------------------------------------------------------------------------------


def test_jobs_share_the_folder_beside_their_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    job = base2new_train(Request(METHODS["coop"], "emoji", 1, output="output/mine"))
    assert job.features == os.environ["FEATURES"]
    monkeypatch.delenv("FEATURES")
    assert job.features == "output/mine/features"


@pytest.mark.parametrize(("given", "expected"), [("", "{output}/features"), ("own", "{caller}/own"), ("/abs", "/abs")])
def test_a_script_hands_the_folder_on(given: str, expected: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("FEATURES")
    seen = []
    monkeypatch.setattr(processes, "run", lambda command, env: seen.append(env) or processes.Ended(0, ""))
    environment = {"OUTPUT": str(tmp_path / "runs"), "FEATURES": given}
    call = entry.make_call("scripts/zsclip/zeroshot.sh", "zeroshot", str(tmp_path), "zsclip", environment)
    entry.run_entry(call, ["emoji"])
    assert seen[0]["FEATURES"] == expected.format(output=tmp_path / "runs", caller=tmp_path)


def test_the_batches_of_features_are_those_of_the_loader(zero_shot: ClipTrainer) -> None:
    loader = zero_shot.test_loader
    encode = zero_shot.model.encode_image
    batches = FeatureBatches(features_of_loader(encode, loader), loader)
    assert len(batches) == len(loader) == 3
    with torch.no_grad():
        for ours, theirs in zip(batches, loader, strict=True):
            assert ours["impath"] == theirs["impath"]
            assert torch.equal(ours["label"], theirs["label"])
            assert fingerprint(ours["features"]) == fingerprint(encode(theirs["img"]))

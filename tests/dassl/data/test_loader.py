"""Batches do not depend on the number of workers; unreadable images are named or skipped."""

import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.memory import memory
from dassl.data import loader as loader_module
from dassl.data.data_manager import DatasetWrapper, build_data_loader
from dassl.data.datasets import Datum
from dassl.data.image_cache import ImageCache
from dassl.data.loader import BadImageError, item_rng, item_seed
from dassl.data.transforms import build_transform
from dassl.utils.failures import WorkerError
from tests.dassl.data.pictures import make_cfg, save_items, save_picture


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return save_items(tmp_path_factory.mktemp("pictures"), per_class=6, num_classes=3)


def make_loader(cfg, items, is_train=True, tfm="build", wrapper=None):
    tfm = build_transform(cfg, is_train=is_train) if tfm == "build" else tfm
    sampler = "RandomSampler" if is_train else "SequentialSampler"
    return build_data_loader(cfg, sampler, items, batch_size=4, tfm=tfm, is_train=is_train, dataset_wrapper=wrapper)


def epochs(loader, count=3, seed=5):
    """The images and indices of some epochs from one seed, and the generator's state after them."""
    torch.manual_seed(seed)
    batches = [[(b["img"], b["index"]) for b in loader] for _ in range(count)]
    return batches, torch.get_rng_state()


def equal(left, right):
    (batches_a, state_a), (batches_b, state_b) = left, right
    assert [len(epoch) for epoch in batches_a] == [len(epoch) for epoch in batches_b]
    for epoch_a, epoch_b in zip(batches_a, batches_b, strict=True):
        for (img_a, index_a), (img_b, index_b) in zip(epoch_a, epoch_b, strict=True):
            assert torch.equal(index_a, index_b)
            assert torch.equal(img_a, img_b)
    assert torch.equal(state_a, state_b)


class NoisyWrapper(DatasetWrapper):
    """A third-party wrapper that draws from all three generators."""

    def __getitem__(self, idx):
        output = super().__getitem__(idx)
        output["img"] = output["img"] + random.random() + np.random.rand() + torch.rand(())
        return output


@pytest.mark.parametrize("wrapper", [DatasetWrapper, NoisyWrapper])
@pytest.mark.parametrize("num_shots", [-1, 16])
def test_training_batches_are_the_same_for_any_number_of_workers(items, wrapper, num_shots):
    runs = [
        epochs(make_loader(make_cfg(DATALOADER__NUM_WORKERS=n, DATASET__NUM_SHOTS=num_shots), items, wrapper=wrapper))
        for n in (0, 1, 2)
    ]
    equal(runs[0], runs[1])
    equal(runs[0], runs[2])


def test_an_epoch_repeats_when_the_main_generator_is_restored(items):
    loader = make_loader(make_cfg(), items)
    (whole, _) = epochs(loader, count=3)
    torch.manual_seed(5)
    for _ in loader:
        pass
    state = torch.get_rng_state()
    fresh = make_loader(make_cfg(DATALOADER__NUM_WORKERS=2), items)  # as in a resumed process
    torch.set_rng_state(state)
    rest = [[(b["img"], b["index"]) for b in fresh] for _ in range(2)]
    for epoch_a, epoch_b in zip(whole[1:], rest, strict=True):
        assert all(torch.equal(a, b) for pair in zip(epoch_a, epoch_b, strict=True) for a, b in zip(*pair, strict=True))


def test_epochs_differ_in_order_and_in_crops(items):
    (first, second), _ = epochs(make_loader(make_cfg(), items), count=2)
    order = [torch.cat([index for _, index in epoch]).tolist() for epoch in (first, second)]
    assert order[0] != order[1]
    assert not torch.equal(first[0][0], second[0][0])


def test_a_training_epoch_draws_one_number_and_leaves_the_other_generators_alone(items):
    loader = make_loader(make_cfg(), items, wrapper=NoisyWrapper)
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    list(loader)
    drawn = (torch.rand(()).item(), random.random(), np.random.rand())
    torch.manual_seed(0)
    torch.empty((), dtype=torch.int64).random_()
    random.seed(0)
    np.random.seed(0)
    assert drawn == (torch.rand(()).item(), random.random(), np.random.rand())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_draws_nothing(items, num_workers):
    loader = make_loader(make_cfg(DATALOADER__NUM_WORKERS=num_workers), items, is_train=False)
    before = torch.get_rng_state()
    indices = torch.cat([batch["index"] for batch in loader])
    assert torch.equal(torch.get_rng_state(), before)
    assert indices.tolist() == list(range(len(items)))


def test_item_seeds_differ_between_items_and_epochs():
    assert len({item_seed(epoch, index) for epoch in range(50) for index in range(50)}) == 2500


def test_item_rng_restores_the_callers_generators_after_an_error():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with pytest.raises(KeyError), item_rng(1, 2):
        torch.rand(3)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), state)


def test_the_last_incomplete_training_batch_is_dropped_unless_it_is_the_only_one(items):
    assert [len(batch["label"]) for batch in make_loader(make_cfg(), items)] == [4, 4, 4, 4]
    assert [len(batch["label"]) for batch in make_loader(make_cfg(), items[:3])] == [3]
    assert [len(batch["label"]) for batch in make_loader(make_cfg(), items, is_train=False)] == [4, 4, 4, 4, 2]
    tfm = build_transform(make_cfg(), is_train=True)
    kept = build_data_loader(make_cfg(), "RandomSampler", items, batch_size=4, tfm=tfm, drop_last=False)
    assert [len(batch["label"]) for batch in kept] == [4, 4, 4, 4, 2]


def test_no_items_is_an_error():
    with pytest.raises(ValueError, match=r"has no items for this loader: check DATASET\.ROOT"):
        make_loader(make_cfg(), [])


def test_a_batch_has_the_published_keys(items):
    batch = next(iter(make_loader(make_cfg(), items, is_train=False)))
    assert batch.keys() == {"img", "label", "domain", "impath", "index"}
    assert batch["img"].shape == (4, 3, 12, 12)
    assert batch["impath"] == [item.impath for item in items[:4]]


def test_several_transforms_views_and_the_plain_image(items):
    cfg = make_cfg(DATALOADER__K_TRANSFORMS=2, DATALOADER__RETURN_IMG0=True)
    tfm = build_transform(cfg)
    item = DatasetWrapper(cfg, items, transform=[tfm, tfm], is_train=True)[0]
    assert {"img", "img2", "img0"} <= item.keys()
    assert len(item["img"]) == len(item["img2"]) == 2
    assert item["img0"].shape == (3, 12, 12)
    with pytest.raises(ValueError, match="K_TRANSFORMS is 2, but there is no transform"):
        DatasetWrapper(cfg, items, is_train=True)


# Images that cannot be read


@pytest.fixture
def damaged(tmp_path):
    """Six pictures, of which the second is truncated and the fifth is missing."""
    items = save_items(tmp_path, per_class=6, num_classes=1)
    content = save_picture(tmp_path / "0_1.jpg", size=(60, 60)).read_bytes()
    (tmp_path / "0_1.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "0_4.jpg").unlink()
    return items


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("is_train", [True, False])
def test_a_bad_image_is_an_error_that_names_it(damaged, num_workers, is_train):
    loader = make_loader(make_cfg(DATALOADER__NUM_WORKERS=num_workers, DATASET__NAME="Pets"), damaged[:4], is_train)
    with pytest.raises(BadImageError, match=r"0_1\.jpg.*(?s:.)*python -m datasets check Pets --images") as error:
        list(loader)
    assert "Traceback" not in str(error.value)  # of the worker


def test_a_missing_image_is_an_error_that_names_it(damaged):
    with pytest.raises(BadImageError, match=r"No image at .*0_4\.jpg"):
        list(make_loader(make_cfg(), damaged[2:], is_train=False))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_skipping_leaves_bad_images_out_of_an_evaluation_and_reports_them(damaged, num_workers, capfd):
    cfg = make_cfg(DATALOADER__NUM_WORKERS=num_workers, DATASET__ON_BAD_IMAGE="skip")
    indices = torch.cat([batch["index"] for batch in make_loader(cfg, damaged, is_train=False)]).tolist()
    assert indices == [0, 2, 3, 5]
    report = capfd.readouterr().out
    assert "2 of 6 evaluation images cannot be read and were left out" in report
    assert "0_1.jpg" in report and "0_4.jpg" in report


def test_skipping_replaces_bad_training_images_so_that_batches_stay_full(damaged, capfd):
    loader = make_loader(make_cfg(DATASET__ON_BAD_IMAGE="skip"), damaged)
    torch.manual_seed(0)
    batches = [batch for _ in range(4) for batch in loader]
    assert all(len(batch["index"]) == 4 for batch in batches)
    assert not {1, 4} & {index for batch in batches for index in batch["index"].tolist()}
    assert "2 of 6 training images cannot be read and were replaced" in capfd.readouterr().out


def test_a_whole_batch_of_bad_images_is_left_out(damaged):
    cfg = make_cfg(DATASET__ON_BAD_IMAGE="skip")
    loader = make_loader(cfg, [damaged[1]] * 4 + [damaged[0]], is_train=False)
    assert [batch["index"].tolist() for batch in loader] == [[4]]


def test_only_bad_training_images_is_an_error_even_when_skipping(damaged):
    loader = make_loader(make_cfg(DATASET__ON_BAD_IMAGE="skip"), [damaged[1], damaged[4]])
    with pytest.raises(BadImageError, match="None of the 2 training images can be read"):
        list(loader)


def test_an_unknown_action_for_bad_images_is_an_error(items):
    with pytest.raises(ValueError, match=r"'skp' is not available \(did you mean skip\?\)"):
        make_loader(make_cfg(DATASET__ON_BAD_IMAGE="skp"), items)


# The cache of decoded images


@pytest.mark.parametrize("num_workers", [0, 2])
def test_cached_images_are_the_decoded_ones_and_are_read_once(items, num_workers):
    cfg = make_cfg(DATALOADER__NUM_WORKERS=num_workers, DATASET__NUM_SHOTS=6, INPUT__NO_TRANSFORM=True)
    loader = make_loader(cfg, items, tfm=np.array)
    cache = loader.dataset._cache
    for _ in range(3):
        for batch in loader:
            for index, pixels in zip(batch["index"].tolist(), batch["img"], strict=True):
                with Image.open(items[index].impath) as image:
                    assert np.array_equal(pixels.numpy(), np.array(image.convert("RGB")))
    assert len(cache) == len(items)
    assert cache.used == len(items) * 20 * 16 * 3


def test_the_cache_stays_within_its_budget():
    cache = ImageCache(10, budget=5 * 300)
    image = Image.new("RGB", (10, 10), (1, 2, 3))
    for index in range(10):
        cache.put(index, image)
        cache.put(index, image)
    assert len(cache) == 5 and cache.used == 1500
    assert cache.get(4).getpixel((9, 9)) == (1, 2, 3)
    assert cache.get(5) is None


def test_only_few_shot_training_sets_are_cached(items):
    assert make_loader(make_cfg(DATASET__NUM_SHOTS=1), items).dataset._cache is not None
    assert make_loader(make_cfg(DATASET__NUM_SHOTS=-1), items).dataset._cache is None
    assert make_loader(make_cfg(DATASET__NUM_SHOTS=1, DATALOADER__CACHE_MB=0), items).dataset._cache is None
    assert make_loader(make_cfg(DATASET__NUM_SHOTS=1), items, is_train=False).dataset._cache is None


def test_a_cache_sent_to_a_spawned_worker_starts_empty_with_its_share_of_the_budget():
    cache = ImageCache(4, budget=2**20, num_workers=4)
    cache.put(0, Image.new("RGB", (10, 10)))
    copy = pickle.loads(pickle.dumps(cache))
    assert len(copy) == 0 and len(cache) == 1
    assert copy._budget == 2**18


@pytest.mark.parametrize("num_shots", [-1, 1])  # with 1, from the cache the second time
def test_the_orientation_of_photos_is_applied_on_request_only(tmp_path, num_shots):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=exif)
    items = [Datum(str(tmp_path / "a.jpg"))]
    for turned, size in ((False, (8, 6)), (True, (6, 8))):
        cfg = make_cfg(DATASET__NUM_SHOTS=num_shots, INPUT__EXIF_ORIENTATION=turned)
        dataset = DatasetWrapper(cfg, items, is_train=True)
        assert [dataset[0]["img"].size for _ in range(2)] == [size, size]


# Worker processes


def workers(loader) -> list[int]:
    return [worker.pid for worker in loader._iterator._workers]


def with_short_waits(monkeypatch) -> None:
    monkeypatch.setattr(loader_module._WatchedWorkers._try_get_data, "__defaults__", (0.1,))
    monkeypatch.setattr(loader_module, "STOPPED_SECONDS", 0.5)


class Slow(DatasetWrapper):
    """Items that take so long that a worker is always at work."""

    def __getitem__(self, idx):
        time.sleep(0.1)
        return super().__getitem__(idx)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    ("name", "reason"), [("SIGKILL", "memory"), ("SIGSEGV", "crash"), ("SIGBUS", "/dev/shm"), ("SIGTERM", "scheduler")]
)
def test_a_worker_that_is_killed_is_named_with_the_signal_and_the_usual_reason(items, capfd, name, reason) -> None:
    loader = make_loader(make_cfg(DATALOADER__NUM_WORKERS=2), items, wrapper=Slow)
    batches = iter(loader)
    next(batches)
    capfd.readouterr()
    victim = workers(loader)[1]
    subprocess.run(["kill", f"-{name}", str(victim)], check=True)  # PyTorch's workers end well if their parent asks
    with pytest.raises(WorkerError, match=rf"worker process {victim} was killed by {name}.*{reason}") as error:
        for _ in range(3):
            list(loader)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a process's state is known on Linux")
def test_a_stopped_worker_ends_the_run_and_the_other_workers(items, monkeypatch, capfd) -> None:
    with_short_waits(monkeypatch)
    loader = make_loader(make_cfg(DATALOADER__NUM_WORKERS=2), items, wrapper=Slow)
    list(loader)
    pids = workers(loader)
    os.kill(pids[0], signal.SIGSTOP)
    with pytest.raises(WorkerError, match=rf"worker process {pids[0]} has been stopped .*SIGSTOP"):
        list(loader)
    assert f"`kill -CONT {pids[0]}` continues it" in capfd.readouterr().out
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a process's state is known on Linux")
def test_a_worker_that_is_stopped_for_a_moment_goes_on(items, monkeypatch, capfd) -> None:
    with_short_waits(monkeypatch)
    monkeypatch.setattr(loader_module, "STOPPED_SECONDS", 30)
    loader = make_loader(make_cfg(DATALOADER__NUM_WORKERS=1), items)
    list(loader)
    os.kill(workers(loader)[0], signal.SIGSTOP)
    threading.Timer(0.6, os.kill, (workers(loader)[0], signal.SIGCONT)).start()
    assert len(list(loader)) == 4
    assert capfd.readouterr().out.count("is stopped") == 1


def test_a_late_batch_is_said_once(items, monkeypatch, capfd) -> None:
    with_short_waits(monkeypatch)
    monkeypatch.setattr(loader_module, "SLOW_SECONDS", 0.2)

    class Late(DatasetWrapper):
        def __getitem__(self, idx):
            time.sleep(0.8 if idx == 0 else 0)
            return super().__getitem__(idx)

    loader = make_loader(make_cfg(DATALOADER__NUM_WORKERS=1), items[:4], is_train=False, wrapper=Late)
    assert len(list(loader)) == 1
    assert capfd.readouterr().out.count("the workers are still reading images") == 1


@pytest.mark.parametrize(
    ("kind", "raised"),
    [("OSError", OSError), ("ValueError", ValueError), ("MemoryError", MemoryError)],
)
def test_an_error_in_a_worker_has_its_message_alone(items, kind, raised) -> None:
    class Failing(DatasetWrapper):
        def __getitem__(self, idx):
            raise raised("two lines:\n  of a message")

    loader = make_loader(make_cfg(DATALOADER__NUM_WORKERS=1), items, wrapper=Failing)
    with pytest.raises(raised) as error:
        list(loader)
    assert str(error.value) == "two lines:\n  of a message"


def test_a_mistake_in_a_worker_keeps_its_traceback(items) -> None:
    class Wrong(DatasetWrapper):
        def __getitem__(self, idx):
            return {}["img"]

    with pytest.raises(KeyError, match="in DataLoader worker process 0"):
        list(make_loader(make_cfg(DATALOADER__NUM_WORKERS=1), items, wrapper=Wrong))


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in multiprocessing.get_all_start_methods() if m != "fork"])
def test_workers_that_are_not_forked_give_the_same_batches(items, damaged, method) -> None:
    found = []
    for workers_and_method in ((0, None), (2, method)):
        options = {"DATALOADER__NUM_WORKERS": workers_and_method[0], "DATALOADER__K_TRANSFORMS": 2}
        options |= {"DATASET__NUM_SHOTS": 6, "DATASET__ON_BAD_IMAGE": "skip", "DATALOADER__RETURN_IMG0": True}
        loader = make_loader(make_cfg(**options), [*items, *damaged])
        loader.multiprocessing_context = workers_and_method[1]
        torch.manual_seed(1)
        found.append([(b["index"], *b["img"], b["img0"]) for _ in range(2) for b in loader])
    for a, b in zip(*found, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_what_is_sent_to_a_worker_is_small(items) -> None:
    many = [Datum(impath=f"/data/pictures/{number:06}.jpg", label=0, classname="cat") for number in range(10_000)]
    loader = make_loader(make_cfg(DATASET__NUM_SHOTS=16), many)
    assert len(ForkingPickler.dumps(loader.items)) < 150 * len(many)


def test_more_workers_than_cores_are_said_once_without_a_warning(items, capfd, recwarn) -> None:
    loader_module._say_too_many.cache_clear()
    for _ in range(2):
        make_loader(make_cfg(DATALOADER__NUM_WORKERS=999), items)
    assert not recwarn.list
    assert capfd.readouterr().out.count("DATALOADER.NUM_WORKERS is 999, this process may use") == 1


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_memory_of_workers_does_not_grow_over_200_epochs(items) -> None:
    loader = make_loader(make_cfg(DATALOADER__NUM_WORKERS=2, DATASET__NUM_SHOTS=6), items)
    private = []
    for epoch in range(1, 201):
        list(loader)
        if epoch in (10, 200):
            private.append(sum(memory(pid)["private"] for pid in workers(loader)))
    assert private[1] < private[0] + 4  # MiB, of two workers

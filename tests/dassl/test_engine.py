"""Training and testing as trainers, plug-ins and train.py use them."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
from dassl.engine import SimpleNet, SimpleTrainer, TrainerBase, TrainerX, TrainerXU, build_trainer
from dassl.engine.build import TRAINER_REGISTRY
from dassl.modeling import BACKBONE_REGISTRY, Backbone
from dassl.utils import load_checkpoint, read_results, set_random_seed
from tests.dassl.data.pictures import save_items
from tests.dassl.tiny import Points, Stop, TinyTrainer, stop_after_epoch, tiny_cfg


def trained(cfg, trainer_class=TinyTrainer):
    set_random_seed(cfg.SEED)
    trainer = trainer_class(cfg)
    trainer.train()
    return trainer


class NoValidation(TinyTrainer):
    def build_data_loader(self) -> None:
        super().build_data_loader()
        self.val_loader = None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, trained(tiny_cfg(folder, "TEST.PER_CLASS_RESULT", True, "DATASET.NUM_SHOTS", 8))


def test_a_run_folder(run) -> None:
    folder, _ = run
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {"config.yaml", "history.jsonl", "net", "results.json", "resume.pth.tar", "tensorboard"}
    assert {path.name for path in (folder / "net").iterdir()} == {"checkpoint", "model.pth.tar-4"}
    assert "MAX_EPOCH: 4" in (folder / "config.yaml").read_text()


def test_results(run) -> None:
    folder, trainer = run
    results = read_results(folder / "results.json")
    logits = trainer.model.eval()(trainer.test_loader.dataset.img)
    correct = int((logits.argmax(1) == trainer.test_loader.dataset.label).sum())
    assert (results["correct"], results["total"]) == (correct, 30)
    assert results["accuracy"] == 100 * correct / 30
    assert (results["protocol"], results["classes"], results["shots"], results["split"]) == (
        "few_shot",
        "all",
        8,
        "test",
    )
    assert (results["trainer"], results["seed"], results["epoch"]) == ("TinyTrainer", 5, 4)
    assert results["learned_parameters"] == 6 + 16 * 3 + 3
    assert results["total_parameters"] == 6 + (6 * 16 + 16 + 32) + 2 * (16 * 3 + 3)
    assert sum(row["correct"] for row in results["per_class"]) == correct
    assert results["peak_memory_bytes"] > 2**26
    assert results["seconds"]["train"] == pytest.approx(
        trainer.run_record.fit_seconds + sum(row["seconds"] for row in trainer.history)
    )
    assert results["versions"]["torch"] == torch.__version__


def test_history(run) -> None:
    folder, _ = run
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[0]["lr"] == 1e-5 and rows[1]["lr"] == 0.05
    assert set(rows[0]["losses"]) == {"loss", "acc"}
    assert rows[0]["images_per_second"] == pytest.approx(24 / rows[0]["seconds"])


def test_curves(run) -> None:
    folder, trainer = run
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/acc", "train/lr", "test/accuracy", "test/macro_f1"} <= set(events.Tags()["scalars"])
    assert [point.step for point in events.Scalars("train/loss")] == list(range(24))
    last = events.Scalars("train/loss")[-1].value
    assert last == pytest.approx(trainer.history[-1]["losses"]["loss"], rel=1e-6)


def test_printed_lines(tmp_path, capsys) -> None:
    trained(tiny_cfg(tmp_path, "TRAIN.PRINT_FREQ", 3))
    printed = capsys.readouterr().out
    number = r"\d+\.\d{3} \(\d+\.\d{3}\)"
    meter = r"\d+\.\d{4} \(\d+\.\d{4}\)"
    pattern = rf"epoch \[(\d)/4\] batch \[(\d)/6\] time {number} data {number} loss {meter} acc {meter} lr (\S+) eta "
    lines = re.findall(pattern, printed)
    assert [line[:2] for line in lines] == [(str(epoch), batch) for epoch in (1, 2, 3, 4) for batch in "36"]
    assert [line[2] for line in lines[:4]] == ["1.0000e-05"] * 2 + ["5.0000e-02"] * 2
    assert re.search(
        r"Finish training\nDeploy the last-epoch model\nEvaluate on the \*test\* set\n=> result\n", printed
    )
    assert re.search(r"\* accuracy: \d+\.\d\d%\n", printed)
    assert re.search(r"Elapsed: 0:00:0\d\n", printed)


def test_few_batches_are_all_printed(tmp_path, capsys) -> None:
    trained(tiny_cfg(tmp_path, "OPTIM.MAX_EPOCH", 1))
    assert len(re.findall(r"^epoch \[1/1\] batch", capsys.readouterr().out, flags=re.MULTILINE)) == 6


def test_checkpoint_frequency(tmp_path) -> None:
    trained(tiny_cfg(tmp_path, "TRAIN.CHECKPOINT_FREQ", 3))
    saved = sorted(path.name for path in (tmp_path / "net").iterdir())
    assert saved == ["checkpoint", "model.pth.tar-3", "model.pth.tar-4"]


def test_the_best_model_is_the_one_tested(tmp_path, capsys) -> None:
    class BestIsSecond(TinyTrainer):
        def test(self, split=None):
            if split == "val":
                return {0: 10.0, 1: 90.0, 2: 90.0, 3: 20.0}[self.epoch]
            return super().test(split)

    trained(tiny_cfg(tmp_path, "TEST.FINAL_MODEL", "best_val"), BestIsSecond)
    best = load_checkpoint(tmp_path / "net" / "model-best.pth.tar")
    assert (best["epoch"], best["val_result"]) == (2, 90.0)
    assert read_results(tmp_path / "results.json")["epoch"] == 2
    assert "Deploy the model with the best val performance" in capsys.readouterr().out


def test_the_best_model_needs_validation_data_and_a_folder(tmp_path) -> None:
    with pytest.raises(ValueError, match="best_val needs validation data, the dataset has none"):
        trained(tiny_cfg(tmp_path, "TEST.FINAL_MODEL", "best_val"), NoValidation)
    with pytest.raises(ValueError, match="OUTPUT_DIR, which is empty"):
        trained(tiny_cfg("", "TEST.FINAL_MODEL", "best_val"))


def test_without_an_output_folder_nothing_is_written(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    trained(tiny_cfg("", "OPTIM.MAX_EPOCH", 1))
    assert list(tmp_path.iterdir()) == []


def test_without_a_test_the_run_is_complete_all_the_same(tmp_path) -> None:
    trained(tiny_cfg(tmp_path, "TEST.NO_TEST", True))
    results = read_results(tmp_path / "results.json")
    assert (results["accuracy"], results["epoch"]) == (None, 4)


def test_evaluation_of_a_saved_model(run, tmp_path) -> None:
    folder, trainer = run
    other = TinyTrainer(tiny_cfg(tmp_path))
    other.load_model(folder, epoch=4)
    accuracy = other.final_test()
    results = read_results(tmp_path / "results.json")
    assert results["accuracy"] == accuracy == read_results(folder / "results.json")["accuracy"]
    assert (results["epoch"], results["seconds"]["train"]) == (4, 0)
    assert not (tmp_path / "tensorboard").exists()
    assert torch.equal(other.model.teacher.weight, trainer.model.teacher.weight)


def test_a_plugin_with_its_own_test_and_epoch(tmp_path) -> None:
    """Methods are overridden as public plug-ins do it: without calling super."""

    class Plugin(TinyTrainer):
        def run_epoch(self) -> None:
            self.set_model_mode("train")
            self.num_batches = len(self.train_loader_x)
            for self.batch_idx, batch in enumerate(self.train_loader_x):  # noqa: B020
                summary = self.forward_backward(batch)
                self.write_scalar("train/loss", summary["loss"], self.epoch * self.num_batches + self.batch_idx)

        @torch.no_grad()
        def test(self, split=None):
            self.set_model_mode("eval")
            self.evaluator.reset()
            for batch in self.test_loader:
                image, label = self.parse_batch_test(batch)
                self.evaluator.process(self.model_inference(image), label)
            return next(iter(self.evaluator.evaluate().values()))

    trainer = trained(tiny_cfg(tmp_path), Plugin)
    results = read_results(tmp_path / "results.json")
    assert results["accuracy"] == 100 * results["correct"] / 30
    assert results["split"] == "test"
    assert [row["losses"] for row in trainer.history] == [{}] * 4


def test_validation_during_training_writes_no_results(tmp_path) -> None:
    class Stops(TinyTrainer):
        def after_epoch(self) -> None:
            super().after_epoch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tiny_cfg(tmp_path, "TEST.FINAL_MODEL", "best_val"), Stops)
    assert not (tmp_path / "results.json").exists()


def test_a_loss_that_is_not_finite(tmp_path) -> None:
    class Explodes(TinyTrainer):
        def forward_backward(self, batch):
            self.model_backward_and_update(self.model(batch["img"]).sum() * float("inf"))

    message = r"infinite or NaN! \(-?(inf|nan) in epoch 1, batch 1 at learning rate 1e-05.\) Lower OPTIM.LR"
    with pytest.raises(FloatingPointError, match=message):
        trained(tiny_cfg(tmp_path), Explodes)


@pytest.mark.parametrize(("scaler", "steps"), [(None, 1), (torch.amp.GradScaler("cpu", enabled=False), 10)])
def test_a_reported_loss_that_is_not_finite(tmp_path, scaler, steps) -> None:
    """A plug-in's own backward pass; a gradient scaler may skip a few such steps."""
    count = []

    class Explodes(TinyTrainer):
        def build_model(self) -> None:
            super().build_model()
            self.scaler = scaler

        def forward_backward(self, batch):
            count.append(1)
            return {"loss": float("nan"), "acc": 0.0}

    with pytest.raises(FloatingPointError, match="nan in epoch"):
        trained(tiny_cfg(tmp_path), Explodes)
    assert len(count) == steps


def test_no_training_data(tmp_path) -> None:
    class Empty(TinyTrainer):
        def build_data_loader(self) -> None:
            super().build_data_loader()
            self.train_loader_x = DataLoader(Points(0, False), batch_size=4)

    with pytest.raises(ValueError, match=r"make no batch: are there any images \(DATASET.ROOT"):
        trained(tiny_cfg(tmp_path), Empty)


@pytest.mark.parametrize(("count_iter", "batches"), [("train_x", 6), ("train_u", 10), ("smaller_one", 6)])
def test_labelled_and_unlabelled_data(tmp_path, count_iter, batches) -> None:
    steps = []

    class SemiSupervised(TrainerXU):
        def build_data_loader(self) -> None:
            TinyTrainer.build_data_loader(self)
            self.train_loader_u = DataLoader(Points(50, False), batch_size=5)

        build_model = TinyTrainer.build_model

        def forward_backward(self, batch_x, batch_u):
            input_x, label_x, input_u = self.parse_batch_train(batch_x, batch_u)
            steps.append((len(input_x), len(label_x), len(input_u)))
            return {"loss_x": 0.0}

    trainer = trained(tiny_cfg(tmp_path, "OPTIM.MAX_EPOCH", 1, "TRAIN.COUNT_ITER", count_iter), SemiSupervised)
    assert steps == [(4, 4, 5)] * batches
    assert trainer.num_batches == batches
    with pytest.raises(ValueError, match="did you mean smaller_one"):
        trained(tiny_cfg(tmp_path / "x", "OPTIM.MAX_EPOCH", 1, "TRAIN.COUNT_ITER", "smaller"), SemiSupervised)


def test_build_trainer(tmp_path, capsys) -> None:
    TRAINER_REGISTRY._do_register("TinyTrainer", TinyTrainer, force=True)
    cfg = tiny_cfg(tmp_path, "VERBOSE", True)
    assert type(build_trainer(cfg)) is TinyTrainer
    assert "Loading trainer: TinyTrainer" in capsys.readouterr().out
    cfg.TRAINER.NAME = "Other"
    assert type(build_trainer(cfg, "TinyTrainer")) is TinyTrainer
    cfg.TRAINER.NAME = "Tinytrainer"
    with pytest.raises(ValueError, match=r"'Tinytrainer' is not in the TRAINER registry \(did you mean TinyTrainer"):
        build_trainer(cfg)


def test_registering_models() -> None:
    trainer = TrainerBase()
    model = nn.Linear(1, 1)
    trainer.register_model("a", model)
    trainer.register_model("b", nn.Linear(1, 1), torch.optim.SGD(model.parameters(), lr=0.1))
    assert trainer.get_model_names() == ["a", "b"] and trainer.get_model_names("a") == ["a"]
    with pytest.raises(ValueError, match="'a' is already registered"):
        trainer.register_model("a", model)
    with pytest.raises(ValueError, match="'c' is not available"):
        trainer.get_model_names(["c"])
    trainer.set_model_mode("eval", "a")
    assert not model.training and trainer._models["b"].training
    with pytest.raises(ValueError, match=r"'evaluate' is not available .*did you mean eval"):
        trainer.set_model_mode("evaluate")
    trainer.update_lr()  # no schedulers: nothing to do
    trainer.write_scalar("x", 1.0)  # no writer: nothing to do
    trainer.close_writer()

    class Forgetful(TrainerBase):
        def __init__(self) -> None:
            self.register_model("a", model)

    with pytest.raises(AttributeError, match=r"super\(\).__init__\(\)"):
        Forgetful()


def test_only_the_named_model_is_updated() -> None:
    trainer = TrainerBase()
    models = {name: nn.Linear(1, 1, bias=False) for name in "ab"}
    for name, model in models.items():
        trainer.register_model(name, model, torch.optim.SGD(model.parameters(), lr=1.0))
    before = {name: model.weight.item() for name, model in models.items()}
    trainer.model_backward_and_update(models["a"].weight.sum() + models["b"].weight.sum(), names=["a"])
    assert models["a"].weight.item() == before["a"] - 1
    assert models["b"].weight.item() == before["b"]


def test_simple_trainer_builds_the_configured_network(tmp_path) -> None:
    class Flat(Backbone):
        def __init__(self, pretrained: bool = True) -> None:
            super().__init__()
            self._out_features = 6

        def forward(self, x):
            return x

    BACKBONE_REGISTRY._do_register("flat", Flat, force=True)

    class Plain(TrainerX):
        build_data_loader = TinyTrainer.build_data_loader
        parse_batch_train = TinyTrainer.parse_batch_train

        def forward_backward(self, batch):
            image, label = self.parse_batch_train(batch)
            loss = nn.functional.cross_entropy(self.model(image), label)
            self.model_backward_and_update(loss)
            if self.batch_idx + 1 == self.num_batches:
                self.update_lr()
            return {"loss": loss.item()}

    cfg = tiny_cfg(
        tmp_path / "a", "MODEL.BACKBONE.NAME", "flat", "MODEL.HEAD.NAME", "mlp", "MODEL.HEAD.HIDDEN_LAYERS", (5,)
    )
    trainer = trained(cfg, Plain)
    assert trainer.history[-1]["losses"]["loss"] < trainer.history[0]["losses"]["loss"]
    y, f = trainer.model(torch.zeros(2, 6), return_feature=True)
    assert (y.shape, f.shape, trainer.model.fdim) == ((2, 3), (2, 5), 5)
    cfg.OUTPUT_DIR = str(tmp_path / "b")
    cfg.MODEL.INIT_WEIGHTS = str(tmp_path / "a" / "model" / "model.pth.tar-4")
    assert torch.equal(Plain(cfg).model.classifier.weight, trainer.model.classifier.weight)


def test_simple_net_on_a_resnet() -> None:
    cfg = tiny_cfg("", "MODEL.BACKBONE.NAME", "resnet18", "MODEL.BACKBONE.PRETRAINED", False)
    net = SimpleNet(cfg, cfg.MODEL, 7).eval()
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    assert SimpleNet(cfg, cfg.MODEL, 0).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 512)
    cfg.MODEL.BACKBONE.NAME = "resnet81"
    with pytest.raises(ValueError, match="did you mean resnet18"):
        SimpleNet(cfg, cfg.MODEL, 7)


def test_hooks_that_a_subclass_must_give() -> None:
    trainer = TrainerBase()
    for call in (trainer.test, trainer.run_epoch):
        with pytest.raises(NotImplementedError):
            call()
    for call in (
        trainer.parse_batch_train,
        trainer.parse_batch_test,
        trainer.forward_backward,
        trainer.model_inference,
    ):
        with pytest.raises(NotImplementedError):
            call({})
    assert trainer.resume_model_if_exist("") == 0
    assert issubclass(TrainerX, SimpleTrainer)


class ClassMeans(TrainerX):
    """Nearest class mean: a closed form over the training data, without gradient steps."""

    build_data_loader = TinyTrainer.build_data_loader

    def build_model(self) -> None:
        self.model = nn.Linear(6, 3)
        self.register_model("means", self.model)
        self.max_epoch = 0

    @torch.no_grad()
    def fit(self) -> None:
        points = self.train_loader_x.dataset
        means = torch.stack([points.img[points.label == label].mean(0) for label in range(3)])
        self.model.weight.copy_(means)
        self.model.bias.copy_(-means.square().sum(1) / 2)


def nearest_mean_accuracy() -> float:
    train, test = Points(24, False), Points(30, False)
    means = torch.stack([train.img[train.label == label].mean(0) for label in range(3)])
    return 100 * (torch.cdist(test.img, means).argmin(1) == test.label).sum().item() / 30


def test_a_closed_form_without_epochs(tmp_path, capsys) -> None:
    trained(tiny_cfg(tmp_path / "fit", "TEST.FINAL_MODEL", "best_val"), ClassMeans)
    results = read_results(tmp_path / "fit" / "results.json")
    assert (results["accuracy"], results["epoch"]) == (pytest.approx(nearest_mean_accuracy()), 0)
    assert results["seconds"]["train"] > 0
    assert {path.name for path in (tmp_path / "fit" / "means").iterdir()} == {"checkpoint", "model.pth.tar-0"}
    assert load_checkpoint(tmp_path / "fit" / "means" / "model.pth.tar-0")["epoch"] == 0
    assert "Finish training\nEvaluate on the *test* set" in capsys.readouterr().out
    loaded = ClassMeans(tiny_cfg(tmp_path / "loaded"))
    loaded.load_model(str(tmp_path / "fit"), epoch=0)
    assert loaded.final_test() == results["accuracy"]
    assert read_results(tmp_path / "loaded" / "results.json")["epoch"] == 0


def test_nothing_to_learn(tmp_path, capsys) -> None:
    class Fixed(ClassMeans):
        def build_model(self) -> None:
            self.model = nn.Linear(6, 3)
            self.max_epoch = 0
            ClassMeans.fit(self)

        def fit(self) -> None:
            pass

    trained(tiny_cfg(tmp_path / "run"), Fixed)
    results = read_results(tmp_path / "run" / "results.json")
    assert (results["accuracy"], results["epoch"]) == (pytest.approx(nearest_mean_accuracy()), None)
    assert not list((tmp_path / "run").rglob("model*"))
    other = Fixed(tiny_cfg(tmp_path / "other"))
    other.load_model(str(tmp_path / "run"), epoch=50)
    assert "Nothing to load" in capsys.readouterr().out
    assert other.final_test() == results["accuracy"]


def test_fit_runs_once_before_the_first_epoch(tmp_path) -> None:
    calls = []

    class StartsFromMeans(TinyTrainer):
        def fit(self) -> None:
            calls.append(self.epoch)
            self.cache = self.train_loader_x.dataset.img.mean(0)
            self.model.prompt.data.copy_(self.cache)

        def after_epoch(self) -> None:
            """Without ``super()``: the engine's own bookkeeping does not depend on it."""

    cfg = tiny_cfg(tmp_path)
    set_random_seed(cfg.SEED)
    first = StartsFromMeans(cfg)
    stop_after_epoch(first, 1)
    with pytest.raises(Stop):
        first.train()
    resumed = trained(tiny_cfg(tmp_path), StartsFromMeans)
    assert (calls, resumed.start_epoch) == ([0], 1)
    assert torch.equal(resumed.cache, Points(24, False).img.mean(0))
    assert resumed.run_record.fit_seconds == first.run_record.fit_seconds > 0


def test_a_test_before_the_first_epoch_is_no_result(tmp_path) -> None:
    """Also where ``before_train`` is overridden without ``super()``."""

    class ZeroShotFirst(TinyTrainer):
        def before_train(self) -> None:
            self.test()
            assert not (tmp_path / "results.json").exists()

    trained(tiny_cfg(tmp_path), ZeroShotFirst)
    assert read_results(tmp_path / "results.json")["epoch"] == 4


def test_arguments_of_test_in_forks(run, tmp_path) -> None:
    _, trainer = run
    assert trainer.test(is_final=True) == trainer.test("test", is_final=False, other=1)

    class Plugin(TinyTrainer):
        def test(self, split, is_final=False):
            assert split == "test"
            return super().test(split, is_final=is_final)

    assert Plugin(tiny_cfg(tmp_path)).final_test() >= 0
    assert read_results(tmp_path / "results.json")["split"] == "test"


def test_keys_that_only_our_configuration_has_are_not_needed(tmp_path) -> None:
    cfg = tiny_cfg(tmp_path, "OPTIM.MAX_EPOCH", 1, "DATASET.NUM_SHOTS", 4)
    del cfg["PROTOCOL"], cfg.DATASET["SUBSAMPLE_CLASSES"]
    trained(cfg)
    results = read_results(tmp_path / "results.json")
    assert (results["protocol"], results["classes"]) == ("few_shot", "all")


def test_terms_of_the_loss_are_all_recorded(tmp_path) -> None:
    class Terms(TinyTrainer):
        def forward_backward(self, batch):
            return {**super().forward_backward(batch), "loss_kl": torch.tensor(0.5)}

    trainer = trained(tiny_cfg(tmp_path, "OPTIM.MAX_EPOCH", 1), Terms)
    assert trainer.history[0]["losses"]["loss_kl"] == 0.5
    assert json.loads((tmp_path / "history.jsonl").read_text())["losses"].keys() == {"loss", "acc", "loss_kl"}


def test_the_split_to_test_must_have_images(tmp_path) -> None:
    """Before the model is built, where the configuration asks for it; there is no other split in its place."""
    built = []

    class Recorded(NoValidation):
        def build_model(self) -> None:
            built.append(1)
            super().build_model()

    with pytest.raises(ValueError, match=r"TEST\.SPLIT val: the dataset has no such images.* set TEST\.SPLIT test"):
        Recorded(tiny_cfg(tmp_path, "TEST.SPLIT", "val"))
    assert not built
    trainer = Recorded(tiny_cfg(tmp_path, "OPTIM.MAX_EPOCH", 1))
    with pytest.raises(ValueError, match=r"TEST\.SPLIT val: the dataset has no such images"):
        trainer.test(split="val")
    trainer.test_loader = None
    with pytest.raises(ValueError, match=r"TEST\.SPLIT test: the dataset has no such images"):
        trainer.test()
    assert trained(tiny_cfg(tmp_path / "not_tested", "TEST.SPLIT", "val", "TEST.NO_TEST", True), NoValidation)
    trained(tiny_cfg(tmp_path / "val", "TEST.SPLIT", "val"))
    assert read_results(tmp_path / "val" / "results.json")["split"] == "val"


@pytest.mark.parametrize("where", ["parameter", "logits"])
def test_a_test_that_is_not_finite_gives_no_result(tmp_path, where) -> None:
    class Broken(TinyTrainer):
        def model_inference(self, input):
            if where == "parameter":
                self.model.head.weight.data[1, 0] = float("nan")
                return super().model_inference(input)
            return super().model_inference(input) + torch.tensor([0.0, 0.0, float("inf")])

    with pytest.raises(
        ValueError, match=r"for 30 of 30 images, the first 0, and for 1 of 3 classes, the first '(bee|cat)'"
    ):
        trained(tiny_cfg(tmp_path), Broken)
    assert not (tmp_path / "results.json").exists()


def test_an_own_test_that_returns_nan_gives_no_result(tmp_path) -> None:
    class Broken(TinyTrainer):
        def test(self, split=None):
            return float("nan")

    with pytest.raises(ValueError, match="The test gave nan as accuracy"):
        trained(tiny_cfg(tmp_path, "OPTIM.MAX_EPOCH", 1), Broken)
    assert not (tmp_path / "results.json").exists()


def test_notes_of_the_dataset_and_of_the_test_are_in_the_results(tmp_path) -> None:
    class WithNotes(TinyTrainer):
        def build_data_loader(self) -> None:
            super().build_data_loader()
            self.dm = SimpleNamespace(dataset=SimpleNamespace(notes=["Class ant has 2 images, fewer than 8 shots"]))
            self.lab2cname = {0: "ant", 1: "bee", 2: "cat"}
            self.test_loader = DataLoader(Points(2, False), batch_size=7)

    trained(tiny_cfg(tmp_path, "OPTIM.MAX_EPOCH", 1), WithNotes)
    assert read_results(tmp_path / "results.json")["notes"] == [
        "Class ant has 2 images, fewer than 8 shots",
        "1 of 3 classes have no image in this evaluation: cat",
    ]
    trained(tiny_cfg(tmp_path / "plain", "OPTIM.MAX_EPOCH", 1))
    assert read_results(tmp_path / "plain" / "results.json")["notes"] == []


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_images_are_counted_and_not_predicted(tmp_path, workers) -> None:
    """Of 4 training images 1 is broken, of 4 test images 2, which are all of class_1."""
    items = {part: save_items(tmp_path / "data" / part, per_class=2, num_classes=2) for part in ("train", "test")}
    for item in (items["train"][0], *items["test"][2:]):
        Path(item.impath).write_bytes(b"not a picture")

    @DATASET_REGISTRY.register(force=True)
    class BrokenPictures(DatasetBase):
        dataset_dir = str(tmp_path / "data")

        def __init__(self, cfg) -> None:
            super().__init__(train_x=items["train"], test=items["test"])

    class Mean(TrainerX):
        def build_model(self) -> None:
            self.model = nn.Linear(3, 2)
            self.register_model("mean", self.model)

        def model_inference(self, input):
            return self.model(input.mean((2, 3)))

        def forward_backward(self, batch):
            return {"loss": 0.0}

    options = ("DATASET.NAME", "BrokenPictures", "DATASET.ON_BAD_IMAGE", "skip", "TEST.PREDICTIONS", True)
    options += ("DATALOADER.NUM_WORKERS", workers, "OPTIM.MAX_EPOCH", 1, "TEST.COMPUTE_CMAT", True)
    trained(tiny_cfg(tmp_path / "run", *options), Mean)
    results = read_results(tmp_path / "run" / "results.json")
    assert results["unreadable_images"] == {"train": 1, "val": 0, "test": 2}
    assert results["total"] == 2
    assert results["notes"] == ["1 of 2 classes have no image in this evaluation: class_1"]
    rows = (tmp_path / "run" / "predictions.csv").read_text(encoding="utf-8").splitlines()
    names = [Path(item.impath).relative_to(tmp_path / "data").as_posix() for item in items["test"][:2]]
    assert [row.split(",")[:2] for row in rows[1:]] == [[name, "class_0"] for name in names]
    assert torch.load(tmp_path / "run" / "cmat.pt", weights_only=True).shape == (2, 2)

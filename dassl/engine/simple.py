"""SimpleTrainer: a run from a configuration: data, model, training that can be resumed, test, results."""

import inspect
import math
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from dassl.config import setting
from dassl.data import DataManager
from dassl.data.ahead import copied_ahead
from dassl.engine.attributes import MethodAttributes
from dassl.engine.base import TrainerBase
from dassl.engine.record import RunRecord
from dassl.engine.report import collect_results
from dassl.engine.resume import RESUME_FILE, copy_models, find_resume, restore, save_resume
from dassl.engine.simple_net import SimpleNet
from dassl.evaluation import build_evaluator
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils.cpu import keep_freed_memory
from dassl.utils.device import activate, choose_device, sent
from dassl.utils.progress import progress
from dassl.utils.tools import check_availability
from dassl.utils.torchtools import count_num_param, load_pretrained_weights

__all__ = ["SimpleTrainer"]


class SimpleTrainer(TrainerBase):
    """A trainer of one labelled training set. A method overrides ``build_model`` and ``forward_backward``.

    Attributes:
        cfg, device, dm: configuration, the one device, the data manager.
        train_loader_x, train_loader_u, val_loader, test_loader: data; u and val may be None.
        num_classes, num_source_domains, lab2cname: of the dataset.
        epoch, batch_idx, num_batches: the current epoch and batch, counted from 0, and batches per epoch.
        max_epoch, max_steps: when the training ends; 0 steps: after its epochs.
        run_record: what the run has measured.
    """

    model: Any
    optim: Any
    sched: Any

    def __init__(self, cfg: Any) -> None:
        of_subclass = set(vars(self))
        super().__init__()
        self.cfg = cfg
        self.device = choose_device(cfg)
        activate(self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.output_dir = cfg.OUTPUT_DIR
        self.start_epoch = self.epoch = self.batch_idx = self.num_batches = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.max_steps = 0
        self.time_start: float | None = None
        self.run_record = RunRecord()
        self.dm: Any = None
        self.train_loader_x: Any = None
        self.train_loader_u: Any = None
        self.val_loader: Any = None
        self.test_loader: Any = None
        self.num_classes = self.num_source_domains = 0
        self.lab2cname: dict[int, str] = {}
        self.evaluator: Any = None
        # Every attribute of the engine is set above: all others that a trainer has later are its method's
        self._attributes = MethodAttributes(engine=vars(self).keys() - of_subclass)
        self.check_cfg(cfg)
        self.check_steps(cfg)
        check_availability(cfg.TEST.FINAL_MODEL, ["last_step", "best_val"], "TEST.FINAL_MODEL")
        check_availability(cfg.TEST.SPLIT, ["val", "test"], "TEST.SPLIT")
        if cfg.TRAIN.PRINT_FREQ < 1:
            raise ValueError(f"TRAIN.PRINT_FREQ is {cfg.TRAIN.PRINT_FREQ}, expected a number of batches from 1 on")
        self.build_data_loader()
        self._plan_steps()
        if cfg.TEST.SPLIT == "val" and not cfg.TEST.NO_TEST:
            self._evaluation_loader("val")
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self.evaluator.image_root = self._image_root()

    @property
    def history(self) -> list[dict[str, Any]]:
        """One dict per epoch, as in history.jsonl."""
        return self.run_record.history

    @property
    def best_result(self) -> float:
        """The highest validation result so far, minus infinity before the first."""
        return self.run_record.best_result

    @best_result.setter
    def best_result(self, value: float) -> None:
        self.run_record.best_result = value

    def check_cfg(self, cfg: Any) -> None:
        """Hook: raise an error if the configuration does not fit the method; default nothing."""

    def check_steps(self, cfg: Any) -> None:
        """Raise a ValueError for a setting of the training steps that these do not read."""
        read = {"TRAIN.ACCUMULATE": (1,), "TRAIN.CHECKPOINT_TOWERS": (False,), "TRAIN.CUDA_GRAPH": ("off", "auto")}
        for key, values in read.items():
            if (value := setting(cfg, key)) not in values:
                raise ValueError(
                    f"{key} is {value}, but {type(self).__name__} has training steps of its own (`forward_backward`), "
                    f"which do not read it: use {values[0]}"
                )

    def build_data_loader(self) -> None:
        """Make the data manager and take its loaders."""
        dm = DataManager(self.cfg)
        self.train_loader_x = dm.train_loader_x
        self.train_loader_u = dm.train_loader_u  # None without unlabelled data
        self.val_loader = dm.val_loader  # None without validation data
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname
        self.dm = dm

    def _plan_steps(self) -> None:
        """With OPTIM.STEPS_PER_SHOT, the number of steps decides on the number of epochs."""
        steps = setting(self.cfg, "OPTIM.STEPS_PER_SHOT") * self.cfg.DATASET.NUM_SHOTS
        if steps > 0:
            self.max_steps = steps
            self.max_epoch = math.ceil(steps / max(len(self.train_loader_x), 1))

    def lr_changes(self) -> int:
        """How often a training changes the learning rate: after every epoch or every iteration (OPTIM.LR_STEP)."""
        if setting(self.cfg, "OPTIM.LR_STEP") == "epoch":
            return self.max_epoch
        return self.max_steps or self.max_epoch * len(self.train_loader_x)

    def build_model(self) -> None:
        """Make the model, its optimizer and scheduler, and register them."""
        cfg = self.cfg
        print("Building model")
        self.model = SimpleNet(cfg, cfg.MODEL, self.num_classes)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        print(f"# params: {count_num_param(self.model):,}")
        self.optim = build_optimizer(self.model, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("model", self.model, self.optim, self.sched)

    def train(self) -> None:  # type: ignore[override]
        """Run the hooks of docs/ENGINE.md; what the engine does between them does not depend on overridden hooks."""
        record = self.run_record
        record.training = True
        self.time_start = time.time()
        self._attributes.mark(self)
        self.before_train()
        if self.start_epoch == 0:
            self._fit()
        for self.epoch in range(self.start_epoch, self.max_epoch):  # noqa: B020
            self._claim_output()
            record.start_epoch()
            self.before_epoch()
            self.run_epoch()
            self._claim_output()
            self.after_epoch()
            record.end_epoch(self.epoch + 1)
            if self.output_dir:
                self._claim_output()
                record.write_history(self.output_dir)
                save_resume(self, self._attributes, Path(self.output_dir) / RESUME_FILE)
        record.training = False
        self.after_train()

    def _fit(self) -> None:
        """The hook ``fit``; without epochs its outcome is saved as epoch 0."""
        self._claim_output()
        start = time.perf_counter()
        self.fit()
        self.run_record.fit_seconds = time.perf_counter() - start
        if self.max_epoch == 0 and self.output_dir:
            self._claim_output()
            self.save_model(-1, self.output_dir)

    def before_train(self) -> None:
        """Resume if there is a state to resume from, open the TensorBoard writer, start the clock."""
        if self.cfg.TEST.FINAL_MODEL == "best_val" and self.max_epoch > 0:
            self._check_best_val()
        self.loaded_epoch = None
        self.start_epoch = self.resume_model_if_exist(self.cfg.RESUME or self.output_dir)
        self._claim_output()
        if self.output_dir:
            resumed_at = self.start_epoch * len(self.train_loader_x) if self.start_epoch else None
            self.init_writer(Path(self.output_dir) / "tensorboard", purge_step=resumed_at)
        self.time_start = time.time()
        self.run_record.training = True  # also where a trainer's own train() calls this hook

    def _claim_output(self) -> None:
        if self.output_dir:
            self.run_record.claim(self.output_dir, self.cfg.dump)

    def _check_best_val(self) -> None:
        if self.val_loader is None:
            name = self.cfg.DATASET.NAME or "the dataset"
            raise ValueError(f"TEST.FINAL_MODEL best_val needs validation data, {name} has none: use last_step")
        if not self.output_dir:
            raise ValueError("TEST.FINAL_MODEL best_val keeps the best model in OUTPUT_DIR, which is empty")

    def resume_model_if_exist(self, directory: str) -> int:
        """Restore the state in OUTPUT_DIR, or else in ``directory``; returns the number of epochs done, 0 without one.

        Raises:
            FileNotFoundError: cfg.RESUME does not exist.
            ValueError: the state does not belong to this configuration, or is damaged.
            BlockingIOError: another process writes to OUTPUT_DIR.
        """
        if self.cfg.RESUME and not Path(self.cfg.RESUME).is_dir():
            raise FileNotFoundError(f"RESUME: no folder {self.cfg.RESUME}")
        if self.output_dir:
            self.run_record.hold(self.output_dir)  # another start may be about to finish this run
        folders = [folder for folder in dict.fromkeys([self.output_dir, directory]) if folder]
        path = next((path for folder in folders if (path := find_resume(folder))), None)
        if path is None:
            return 0
        try:
            start_epoch = restore(self, self._attributes, path)
        except ValueError:
            self.run_record.let_go()
            raise
        if self.output_dir:
            copy_models(self, path.parent, Path(self.output_dir))
        print(f"Resume from {path}: {start_epoch} of {self.max_epoch} epochs are done")
        return start_epoch

    def after_train(self) -> None:
        """Test the last or the best model, and write the results."""
        self.run_record.training = False
        print("Finish training")
        if not self.cfg.TEST.NO_TEST:
            if self.max_epoch > 0 and self.cfg.TEST.FINAL_MODEL == "best_val":
                print("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            elif self.max_epoch > 0:
                print("Deploy the last-epoch model")
            self.final_test()
        else:
            self.save_results()
        if self.time_start is not None:
            print(f"Elapsed: {timedelta(seconds=round(time.time() - self.time_start))}")
        self.close_writer()

    def after_epoch(self) -> None:
        """Validate if TEST.FINAL_MODEL is best_val; save at the checkpoint frequency and after the last epoch."""
        if not self.output_dir:
            return
        cfg = self.cfg
        last_epoch = self.epoch + 1 == self.max_epoch
        frequency = cfg.TRAIN.CHECKPOINT_FREQ
        if not cfg.TEST.NO_TEST and cfg.TEST.FINAL_MODEL == "best_val":
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self.save_model(self.epoch, self.output_dir, val_result=result, model_name="model-best.pth.tar")
        if last_epoch or (frequency > 0 and (self.epoch + 1) % frequency == 0):
            self.save_model(self.epoch, self.output_dir)

    @torch.no_grad()
    def test(self, split: str | None = None, **kwargs: Any) -> float:
        """Evaluate on ``split`` (val, test; default TEST.SPLIT); returns the evaluator's first value, the accuracy.

        Outside of training the results are written to results.json. Other arguments, which trainers of Dassl's forks
        pass, are ignored.

        Raises:
            ValueError: no data of the split, scores that are NaN or infinite or do not fit the classes.
        """
        start = time.perf_counter()
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = "val" if (split or self.cfg.TEST.SPLIT) == "val" else "test"
        batches = self.evaluation_batches(split)
        print(f"Evaluate on the *{split}* set")
        images: list[str] = []
        self.evaluator.images = images
        for batch in progress(copied_ahead(batches, self.device), f"evaluate {split}", len(batches)):
            self.evaluator.process(*self.scores(batch))
            images += batch.get("impath", ()) if isinstance(batch, dict) else ()
        results = self.evaluator.evaluate()
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        record = self.run_record
        record.split, record.result = split, next(iter(results.values()))
        record.test_seconds = time.perf_counter() - start
        if not record.training:
            self.save_results()
        return record.result

    def _evaluation_loader(self, split: str) -> Any:
        """The loader of a split; an error if the dataset has no images of it."""
        loader = self.val_loader if split == "val" else self.test_loader
        if loader is None:
            name, other = self.cfg.DATASET.NAME or "the dataset", "test" if split == "val" else "val"
            raise ValueError(f"TEST.SPLIT {split}: {name} has no such images. Add some, or set TEST.SPLIT {other}")
        return loader

    def evaluation_batches(self, split: str) -> Any:
        """What the test goes through, with a length: by default the loader of the split."""
        self.run_record.image_features = None
        return self._evaluation_loader(split)

    def _image_root(self) -> str:
        """The folder of the dataset, which image paths in predictions.csv are relative to."""
        folder = str(getattr(getattr(self.dm, "dataset", None), "dataset_dir", ""))
        return folder if os.path.isabs(folder) else os.path.abspath(os.path.expanduser(self.cfg.DATASET.ROOT or "data"))

    def final_test(self) -> float:
        """:meth:`test`, also where a trainer overrides it, with its result in results.json."""
        record = self.run_record
        self._claim_output()
        record.results_written = False
        start = time.perf_counter()
        parameters = inspect.signature(self.test).parameters.values()
        takes_split = any(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
        result = self.test(self.cfg.TEST.SPLIT) if takes_split else self.test()
        if not record.results_written:
            record.split = record.split or self.cfg.TEST.SPLIT
            record.result = result
            record.test_seconds = time.perf_counter() - start
            self.save_results()
        return result

    def save_results(self) -> None:
        """Write results.json of a finished run, if the run has an output folder."""
        result = self.run_record.result
        if result is not None and not math.isfinite(result):
            raise ValueError(f"The test gave {float(result)} as accuracy: look at the weights, or try PREC fp32")
        if self.output_dir:
            self._claim_output()
            dataset = getattr(self.dm, "dataset", None)
            loaders = {"train": self.train_loader_x, "val": self.val_loader, "test": self.test_loader}
            results = collect_results(
                self.cfg,
                self.run_record,
                [self.lab2cname[label] for label in sorted(self.lab2cname)],
                [*self._models.values(), getattr(self, "model", None)],
                self.device,
                epoch=self._tested_epoch(),
                precision=getattr(getattr(self, "precision", None), "name", None),
                evaluation=getattr(self.evaluator, "report", None),
                notes=[
                    *getattr(dataset, "notes", ()),
                    *getattr(self.evaluator, "notes", ()),
                    *self.result_notes(),
                ],
                chosen=self.chosen(),
                unreadable={name: _unreadable(loader) for name, loader in loaders.items()},
            )
            self.run_record.write_results(self.output_dir, results)
        self.run_record.results_written = True

    def chosen(self) -> dict[str, Any]:
        """Plain values that the method chose by itself, by name, such as hyper-parameters that it searched for."""
        return {}

    def result_notes(self) -> list[str]:
        """Sentences on the method that a reader of results.json should know."""
        return []

    def _tested_epoch(self) -> int | None:
        """The epoch of a loaded checkpoint (the best one of a training), else the last epoch trained here."""
        if self.loaded_epoch is not None:
            return self.loaded_epoch
        if self.history:
            return self.history[-1]["epoch"]
        if self.time_start is None or not self._models:
            return None  # nothing was trained
        return min(self.epoch + 1, self.max_epoch)  # 0 after fit() alone; else trained by a train() of its own

    def scores(self, batch: Any) -> tuple[Any, Any]:
        """Logits (B, K) and labels (B,) of a batch of the test."""
        input, label = self.parse_batch_test(batch)
        return self.model_inference(input), label

    def model_inference(self, input: Any) -> Any:
        """Logits (B, K) of images (B, 3, H, W)."""
        return self.model(input)

    def parse_batch_test(self, batch: dict[str, Any]) -> Any:
        """Images and labels on the device."""
        return sent(batch["img"], self.device), sent(batch["label"], self.device)

    def get_current_lr(self, names: str | list[str] | None = None) -> float:
        """The learning rate of the first (named) model's first parameter group; 0 if nothing is optimized."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                return self._optims[name].param_groups[0]["lr"]
        return 0.0


def _unreadable(loader: Any) -> int:
    """Images that were skipped so far because they cannot be read (DATASET.ON_BAD_IMAGE skip)."""
    return int(getattr(getattr(loader, "items", None), "bad", torch.zeros(0)).sum())

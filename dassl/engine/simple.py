"""SimpleTrainer: data, model, optimizer and evaluator from a configuration; training with test, resume and records."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from dassl.data import DataManager
from dassl.engine.base import TrainerBase
from dassl.engine.report import collect_results, write_history
from dassl.engine.resume import RESUME_FILE, Extras, copy_models, find_resume, restore, save_resume
from dassl.engine.simple_net import SimpleNet
from dassl.evaluation import build_evaluator
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils.progress import progress
from dassl.utils.results import write_results
from dassl.utils.tools import atomic_write, check_availability, lock_folder, remove_temporaries
from dassl.utils.torchtools import count_num_param, load_pretrained_weights

__all__ = ["SimpleTrainer"]


class SimpleTrainer(TrainerBase):
    """A trainer of one labelled training set. A method overrides ``build_model`` and ``forward_backward``.

    Attributes:
        cfg, device, dm: configuration, the one device, the data manager.
        train_loader_x, train_loader_u, val_loader, test_loader: data; u and val may be None.
        num_classes, num_source_domains, lab2cname: of the dataset.
        history: one dict an epoch, as in history.jsonl.
    """

    train_loader_x: Any
    train_loader_u: Any
    val_loader: Any
    test_loader: Any
    model: Any
    optim: Any
    sched: Any

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.cfg = cfg
        self.check_cfg(cfg)
        self.device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.history: list[dict[str, Any]] = []
        self._last_result: float | None = None
        self._last_split: str | None = None
        self._test_seconds = 0.0
        self._results_written = False
        self._output_lock: FileLock | None = None
        self._start_record()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        check_availability(cfg.TEST.FINAL_MODEL, ["last_step", "best_val"], "TEST.FINAL_MODEL")
        check_availability(cfg.TEST.SPLIT, ["val", "test"], "TEST.SPLIT")
        if cfg.TRAIN.PRINT_FREQ < 1:
            raise ValueError(f"TRAIN.PRINT_FREQ is {cfg.TRAIN.PRINT_FREQ}, expected a number of batches from 1 on")
        self.build_data_loader()
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self.best_result = -float("inf")

    def check_cfg(self, cfg: Any) -> None:
        """Raise an error if the configuration does not fit the method; here: anything goes."""

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
        """Train from where the output folder's state left off, then test."""
        super().train(self.start_epoch, self.max_epoch)

    def before_train(self) -> None:
        """Resume if there is a state to, open the writer, start the clock."""
        if self.cfg.TEST.FINAL_MODEL == "best_val":
            self._check_best_val()
        self.loaded_epoch = None
        self.start_epoch = self.resume_model_if_exist(self.cfg.RESUME or self.output_dir)
        self._own_output()
        if self.output_dir:
            resumed_at = self.start_epoch * len(self.train_loader_x) if self.start_epoch else None
            self.init_writer(Path(self.output_dir) / "tensorboard", purge_step=resumed_at)
        self.time_start = time.time()
        self._in_epochs = True  # also of a trainer with a loop of its own: its validations are no results

    def _own_output(self) -> None:
        """From here on the output folder is this run's. Until then, whatever is refused leaves it as it was."""
        if not self.output_dir or self._output_lock is not None:
            return
        folder = Path(self.output_dir)
        self._output_lock = lock_folder(folder)
        remove_temporaries(folder)
        with atomic_write(folder / "config.yaml", "w") as file:
            file.write(self.cfg.dump())
        (folder / "results.json").unlink(missing_ok=True)  # of a former run: not done any more

    def _check_best_val(self) -> None:
        if self.val_loader is None:
            name = self.cfg.DATASET.NAME or "the dataset"
            raise ValueError(f"TEST.FINAL_MODEL best_val needs validation data, {name} has none: use last_step")
        if not self.output_dir:
            raise ValueError("TEST.FINAL_MODEL best_val keeps the best model in OUTPUT_DIR, which is empty")

    def resume_model_if_exist(self, directory: str) -> int:
        """Restore the state in OUTPUT_DIR, or else that in ``directory``; returns the epoch to start from, 0 if none.

        Raises:
            FileNotFoundError: ``directory`` was asked for and does not exist.
            ValueError: the state does not belong to this configuration.
        """
        if self.cfg.RESUME and not Path(self.cfg.RESUME).is_dir():
            raise FileNotFoundError(f"RESUME: no folder {self.cfg.RESUME}")
        folders = [folder for folder in dict.fromkeys([self.output_dir, directory]) if folder]
        path = next((path for folder in folders if (path := find_resume(folder))), None)
        if path is None:
            return 0
        start_epoch = restore(self, path)
        if self.output_dir:
            copy_models(self, path.parent, Path(self.output_dir))
        print(f"Resume from {path}: {start_epoch} of {self.max_epoch} epochs are done")
        return start_epoch

    def after_train(self) -> None:
        """Test the last or the best model, and record the results."""
        self._in_epochs = False
        print("Finish training")
        if not self.cfg.TEST.NO_TEST:
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                print("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            else:
                print("Deploy the last-epoch model")
            self.final_test()
        else:
            self.save_results()
        print(f"Elapsed: {timedelta(seconds=round(time.time() - self.time_start))}")
        self.close_writer()

    def begin_run(self) -> None:
        self._extras = Extras(self)

    def begin_epoch(self) -> None:
        self._own_output()
        self._start_record()
        self._epoch_start = time.perf_counter()

    def _start_record(self) -> None:
        self._epoch_losses: dict[str, float] = {}
        self._epoch_lr: float | None = None
        self._epoch_images = 0

    def after_epoch(self) -> None:
        """Validate if the best model is wanted; save at the checkpoint frequency and at the end."""
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

    def finish_epoch(self) -> None:
        """Record the epoch and write the state to resume from."""
        seconds = time.perf_counter() - self._epoch_start
        self.history.append(
            {
                "epoch": self.epoch + 1,
                "losses": self._epoch_losses,
                "lr": self._epoch_lr,
                "seconds": seconds,
                "images_per_second": self._epoch_images / seconds,
            }
        )
        if self.output_dir:
            write_history(Path(self.output_dir) / "history.jsonl", self.history)
            save_resume(self, Path(self.output_dir) / RESUME_FILE)

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on ``split`` (val, test; default TEST.SPLIT); returns the evaluator's first value, the accuracy.

        Outside of training the results are written to results.json.
        """
        start = time.perf_counter()
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = split or self.cfg.TEST.SPLIT
        if split == "val" and self.val_loader is not None:
            data_loader = self.val_loader
        else:
            split = "test"  # also where there is no validation data
            data_loader = self.test_loader
        print(f"Evaluate on the *{split}* set")
        for batch in progress(data_loader, f"evaluate {split}", len(data_loader)):
            input, label = self.parse_batch_test(batch)
            self.evaluator.process(self.model_inference(input), label)
        results = self.evaluator.evaluate()
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        self._last_split = split
        self._last_result = next(iter(results.values()))
        self._test_seconds = time.perf_counter() - start
        if not self._in_epochs:
            self.save_results()
        return self._last_result

    def final_test(self) -> float:
        """:meth:`test`, also where a trainer overrides it, with its result in results.json."""
        self._own_output()
        self._results_written = False
        start = time.perf_counter()
        result = self.test()
        if not self._results_written:
            self._last_split = self._last_split or self.cfg.TEST.SPLIT
            self._last_result = result
            self._test_seconds = time.perf_counter() - start
            self.save_results()
        return result

    def save_results(self) -> None:
        """Write results.json of a finished run, if the run has an output folder."""
        if self.output_dir:
            self._own_output()
            write_results(Path(self.output_dir) / "results.json", collect_results(self))
        self._results_written = True

    def model_inference(self, input: Any) -> Any:
        """Logits (B, K) of images (B, 3, H, W)."""
        return self.model(input)

    def parse_batch_test(self, batch: dict[str, Any]) -> Any:
        """Images and labels on the device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def get_current_lr(self, names: str | list[str] | None = None) -> float:
        """The learning rate of the first (named) model's first parameter group; 0 if nothing is optimized."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                return self._optims[name].param_groups[0]["lr"]
        return 0.0

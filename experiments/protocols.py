"""The protocols: the runs that each consists of, their commands, and which training a test depends on.

A function per kind of run turns a ``Request`` into a ``Job``. Relative folders start at the repository's root, where
the commands run.
"""

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dassl.utils.names import closest_hint
from dassl.utils.schema import describe
from experiments.methods import Method, Protocol
from experiments.runs import (
    ROOT,
    Run,
    Status,
    read_settings,
    run_settings,
    run_status,
    same,
    transfer_protocol,
    unless_changed,
)

__all__ = [
    *("Job", "Request", "base2new_test", "base2new_train", "check_datasets", "few_shot", "find_weights"),
    *("reproduce", "reproduce_xd", "weight_folders", "xd_test", "xd_train", "zero_shot"),
]

# Their run folders do not identify the images, so that DATASET.ROOT is compared, too
OWN_DATA = ("image_folder", "split_file")

# Settings that learned weights depend on, apart from the trainer's own: a test takes them from the training
UNSET = {"MODEL.BACKBONE.ACTIVATION": "", "MODEL.BACKBONE.PIXEL_MEAN": (), "MODEL.BACKBONE.PIXEL_STD": ()}
MODEL_SETTINGS = (
    *("MODEL.BACKBONE.NAME", "INPUT.SIZE", "INPUT.INTERPOLATION", "INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD"),
    *UNSET,  # with their defaults, since no config file has them
)


# What a row of experiments/methods.py may call undefined
DEFINABLE = ("base2new", "cross_dataset", "domain_generalization", "few_shot")


@dataclass(frozen=True)
class Request:
    """What is asked for: a method on a dataset, with the settings of a protocol.

    Raises:
        ValueError: an unknown dataset, unknown classes, or options that are not pairs.
    """

    method: Method
    dataset: str  # name of its YAML file
    seed: int | None = None
    shots: int = 16  # training images per class
    config: str = ""  # instead of the published one
    variant: str = ""  # folder between config and seed
    options: tuple[str, ...] = ()  # KEY VALUE pairs
    switches: tuple[str, ...] = ()  # flags of train.py without a value
    classes: str = "new"  # those that base2new_test tests: base, new or all
    source: str = "imagenet"  # the dataset that xd_test's weights were trained on
    epoch: int | None = None  # whose weights a test loads; None: the last one trained
    data: str = "./data"  # folder of the datasets
    output: str = "output"  # folder of all runs

    def __post_init__(self) -> None:
        check_datasets(self.dataset)
        if self.classes not in ("base", "new", "all"):
            hint = closest_hint(self.classes, ("base", "new", "all"))
            raise ValueError(f"no classes '{self.classes}' (SUB){hint} There are base, new and all")
        if len(self.options) % 2:
            words = " ".join(self.options)
            raise ValueError(f"options come as pairs KEY VALUE, but there are {len(self.options)}: {words}")

    def config_for(self, protocol: Protocol) -> str:
        """The config asked for, or the published one.

        Raises:
            ValueError: the trainer has no such config.
        """
        trainer = self.method.trainer
        config = self.config or self.method.published_config(protocol, self.dataset, self.shots)
        _check_configs("config", f" of {trainer}", (config,), f"configs/trainers/{trainer}")
        return config

    def settings_for(self, protocol: Protocol) -> tuple[str, ...]:
        """KEY VALUE pairs that are published with the config; none if another config is asked for."""
        asked = (protocol, self.dataset, self.shots)
        published = not self.config or self.config in self.method.published_configs(*asked)[1:]
        return self.method.published_settings(*asked) if published else ()

    def check_defined(self, protocol: str) -> None:
        """Raise a ValueError if the method has no meaning in ``protocol``."""
        if reason := self.method.undefined.get(protocol):
            others = [name for name in DEFINABLE if name not in self.method.undefined]
            raise ValueError(
                f"{self.method.name} cannot run the protocol {protocol}: {reason}. It runs {', '.join(others)}"
            )


@dataclass(frozen=True)
class Job:
    """One run folder, and the train.py command that makes it."""

    run: Run
    data: str
    output: str
    options: tuple[str, ...]  # the protocol's KEY VALUE pairs, then the user's
    published: tuple[str, ...] = ()  # pairs that come with the method: the training's and the options win over them
    test_only: bool = False
    needs: "Job | None" = None  # the training whose weights are tested
    weights: str = ""  # or the folder of downloaded ones
    load_epoch: int | None = None  # asked for; None: the last one trained
    switches: tuple[str, ...] = ()  # flags of train.py without a value

    @cached_property
    def folder(self) -> str:
        return f"{self.output}/{self.run.folder}"

    @cached_property
    def path(self) -> Path:
        return ROOT / self.folder

    @property
    def features(self) -> str:
        """Where it keeps features of images, which jobs share: $FEATURES, else a folder beside the runs."""
        return os.environ.get("FEATURES") or f"{self.output}/features"

    def epoch(self) -> int | None:
        """The epoch whose weights are loaded; None if nothing is, or for the best by validation, else the last one.

        The training's own config.yaml has priority over the config file: its options may have changed MAX_EPOCH. How
        many epochs STEPS_PER_SHOT takes depends on the data.
        """
        if not self._model_folder:
            return None
        if self.load_epoch is not None:
            return self.load_epoch
        if self.needs and (trained := run_settings(self.needs.path)) is not None:
            file, settings = self.needs.path / "config.yaml", trained
        else:
            file = self._config_files[-1]
            published = dict(zip(self.published[::2], self.published[1::2], strict=True))
            settings = dict(read_settings(file))
            if "OPTIM.MAX_EPOCH" in published:
                settings["OPTIM.MAX_EPOCH"] = int(published["OPTIM.MAX_EPOCH"])
        epoch = settings.get("OPTIM.MAX_EPOCH")
        by_steps = settings.get("OPTIM.STEPS_PER_SHOT")
        if epoch is None or by_steps or settings.get("TEST.FINAL_MODEL") == "best_val":
            return None
        if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0:
            raise ValueError(f"{file}: OPTIM.MAX_EPOCH is {describe(epoch)}, expected a number of epochs")
        return epoch

    def command(self, python: str) -> list[str]:
        """The train.py command, to be run in the repository's root."""
        command = [python, "train.py", "--root", self.data, "--trainer", self.run.trainer]
        command += ["--dataset-config-file", _dataset_file(self.run.dataset)]
        command += ["--config-file", _config_file(self.run.trainer, self.run.config), "--output-dir", self.folder]
        if self.run.seed is not None:
            command += ["--seed", str(self.run.seed)]
        if self._model_folder:
            command += ["--model-dir", self._model_folder]
            if (epoch := self.epoch()) is not None:
                command += ["--load-epoch", str(epoch)]
        if self.test_only:
            command.append("--eval-only")
        return [*command, *self.switches, *self._settings()]

    def _settings(self) -> tuple[str, ...]:
        """All KEY VALUE pairs; those of the method only where nothing else sets their key."""
        given = (*self.options, *self._settings_of_training())
        pairs = zip(self.published[::2], self.published[1::2], strict=True)
        return (*(word for pair in pairs if pair[0] not in given[::2] for word in pair), *given)

    def _settings_of_training(self) -> tuple[str, ...]:
        """KEY VALUE pairs: the backbone and other settings that the tested weights depend on, where the training has
        other values than the config files, and the options do not set them.
        """
        trained = run_settings(self.needs.path) if self.needs else None
        if trained is None:
            return ()
        files = {key: value for file in self._config_files for key, value in read_settings(file).items()}
        of_trainer = [key for key in files if key.startswith("TRAINER.") and key.count(".") > 1]
        nodes = tuple(f"{key.rpartition('.')[0]}." for key in of_trainer)
        pairs: list[str] = []
        for key, value in trained.items():
            depends = key in MODEL_SETTINGS or key.startswith(nodes)
            usual = files.get(key, UNSET.get(key))
            if depends and key not in self.options[::2] and value is not None and not same(key, value, usual):
                pairs += [key, str(value)]
        return tuple(pairs)

    def status(self) -> Status:
        """The state of the run folder, compared with this job's settings.

        A test whose weights a later training replaced is new again. A test of downloaded weights always is: its
        folder does not identify the weights that it was made from.
        """
        if self.weights or (self.needs and _newer(self.needs.path / "results.json", self.path / "results.json")):
            return Status("new")
        return run_status(self.path, self._config_files, self._settings(), self.epoch())

    def is_ready(self) -> bool:
        """Whether the training that it depends on is finished."""
        return self.needs is None or run_status(self.needs.path).state == "finished"

    @cached_property
    def _config_files(self) -> list[Path]:
        """Its YAML files; later ones win."""
        return [ROOT / _dataset_file(self.run.dataset), ROOT / _config_file(self.run.trainer, self.run.config)]

    @property
    def _model_folder(self) -> str:
        return self.needs.folder if self.needs else self.weights


def check_datasets(*names: str) -> None:
    """Raise a ValueError for those that have no YAML file, with the closest names."""
    _check_configs("dataset", "", names, "configs/datasets")


def _check_configs(kind: str, owner: str, names: tuple[str, ...], folder: str) -> None:
    known = _yaml_files(ROOT / folder)
    lines = [
        f"no {kind} '{name}'{owner}: there is no {folder}/{name}.yaml{closest_hint(name.removesuffix('.yaml'), known)}"
        for name in names
        if name not in known
    ]
    if lines:
        raise ValueError("\n".join([*lines, f"There are: {', '.join(known) or 'none'}"]))


@unless_changed
def _yaml_files(folder: Path) -> list[str]:
    """The names of the YAML files in a folder, without the ending."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _dataset_file(dataset: str) -> str:
    return f"configs/datasets/{dataset}.yaml"


def _config_file(trainer: str, config: str) -> str:
    return f"configs/trainers/{trainer}/{config}.yaml"


def _newer(a: Path, b: Path) -> bool:
    """Whether file ``a`` exists and ``b`` does not, or is older."""
    times = []
    for file in (a, b):
        try:
            times.append(os.stat(file).st_mtime_ns)
        except OSError:
            times.append(-1)
    return times[0] > times[1]


# ---- jobs ------------------------------------------------------------------------------------------------------


def base2new_train(request: Request) -> Job:
    """Train on the base classes, and test on them. A method without training is only tested."""
    return _base2new(request, "train_base", "base", test_only=not request.method.trained)


def base2new_test(request: Request) -> Job:
    """Test the same weights on ``request.classes``."""
    needs = base2new_train(request) if request.method.trained else None
    return _base2new(request, f"test_{request.classes}", request.classes, test_only=True, needs=needs)


def xd_train(request: Request) -> Job:
    """Train on all classes of ``request.dataset``, the source of a transfer."""
    if request.method.undefined.keys() >= {"cross_dataset", "domain_generalization"}:
        request.check_defined("cross_dataset")
    return _all_classes(request, "cross_dataset")


def xd_test(request: Request) -> Job:
    """Test the weights that were trained on ``request.source`` on ``request.dataset``."""
    if request.dataset != request.source:
        request.check_defined(transfer_protocol(request.dataset))
    needs = xd_train(replace(request, dataset=request.source))
    return _evaluation(request, needs.run.config, source=request.source, published=needs.published, needs=needs)


def few_shot(request: Request) -> Job:
    """Train on all classes: one point of a few-shot curve."""
    request.check_defined("few_shot")
    return _all_classes(request, "few_shot")


def zero_shot(request: Request) -> Job:
    """Test on all classes without training; there are neither shots nor a seed."""
    request = replace(request, shots=0, seed=None)
    run = _run(request, "zero_shot", request.config_for("zero_shot"))
    return _job(request, run, ("PROTOCOL", "zero_shot"), published=request.settings_for("zero_shot"), test_only=True)


def reproduce(request: Request, weights: str) -> list[Job]:
    """Test downloaded weights on the base and on the new classes."""
    return [_base2new(request, f"test_{half}", half, test_only=True, weights=weights) for half in ("base", "new")]


def reproduce_xd(request: Request, weights: str) -> list[Job]:
    """Test downloaded weights, trained on ImageNet, on another dataset."""
    published = replace(request, dataset="imagenet").settings_for("cross_dataset")
    config = request.config_for("cross_dataset")
    request.check_defined(transfer_protocol(request.dataset))
    return [_evaluation(request, config, source="imagenet", published=published, weights=weights)]


def _base2new(request: Request, stage: str, classes: str, weights: str = "", **more: Any) -> Job:
    request.check_defined("base2new")
    run = _run(request, stage, request.config_for("base2new"), reproduced=bool(weights))
    options = ("DATASET.NUM_SHOTS", str(request.shots), "DATASET.SUBSAMPLE_CLASSES", classes)
    return _job(request, run, options, published=request.settings_for("base2new"), weights=weights, **more)


def _all_classes(request: Request, protocol: Protocol) -> Job:
    run = _run(request, "all_classes", request.config_for(protocol))
    return _job(request, run, ("DATASET.NUM_SHOTS", str(request.shots)), published=request.settings_for(protocol))


def _evaluation(request: Request, config: str, source: str, weights: str = "", **more: Any) -> Job:
    run = _run(request, "evaluation", config, source=source, reproduced=bool(weights))
    options = ("PROTOCOL", transfer_protocol(request.dataset))
    return _job(request, run, options, test_only=True, weights=weights, **more)


def _run(request: Request, stage: str, config: str, **more: Any) -> Run:
    trainer = request.method.trainer
    return Run(stage, request.dataset, trainer, config, request.shots, request.seed, request.variant, **more)


def _job(request: Request, run: Run, options: tuple[str, ...], **more: Any) -> Job:
    options += request.options
    if run.dataset in OWN_DATA and "DATASET.ROOT" not in request.options[::2]:
        options += ("DATASET.ROOT", request.data)
    return Job(run, request.data, request.output, options, load_epoch=request.epoch, switches=request.switches, **more)


# ---- downloaded weights ----------------------------------------------------------------------------------------

_MODEL_FILES = "model*.pth.tar*"


def weight_folders(folder: str, dataset: str, seed: int) -> list[str]:
    """The places below ``folder`` where published downloads have the weights of a dataset and seed."""
    below = (f"seed{seed}", f"base/seed{seed}", f"{dataset}/base/seed{seed}", f"{dataset}/seed{seed}")
    return [*(f"{folder}/{place}" for place in below), folder]


def find_weights(folder: str, dataset: str, seed: int) -> str:
    """The first of the published places that holds a ``<model name>/model.pth.tar-<epoch>``.

    ``folder`` may also be the model's own folder, or a file in it.

    Raises:
        ValueError: none of them does.
    """
    for candidate in weight_folders(folder, dataset, seed):
        if any(path.is_file() for path in (ROOT / candidate).glob(f"*/{_MODEL_FILES}")):
            return candidate
    given = ROOT / folder
    if given.match(_MODEL_FILES) and given.is_file():
        return str(given.parent.parent)
    if any(given.glob(_MODEL_FILES)):
        return str(given.parent)
    raise ValueError(
        f"no weights for {dataset}, seed {seed}: neither in {folder} nor in its seed{seed}, base/seed{seed}, "
        f"{dataset}/base/seed{seed} or {dataset}/seed{seed} is there a <model name>/model.pth.tar-<epoch>"
    )

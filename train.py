"""Train and test one method on one dataset: arguments → config → trainer → run."""

from __future__ import annotations  # a Python that is too old gets as far as the message that says so

import argparse
import re
import shlex
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dassl.interpreter import require_python

with require_python():
    from dassl.utils import command
    from dassl.utils.console import prepare_console

if TYPE_CHECKING:
    from yacs.config import CfgNode

EXAMPLES = """\
examples:
  train MaPLe on the base classes of the demonstration dataset:
    python train.py --trainer MaPLe --dataset-config-file configs/datasets/emoji.yaml \\
        --config-file configs/trainers/MaPLe/vit_micro.yaml --seed 1 --output-dir output/try \\
        DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES base

  test the trained prompts on its new classes (the scripts in scripts/maple/ do both):
    python train.py --trainer MaPLe --dataset-config-file configs/datasets/emoji.yaml \\
        --config-file configs/trainers/MaPLe/vit_micro.yaml --seed 1 --output-dir output/try_new \\
        --eval-only --model-dir output/try DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES new

Settings are applied in this order, later ones override earlier ones: dataset file, trainer file, flags, KEY VALUE
pairs from left to right. docs/CONFIG.md lists the keys. To resume an interrupted run, repeat its command. Set
DASSL_TRACEBACK=1 to see the traceback of an error."""

FLAG_KEYS = {  # flag: the config key that it sets
    "root": "DATASET.ROOT",
    "output_dir": "OUTPUT_DIR",
    "resume": "RESUME",
    "seed": "SEED",
    "source_domains": "DATASET.SOURCE_DOMAINS",
    "target_domains": "DATASET.TARGET_DOMAINS",
    "transforms": "INPUT.TRANSFORMS",
    "trainer": "TRAINER.NAME",
    "backbone": "MODEL.BACKBONE.NAME",
    "device": "DEVICE",
    "head": "MODEL.HEAD.NAME",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("train.py", description=__doc__, epilog=EXAMPLES, formatter_class=layout)
    add = parser.add_argument
    add("--root", help="folder of the datasets (default ./data)")
    add("--output-dir", help="folder of the run: log.txt, config.yaml, results.json, checkpoints")
    add("--resume", help="interrupted run to resume from (not needed if it is --output-dir)")
    add("--seed", help="seed of all random generators; -1 leaves them unseeded")
    add("--source-domains", nargs="+", help="source domains of a domain generalization dataset")
    add("--target-domains", nargs="+", help="target domains of a domain generalization dataset")
    add("--transforms", nargs="+", help="training transforms, such as random_resized_crop random_flip normalize")
    add("--config-file", help="YAML of the method, in configs/trainers/")
    add("--dataset-config-file", help="YAML of the dataset, in configs/datasets/")
    add("--trainer", help="method: MaPLe, CoOp, CoCoOp, VPT, IVLP, ZeroshotCLIP, … or a plug-in's name")
    add("--backbone", help="CLIP to adapt: ViT-B/16, ViT-B-16/TAG (open_clip), hf-hub:OWNER/NAME, a folder or a file")
    add("--device", help="auto (the GPU if there is one), cpu, cuda, cuda:N (counted in CUDA_VISIBLE_DEVICES), mps")
    add("--head", help="name of the head, for trainers that build one")
    add("--eval-only", action="store_true", help="test only, with the weights of --model-dir")
    add("--model-dir", default="", help="with --eval-only: folder of the training run, or one of its model files")
    add("--load-epoch", type=int, help="epoch to load from --model-dir (default: the best, else the last saved)")
    add("--no-train", action="store_true", help="build the trainer, then exit")
    add("opts", nargs="*", metavar="KEY VALUE", help="any config keys, such as OPTIM.LR 0.002 or OPTIM.LR=0.002")
    words = sys.argv[1:] if argv is None else list(argv)
    args, unknown = parser.parse_known_intermixed_args(_join_negative_values(words))
    for flag in unknown:
        flags = [f"--{name.replace('_', '-')}" for name in vars(args)]
        close = get_close_matches(flag.partition("=")[0], flags, n=1)
        parser.error(f"unknown flag {flag}" + (f" (did you mean {close[0]}?)" if close else ""))
    args.command = shlex.join(["python", "train.py", *words])
    return args


def _join_negative_values(words: list[str]) -> list[str]:
    """``KEY -1e-5`` as ``KEY=-1e-5``: argparse takes only plain numbers with a minus for values."""
    joined: list[str] = []
    for word in words:
        negative = re.fullmatch(r"-(?!-|h$).*", word, re.DOTALL)
        if joined and negative and re.fullmatch(r"SEED|[A-Z]\w*(\.\w+)+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def default_cfg() -> CfgNode:
    """The default configuration, including the nodes that the trainers declare."""
    from dassl.config import get_cfg_default
    from trainers import extend_cfg

    extend_cfg(cfg := get_cfg_default())
    return cfg


def setup_cfg(args: argparse.Namespace, cfg: CfgNode | None = None) -> CfgNode:
    """The defaults (or `cfg`), overridden by the dataset file, the trainer file, the flags and the pairs; frozen.

    Raises:
        ValueError: everything that is wrong with the flags, the keys and their values, in one message.
        FileNotFoundError: no such YAML file.
    """
    from dassl.config import merge_file, merge_options

    _check_flags(args)
    cfg = default_cfg() if cfg is None else cfg
    sources: list[tuple[Any, Any]] = [
        (merge_file, path) for path in (args.dataset_config_file, args.config_file) if path
    ]
    problems = []
    for merge, source in [*sources, (merge_options, _options(args, cfg))]:
        try:
            merge(cfg, source)
        except ValueError as error:
            problems.append(str(error))
    if wrong := wrong_values(cfg):
        problems.append("Settings that cannot be used:\n  " + "\n  ".join(wrong))
    if problems:
        raise ValueError("\n".join(problems))
    for section, flag in (("TRAINER", "--trainer"), ("DATASET", "--dataset-config-file")):
        if not cfg[section].NAME:
            raise ValueError(f"No {section}.NAME is set: give {flag} (python train.py --help shows examples)")
    cfg.freeze()
    return cfg


def _check_flags(args: argparse.Namespace) -> None:
    """Raise a ValueError if the flags about trained weights do not go together."""
    if args.model_dir and not args.eval_only:
        raise ValueError(
            f"--model-dir {args.model_dir} is for testing. To test its weights, add the flag --eval-only:\n"
            f"  {args.command} --eval-only\n"
            "To train from its weights, set MODEL.INIT_WEIGHTS to a file instead; to resume a run, repeat its command"
        )
    if args.load_epoch is not None and not args.model_dir:
        test = "" if args.eval_only else " --eval-only"
        raise ValueError(
            f"The flag --load-epoch {args.load_epoch} chooses an epoch of a run to test, so give the run, too:\n"
            f"  {args.command}{test} --model-dir FOLDER"
        )
    if args.load_epoch is not None and args.load_epoch < 0:
        raise ValueError(f"The flag --load-epoch is {args.load_epoch}, expected an epoch from 0 on")


def _options(args: argparse.Namespace, cfg: CfgNode) -> list[Any]:
    """Keys and values: those of the flags, then the pairs. Pairs end the list of a flag before them."""
    from dassl.config import flatten

    known = {key for key, _ in flatten(cfg)}
    flags: list[Any] = []
    pairs: list[str] = []
    for flag, key in FLAG_KEYS.items():
        value = getattr(args, flag)
        if isinstance(value, list):
            end = next((i for i, word in enumerate(value) if word.partition("=")[0] in known), len(value))
            value, pairs = value[:end], pairs + value[end:]
        if value is not None:
            flags += [key, value]
    return flags + pairs + args.opts


def wrong_values(cfg: CfgNode) -> list[str]:
    """A line for every value that no run can use, or not one of this trainer."""
    from dassl.config.ranges import EPOCHS, out_of_range
    from dassl.engine import TRAINER_REGISTRY
    from dassl.evaluation import EVALUATOR_REGISTRY
    from dassl.utils import closest_hint

    wrong = out_of_range(cfg)
    name = cfg.TRAINER.NAME
    for key, registry, given in (
        ("TRAINER.NAME", TRAINER_REGISTRY, name),
        ("TEST.EVALUATOR", EVALUATOR_REGISTRY, cfg.TEST.EVALUATOR),
    ):
        if given and given not in registry:
            close = closest_hint(given, registry.registered_names())
            wrong.append(
                f"{key}: {given!r} is not registered{close} There are {', '.join(registry.registered_names())}"
            )
    needs_epochs = getattr(TRAINER_REGISTRY.get(name), "needs_epochs", None) if name in TRAINER_REGISTRY else None
    if cfg.OPTIM.MAX_EPOCH == 0 and needs_epochs and needs_epochs():
        wrong.append(f"OPTIM.MAX_EPOCH: 0, expected {EPOCHS.__doc__}; {name} takes gradient steps")
    return wrong


def run(args: argparse.Namespace) -> None:
    """Build the trainer, then train, test or neither."""
    import datasets  # noqa: F401  (registers the datasets)
    from dassl.config import flatten
    from dassl.engine import build_trainer
    from dassl.engine.weights import existing
    from dassl.utils.environment import collect_env_info, describe_device, set_random_seed
    from dassl.utils.logger import setup_logger

    cfg = default_cfg()
    defaults = dict(flatten(cfg))
    setup_cfg(args, cfg)
    args.output_dir = cfg.OUTPUT_DIR  # which a pair can set, too
    if args.model_dir:
        existing(args.model_dir)  # before data and weights are loaded
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    setup_logger(cfg.OUTPUT_DIR or None)
    changed = [f"{key}: {value}" for key, value in flatten(cfg) if value != defaults.get(key)]
    print("** Settings other than the defaults **", *changed, sep="\n")
    print("** Environment **", collect_env_info(), describe_device(cfg.USE_CUDA, cfg.DEVICE), "", sep="\n")
    trainer = build_trainer(cfg)
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        if trainer.loaded_epoch is None and trainer.get_model_names():  # a plug-in's load_model does not set it
            trainer.loaded_epoch = args.load_epoch
        trainer.final_test()
    elif not args.no_train:
        trainer.train()


def what_is_saved(args: argparse.Namespace) -> str:
    """How to go on after a run that was ended from outside."""
    if args.eval_only or args.no_train:
        return "the same command starts again"
    if args.output_dir and (Path(args.output_dir) / "resume.pth.tar").is_file():
        return f"the last finished epoch is saved in {args.output_dir}, the same command resumes from it"
    return "no epoch is saved, the same command starts again"


def main(argv: list[str] | None = None) -> int:
    """Run; returns 2, with one message, for errors the user can fix."""
    prepare_console()
    args = parse_args(argv)
    try:
        run(args)
    except KeyboardInterrupt as stop:
        stop.args = (what_is_saved(args),)
        raise
    except Exception as error:
        return command.fail(error, what_is_saved(args))
    return 0


if __name__ == "__main__":
    command.run(main)

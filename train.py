"""Train and test one method on one dataset: arguments → config → trainer → run."""

import argparse
import os
import sys

from yacs.config import CfgNode

from dassl.utils.console import prepare_console, printable

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
pairs. To resume an interrupted run, repeat its command. Set DASSL_TRACEBACK=1 to see the traceback of an error."""

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
    "head": "MODEL.HEAD.NAME",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("train.py", description=__doc__, epilog=EXAMPLES, formatter_class=layout)
    add = parser.add_argument
    add("--root", help="folder of the datasets (default ./data)")
    add("--output-dir", help="folder of the run: log.txt, config.yaml, results.json, checkpoints")
    add("--resume", help="interrupted run to resume from (not needed if it is --output-dir)")
    add("--seed", type=int, help="seed of all random generators; -1 leaves them unseeded")
    add("--source-domains", nargs="+", help="source domains of a domain generalization dataset")
    add("--target-domains", nargs="+", help="target domains of a domain generalization dataset")
    add("--transforms", nargs="+", help="training transforms, such as random_resized_crop random_flip normalize")
    add("--config-file", help="YAML of the method, in configs/trainers/")
    add("--dataset-config-file", help="YAML of the dataset, in configs/datasets/")
    add("--trainer", help="method: MaPLe, CoOp, CoCoOp, VPT, IVLP, ZeroshotCLIP, … or a plug-in's name")
    add("--backbone", help="CLIP model to adapt, such as ViT-B/16 or RN50, or the path of a checkpoint")
    add("--head", help="name of the head, for trainers that build one")
    add("--eval-only", action="store_true", help="test only, with the weights of --model-dir if given")
    add("--model-dir", default="", help="folder that contains <registered model name>/model.pth.tar-<epoch>")
    add("--load-epoch", type=int, help="epoch to load from --model-dir (default: the best, else the last saved)")
    add("--no-train", action="store_true", help="build the trainer, then exit")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="any config keys, such as OPTIM.LR 0.002")
    return parser.parse_args(argv)


def default_cfg() -> CfgNode:
    """The default configuration, including the nodes that the trainers declare."""
    from dassl.config import get_cfg_default
    from trainers import extend_cfg

    extend_cfg(cfg := get_cfg_default())
    return cfg


def setup_cfg(args: argparse.Namespace, cfg: CfgNode | None = None) -> CfgNode:
    """The defaults (or `cfg`), overridden by the dataset file, the trainer file, the flags and the pairs; frozen."""
    from dassl.config import merge_file, merge_options

    cfg = default_cfg() if cfg is None else cfg
    for path in (args.dataset_config_file, args.config_file):
        if path:
            merge_file(cfg, path)
    flags = {key: getattr(args, flag) for flag, key in FLAG_KEYS.items()}
    given = [word for key, value in flags.items() if value is not None for word in (key, value)]
    merge_options(cfg, given + args.opts)
    for section, flag in (("TRAINER", "--trainer"), ("DATASET", "--dataset-config-file")):
        if not cfg[section].NAME:
            raise ValueError(f"No {section}.NAME is set: give {flag} (python train.py --help shows examples)")
    cfg.freeze()
    return cfg


def run(args: argparse.Namespace) -> None:
    """Build the trainer, then train, test or neither."""
    import datasets  # noqa: F401  (registers the datasets)
    from dassl.config.merge import flatten
    from dassl.engine import build_trainer
    from dassl.utils.environment import collect_env_info, set_random_seed
    from dassl.utils.logger import setup_logger

    cfg = default_cfg()
    defaults = dict(flatten(cfg))
    setup_cfg(args, cfg)
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    setup_logger(cfg.OUTPUT_DIR or None)
    changed = [f"{key}: {value}" for key, value in flatten(cfg) if value != defaults.get(key)]
    print("** Settings other than the defaults **", *changed, "** Environment **", collect_env_info(), "", sep="\n")
    trainer = build_trainer(cfg)
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        trainer.loaded_epoch = trainer.loaded_epoch or args.load_epoch  # a plug-in's load_model does not set it
        trainer.final_test()
    elif not args.no_train:
        trainer.train()


def main(argv: list[str] | None = None) -> int:
    """Run; returns 2, with one message, for errors the user can fix."""
    prepare_console()
    args = parse_args(argv)
    try:
        run(args)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if os.environ.get("DASSL_TRACEBACK") == "1":
            raise
        for stream in filter(None, (sys.stderr, getattr(sys.stdout, "file", None))):  # stdout is copied to log.txt
            print(printable(f"error: {error}", keep="\n"), file=stream, flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The `train.py` of a repository with its own configuration tree, in the style of public ones.

Public ones build the tree in Python; here it comes from `defaults.yaml`, which has upstream Dassl's keys only.
"""

import argparse
from pathlib import Path

import trainers.guided_coop
from yacs.config import CfgNode as CN

import datasets  # noqa: F401
from dassl.engine import build_trainer
from dassl.utils import collect_env_info, set_random_seed, setup_logger


def get_cfg_default():
    with open(Path(__file__).with_name("defaults.yaml")) as file:
        return CN.load_cfg(file)


def setup_cfg(args):
    cfg = get_cfg_default()
    trainers.guided_coop.extend_cfg(cfg)
    cfg.merge_from_file(args.dataset_config_file)
    cfg.OUTPUT_DIR = args.output_dir
    cfg.TRAINER.NAME = args.trainer
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    return cfg


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--output-dir", type=str, default="")
    parser.add_argument("--dataset-config-file", type=str, default="")
    parser.add_argument("--trainer", type=str, default="")
    parser.add_argument("--eval-only", action="store_true")
    parser.add_argument("--model-dir", type=str, default="")
    parser.add_argument("--load-epoch", type=int)
    parser.add_argument("opts", default=None, nargs=argparse.REMAINDER)
    args = parser.parse_args(argv)

    cfg = setup_cfg(args)
    set_random_seed(cfg.SEED)
    setup_logger(cfg.OUTPUT_DIR)
    print(collect_env_info())
    trainer = build_trainer(cfg)
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        trainer.test()
        return
    trainer.train()

"""The values that each configuration key may have: one table for the keys in defaults.py.

A trainer in trainers/ adds its node's keys next to its defaults, with :func:`declare_ranges`. Keys without a row (a
plug-in's own) are not checked.
"""

from collections.abc import Iterator
from typing import Any

from voluptuous import ALLOW_EXTRA, MultipleInvalid, Schema
from yacs.config import CfgNode

from dassl.config.checks import (
    Check,
    device,
    flag,
    list_of,
    megabytes,
    number,
    odd,
    one_of,
    rising_fractions,
    switch,
    template,
    text,
    whole,
)
from dassl.config.defaults import setting
from dassl.config.merge import flatten, shown

__all__ = ["EPOCHS", "RANGES", "TRANSFORMS", "declare_ranges", "out_of_range"]

MANY = 10**6  # more epochs, shots or items in a batch than anyone needs
PIXELS = 2**13
PROBABILITY = number(0, 1)
FRACTION = number(0, below=1)
RATE = number(above=0)
NOT_NEGATIVE = number(0)
SIZE = whole(1, PIXELS)
SAMPLER = one_of("RandomSampler", "SequentialSampler", "RandomDomainSampler", "SeqDomainSampler", "RandomClassSampler")
BATCH = whole(1, MANY)
TRANSFORMS = one_of(
    *("random_flip", "random_resized_crop", "normalize", "instance_norm", "random_crop", "random_translation"),
    *("center_crop", "cutout", "imagenet_policy", "cifar10_policy", "svhn_policy", "randaugment"),
    *("randaugment_fixmatch", "randaugment2", "gaussian_noise", "colorjitter", "randomgrayscale", "gaussian_blur"),
)
EPOCHS = whole(1, MANY, or_else={0: "a trainer that takes no gradient steps"})

RANGES: dict[str, Check] = {
    "VERSION": whole(1, 1),
    "OUTPUT_DIR": text(),
    "RESUME": text(),
    "SEED": whole(0, 2**32 - 1, or_else={-1: "not seeded"}),
    "USE_CUDA": flag(),
    "DEVICE": device(),
    "VERBOSE": flag(),
    "PROTOCOL": text(),
    "INPUT.SIZE": list_of(SIZE, count=2),
    "INPUT.INTERPOLATION": one_of("bilinear", "bicubic", "nearest"),
    "INPUT.TRANSFORMS": list_of(TRANSFORMS),
    "INPUT.NO_TRANSFORM": flag(),
    "INPUT.PIXEL_MEAN": list_of(number(), count=3),
    "INPUT.PIXEL_STD": list_of(number(above=0), count=3),
    "INPUT.EXIF_ORIENTATION": flag(),
    "INPUT.CROP_PADDING": whole(0, PIXELS),
    "INPUT.RRCROP_SCALE": rising_fractions(),
    "INPUT.CUTOUT_N": whole(0, 1000),
    "INPUT.CUTOUT_LEN": SIZE,
    "INPUT.GN_MEAN": number(),
    "INPUT.GN_STD": NOT_NEGATIVE,
    "INPUT.RANDAUGMENT_N": whole(0, 100),
    "INPUT.RANDAUGMENT_M": whole(0, 30),
    "INPUT.COLORJITTER_B": NOT_NEGATIVE,
    "INPUT.COLORJITTER_C": NOT_NEGATIVE,
    "INPUT.COLORJITTER_S": NOT_NEGATIVE,
    "INPUT.COLORJITTER_H": number(0, 0.5),
    "INPUT.RGS_P": PROBABILITY,
    "INPUT.GB_P": PROBABILITY,
    "INPUT.GB_K": odd(PIXELS),
    "DATASET.ROOT": text(),
    "DATASET.NAME": text(),
    "DATASET.TEMPLATE": template(),
    "DATASET.SOURCE_DOMAINS": list_of(text()),
    "DATASET.TARGET_DOMAINS": list_of(text()),
    "DATASET.NUM_LABELED": whole(1, 10**9, or_else={-1: "all images"}),
    "DATASET.NUM_SHOTS": whole(1, MANY, or_else={-1: "all training images"}),
    "DATASET.SUBSAMPLE_CLASSES": one_of("all", "base", "new"),
    "DATASET.ON_BAD_IMAGE": one_of("error", "skip"),
    "DATASET.VAL_PERCENT": FRACTION,
    "DATASET.STL10_FOLD": whole(0, 9, or_else={-1: "all"}),
    "DATASET.CIFAR_C_TYPE": text(),
    "DATASET.CIFAR_C_LEVEL": whole(1, 5),
    "DATASET.ALL_AS_UNLABELED": flag(),
    "DATALOADER.NUM_WORKERS": whole(0, 256),
    "DATALOADER.K_TRANSFORMS": whole(1, 1000),
    "DATALOADER.RETURN_IMG0": flag(),
    "DATALOADER.CACHE_MB": megabytes(usual=2048),
    "DATALOADER.FEATURES": switch(),
    **{f"DATALOADER.{loader}.SAMPLER": SAMPLER for loader in ("TRAIN_X", "TRAIN_U", "TEST")},
    **{f"DATALOADER.{loader}.BATCH_SIZE": BATCH for loader in ("TRAIN_X", "TRAIN_U", "TEST")},
    **{f"DATALOADER.{loader}.N_DOMAIN": whole(0, MANY) for loader in ("TRAIN_X", "TRAIN_U")},
    **{f"DATALOADER.{loader}.N_INS": BATCH for loader in ("TRAIN_X", "TRAIN_U")},
    **{f"DATALOADER.{loader}.DROP_LAST": flag() for loader in ("TRAIN_X", "TRAIN_U")},
    "DATALOADER.TRAIN_U.SAME_AS_X": flag(),
    "MODEL.INIT_WEIGHTS": text(),
    "MODEL.BACKBONE.NAME": text(),
    "MODEL.BACKBONE.PRETRAINED": flag(),
    "MODEL.BACKBONE.ACTIVATION": one_of("", "quick_gelu", "gelu"),
    "MODEL.BACKBONE.PIXEL_MEAN": list_of(number(), count=3, or_empty=True),
    "MODEL.BACKBONE.PIXEL_STD": list_of(number(above=0), count=3, or_empty=True),
    "MODEL.HEAD.NAME": text(),
    "MODEL.HEAD.HIDDEN_LAYERS": list_of(whole(1, MANY)),
    "MODEL.HEAD.ACTIVATION": one_of("relu", "leaky_relu", "gelu", "tanh"),
    "MODEL.HEAD.BN": flag(),
    "MODEL.HEAD.DROPOUT": FRACTION,
    "OPTIM.NAME": one_of("adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw"),
    "OPTIM.LR": RATE,
    "OPTIM.WEIGHT_DECAY": NOT_NEGATIVE,
    "OPTIM.MOMENTUM": FRACTION,
    "OPTIM.SGD_DAMPNING": PROBABILITY,
    "OPTIM.SGD_NESTEROV": flag(),
    "OPTIM.RMSPROP_ALPHA": FRACTION,
    "OPTIM.ADAM_BETA1": FRACTION,
    "OPTIM.ADAM_BETA2": FRACTION,
    "OPTIM.ADAM_EPS": RATE,
    "OPTIM.STAGED_LR": flag(),
    "OPTIM.NEW_LAYERS": list_of(text()),
    "OPTIM.BASE_LR_MULT": NOT_NEGATIVE,
    "OPTIM.LR_SCHEDULER": one_of("single_step", "multi_step", "cosine"),
    "OPTIM.STEPSIZE": list_of(whole(1, MANY, or_else={-1: "MAX_EPOCH"}), least=1),
    "OPTIM.GAMMA": number(above=0, high=1),
    "OPTIM.LR_MIN": NOT_NEGATIVE,
    "OPTIM.LR_STEP": one_of("epoch", "iteration"),
    "OPTIM.MAX_EPOCH": EPOCHS,
    "OPTIM.STEPS_PER_SHOT": whole(0, MANY),
    "OPTIM.WARMUP_EPOCH": whole(0, MANY, or_else={-1: "no warm-up"}),
    "OPTIM.WARMUP_TYPE": one_of("constant", "linear"),
    "OPTIM.WARMUP_CONS_LR": RATE,
    "OPTIM.WARMUP_MIN_LR": RATE,
    "OPTIM.WARMUP_RECOUNT": flag(),
    "TRAIN.CHECKPOINT_FREQ": whole(0, MANY),
    "TRAIN.PRINT_FREQ": whole(1, 10**9),
    "TRAIN.LABEL_SMOOTHING": FRACTION,
    "TRAIN.RANDOMNESS": one_of("portable", "published"),
    "TRAIN.COUNT_ITER": one_of("train_x", "train_u", "smaller_one"),
    "TRAIN.ACCUMULATE": whole(1, MANY),
    "TRAIN.CHECKPOINT_TOWERS": flag(),
    "TRAIN.CUDA_GRAPH": switch("auto"),
    "TEST.EVALUATOR": text(),
    "TEST.PER_CLASS_RESULT": flag(),
    "TEST.PREDICTIONS": flag(),
    "TEST.COMPUTE_CMAT": flag(),
    "TEST.NO_TEST": flag(),
    "TEST.SPLIT": one_of("val", "test"),
    "TEST.FINAL_MODEL": one_of("last_step", "best_val"),
    "TRAINER.NAME": text(),
}


def declare_ranges(node: str, **checks: Check) -> None:
    """Add the keys of a node, such as ``declare_ranges("TRAINER.COOP", N_CTX=whole(1, 73))``."""
    RANGES.update({f"{node}.{key}": check for key, check in checks.items()})


def _declare_upstreams() -> None:
    """The nodes of upstream Dassl's trainers, which nothing here reads."""
    count, strong = whole(0, 10**9), list_of(TRANSFORMS)
    consistency = {"WEIGHT_U": NOT_NEGATIVE, "CONF_THRE": PROBABILITY, "STRONG_TRANSFORMS": strong}
    nodes: dict[str, dict[str, Check]] = {
        "MCD": {"N_STEP_F": count},
        "MME": {"LMDA": NOT_NEGATIVE},
        "CDAC": {
            **{"CLASS_LR_MULTI": NOT_NEGATIVE, "RAMPUP_COEF": NOT_NEGATIVE, "RAMPUP_ITRS": count},
            **{"TOPK_MATCH": count, "P_THRESH": PROBABILITY, "STRONG_TRANSFORMS": strong},
        },
        "SE": {"EMA_ALPHA": PROBABILITY, "CONF_THRE": PROBABILITY, "RAMPUP": count},
        "M3SDA": {"LMDA": NOT_NEGATIVE, "N_STEP_F": count},
        "DAEL": consistency,
        "CROSSGRAD": dict.fromkeys(("EPS_F", "EPS_D", "ALPHA_F", "ALPHA_D"), NOT_NEGATIVE),
        "DDAIG": {
            **{"G_ARCH": text(), "LMDA": NOT_NEGATIVE, "CLAMP": flag(), "CLAMP_MIN": number()},
            **{"CLAMP_MAX": number(), "WARMUP": count, "ALPHA": NOT_NEGATIVE},
        },
        "DAELDG": consistency,
        "DOMAINMIX": {"TYPE": one_of("crossdomain", "random"), "ALPHA": RATE, "BETA": RATE},
        "ENTMIN": {"LMDA": NOT_NEGATIVE},
        "MEANTEACHER": {"WEIGHT_U": NOT_NEGATIVE, "EMA_ALPHA": PROBABILITY, "RAMPUP": count},
        "MIXMATCH": {"WEIGHT_U": NOT_NEGATIVE, "TEMP": RATE, "MIXUP_BETA": RATE, "RAMPUP": count},
        "FIXMATCH": consistency,
    }
    for name, checks in nodes.items():
        declare_ranges(f"TRAINER.{name}", **checks)


_declare_upstreams()


def out_of_range(cfg: CfgNode) -> list[str]:
    """A line for every key whose value, alone or together with another key's, is not one of those it may have."""
    values = dict(flatten(cfg))
    try:
        Schema(RANGES, extra=ALLOW_EXTRA)(values)
    except MultipleInvalid as error:
        found = {str(one.path[0]): one.msg for one in error.errors}
        return [f"{key}: {shown(values[key])}, expected {expected}" for key, expected in found.items()]
    return list(_combinations(cfg))


def _combinations(cfg: CfgNode) -> Iterator[str]:
    optim: Any = cfg.OPTIM
    steps = list(optim.STEPSIZE)
    if optim.LR_SCHEDULER == "multi_step" and (steps[0] < 1 or steps != sorted(set(steps))):
        yield f"OPTIM.STEPSIZE: {steps}, expected ascending epochs from 1 for OPTIM.LR_SCHEDULER multi_step"
    if optim.LR_STEP == "iteration" and (optim.LR_SCHEDULER != "cosine" or optim.WARMUP_EPOCH > 0):
        yield "OPTIM.LR_STEP: iteration, expected OPTIM.LR_SCHEDULER cosine and OPTIM.WARMUP_EPOCH 0 with it"
    if optim.NAME == "sgd" and optim.SGD_NESTEROV and not (optim.MOMENTUM > 0 and optim.SGD_DAMPNING == 0):
        yield "OPTIM.SGD_NESTEROV: True, expected OPTIM.MOMENTUM above 0 and OPTIM.SGD_DAMPNING 0 with it"
    pieces = setting(cfg, "TRAIN.ACCUMULATE")
    if pieces > 1 and pieces > (size := setting(cfg, "DATALOADER.TRAIN_X.BATCH_SIZE")):
        yield f"TRAIN.ACCUMULATE: {pieces}, expected at most DATALOADER.TRAIN_X.BATCH_SIZE, {size}"
    if "gaussian_blur" in cfg.INPUT.TRANSFORMS and min(cfg.INPUT.SIZE) <= cfg.INPUT.GB_K // 2:
        yield f"INPUT.GB_K: {cfg.INPUT.GB_K}, expected less than twice INPUT.SIZE {tuple(cfg.INPUT.SIZE)}"

"""Every configuration key that is not a trainer's own, with its default and its meaning."""

from functools import reduce
from operator import getitem
from typing import Any

from yacs.config import CfgNode as CN

__all__ = ["default_tree", "setting"]


def setting(cfg: CN, key: str) -> Any:
    """The value at a dotted key such as "DATASET.ON_BAD_IMAGE", or its default where ``cfg`` has no such key.

    For keys that upstream Dassl does not have: a repository may use a configuration tree of its own without them.

    Raises:
        KeyError: neither ``cfg`` nor ``default_tree()`` has the key.
    """
    path = key.split(".")
    try:
        return reduce(getitem, path, cfg)
    except KeyError:
        return reduce(getitem, path, default_tree())


def default_tree() -> CN:
    """A fresh tree."""
    cfg = CN()
    cfg.VERSION = 1
    # Folder of everything a run writes; "" writes nothing
    cfg.OUTPUT_DIR = "./output"
    # Folder of an interrupted run to go on with; OUTPUT_DIR itself needs no mention
    cfg.RESUME = ""
    # 0 and above seed every generator; -1 leaves them random
    cfg.SEED = -1
    # Use the GPU if there is one
    cfg.USE_CUDA = True
    # Print what is built and with which settings
    cfg.VERBOSE = True
    # Protocol named in results.json: base2new, cross_dataset, few_shot, zero_shot; "" derives it
    cfg.PROTOCOL = ""
    cfg.INPUT = _input()
    cfg.DATASET = _dataset()
    cfg.DATALOADER = _dataloader()
    cfg.MODEL = _model()
    cfg.OPTIM = _optim()
    cfg.TRAIN = CN()
    # Save the model every so many epochs; 0: only the last
    cfg.TRAIN.CHECKPOINT_FREQ = 0
    # Print every so many batches
    cfg.TRAIN.PRINT_FREQ = 10
    # With labelled and unlabelled data, what an epoch's length is counted by: train_x, train_u, smaller_one
    cfg.TRAIN.COUNT_ITER = "train_x"
    cfg.TEST = _test()
    cfg.TRAINER = _trainers()
    return cfg


def _input() -> CN:
    node = CN()
    # Height, width
    node.SIZE = (224, 224)
    # bilinear, bicubic, nearest
    node.INTERPOLATION = "bilinear"
    # Names of the training transforms, see dassl.data.transforms; normalize also holds for testing
    node.TRANSFORMS = ()
    # No training transform at all: test transforms everywhere
    node.NO_TRANSFORM = False
    node.PIXEL_MEAN = [0.485, 0.456, 0.406]
    node.PIXEL_STD = [0.229, 0.224, 0.225]
    # random_crop: pixels of padding
    node.CROP_PADDING = 4
    # random_resized_crop: range of the area
    node.RRCROP_SCALE = (0.08, 1.0)
    # cutout: number and side of the holes
    node.CUTOUT_N = 1
    node.CUTOUT_LEN = 16
    # gaussian_noise: mean and standard deviation
    node.GN_MEAN = 0.0
    node.GN_STD = 0.15
    # randaugment: number and magnitude of the operations
    node.RANDAUGMENT_N = 2
    node.RANDAUGMENT_M = 10
    # colorjitter: brightness, contrast, saturation, hue
    node.COLORJITTER_B = 0.4
    node.COLORJITTER_C = 0.4
    node.COLORJITTER_S = 0.4
    node.COLORJITTER_H = 0.1
    # randomgrayscale: probability
    node.RGS_P = 0.2
    # gaussian_blur: probability and kernel side
    node.GB_P = 0.5
    node.GB_K = 21
    return node


def _dataset() -> CN:
    node = CN()
    # Folder that holds the datasets' folders; "" is ./data
    node.ROOT = ""
    node.NAME = ""
    node.SOURCE_DOMAINS = ()
    node.TARGET_DOMAINS = ()
    # Labelled images in all (semi-supervised datasets)
    node.NUM_LABELED = -1
    # Training images per class; -1: all
    node.NUM_SHOTS = -1
    # Which half of the classes: all, base (first), new (second)
    node.SUBSAMPLE_CLASSES = "all"
    # What to do about an image that cannot be read: error, skip
    node.ON_BAD_IMAGE = "error"
    # Share of the training data that becomes validation data where a dataset has none
    node.VAL_PERCENT = 0.1
    node.STL10_FOLD = -1
    node.CIFAR_C_TYPE = ""
    node.CIFAR_C_LEVEL = 1
    # Use the labelled training data as unlabelled data too
    node.ALL_AS_UNLABELED = False
    return node


def _loader(sampler: str, sampling: bool = True) -> CN:
    node = CN()
    # RandomSampler, SequentialSampler, RandomDomainSampler, SeqDomainSampler, RandomClassSampler
    node.SAMPLER = sampler
    node.BATCH_SIZE = 32
    if sampling:
        # RandomDomainSampler: domains in a batch; 0: all
        node.N_DOMAIN = 0
        # RandomClassSampler: images of each class in a batch
        node.N_INS = 16
    return node


def _dataloader() -> CN:
    node = CN()
    node.NUM_WORKERS = 4
    # Random views of each training image
    node.K_TRANSFORMS = 1
    # Also return the image without augmentation
    node.RETURN_IMG0 = False
    # MiB for the decoded images of few-shot training, all workers together; 0: none
    node.CACHE_MB = 2048
    node.TRAIN_X = _loader("RandomSampler")
    node.TRAIN_U = _loader("RandomSampler")
    # Sampler, batch size and so on of the unlabelled data are those of TRAIN_X
    node.TRAIN_U.SAME_AS_X = True
    node.TEST = _loader("SequentialSampler", sampling=False)
    return node


def _model() -> CN:
    node = CN()
    # Weights to start from
    node.INIT_WEIGHTS = ""
    node.BACKBONE = CN()
    node.BACKBONE.NAME = ""
    node.BACKBONE.PRETRAINED = True
    node.HEAD = CN()
    # "" is no head
    node.HEAD.NAME = ""
    node.HEAD.HIDDEN_LAYERS = ()
    node.HEAD.ACTIVATION = "relu"
    node.HEAD.BN = True
    node.HEAD.DROPOUT = 0.0
    return node


def _optim() -> CN:
    node = CN()
    # adam, amsgrad, sgd, rmsprop, radam, adamw
    node.NAME = "adam"
    node.LR = 0.0003
    node.WEIGHT_DECAY = 5e-4
    # sgd, rmsprop
    node.MOMENTUM = 0.9
    node.SGD_DAMPNING = 0.0
    node.SGD_NESTEROV = False
    node.RMSPROP_ALPHA = 0.99
    # adam, amsgrad, radam, adamw
    node.ADAM_BETA1 = 0.9
    node.ADAM_BETA2 = 0.999
    # The layers named in NEW_LAYERS learn at LR, all others at LR * BASE_LR_MULT
    node.STAGED_LR = False
    node.NEW_LAYERS = ()
    node.BASE_LR_MULT = 0.1
    # single_step, multi_step, cosine
    node.LR_SCHEDULER = "single_step"
    # single_step: the last entry is the period (-1: MAX_EPOCH); multi_step: the epochs
    node.STEPSIZE = (-1,)
    node.GAMMA = 0.1
    node.MAX_EPOCH = 10
    # 0 and below: no warm-up
    node.WARMUP_EPOCH = -1
    # constant, linear
    node.WARMUP_TYPE = "linear"
    node.WARMUP_CONS_LR = 1e-5
    node.WARMUP_MIN_LR = 1e-5
    # The decay counts its epochs from the end of the warm-up
    node.WARMUP_RECOUNT = True
    return node


def _test() -> CN:
    node = CN()
    node.EVALUATOR = "Classification"
    node.PER_CLASS_RESULT = False
    # Save the confusion matrix to OUTPUT_DIR/cmat.pt
    node.COMPUTE_CMAT = False
    # Skip the test after training
    node.NO_TEST = False
    # val, test
    node.SPLIT = "test"
    # The model tested after training: last_step, best_val
    node.FINAL_MODEL = "last_step"
    return node


def _trainers() -> CN:
    """The trainer's name, and the nodes of Dassl's own trainers: kept so that configs naming them still merge."""
    return CN(
        {
            "NAME": "",
            "MCD": {"N_STEP_F": 4},
            "MME": {"LMDA": 0.1},
            "CDAC": {
                "CLASS_LR_MULTI": 10,
                "RAMPUP_COEF": 30,
                "RAMPUP_ITRS": 1000,
                "TOPK_MATCH": 5,
                "P_THRESH": 0.95,
                "STRONG_TRANSFORMS": (),
            },
            "SE": {"EMA_ALPHA": 0.999, "CONF_THRE": 0.95, "RAMPUP": 300},
            "M3SDA": {"LMDA": 0.5, "N_STEP_F": 4},
            "DAEL": {"WEIGHT_U": 0.5, "CONF_THRE": 0.95, "STRONG_TRANSFORMS": ()},
            "CROSSGRAD": {"EPS_F": 1.0, "EPS_D": 1.0, "ALPHA_F": 0.5, "ALPHA_D": 0.5},
            "DDAIG": {
                "G_ARCH": "",
                "LMDA": 0.3,
                "CLAMP": False,
                "CLAMP_MIN": -1.0,
                "CLAMP_MAX": 1.0,
                "WARMUP": 0,
                "ALPHA": 0.5,
            },
            "DAELDG": {"WEIGHT_U": 0.5, "CONF_THRE": 0.95, "STRONG_TRANSFORMS": ()},
            "DOMAINMIX": {"TYPE": "crossdomain", "ALPHA": 1.0, "BETA": 1.0},
            "ENTMIN": {"LMDA": 1e-3},
            "MEANTEACHER": {"WEIGHT_U": 1.0, "EMA_ALPHA": 0.999, "RAMPUP": 5},
            "MIXMATCH": {"WEIGHT_U": 100.0, "TEMP": 2.0, "MIXUP_BETA": 0.75, "RAMPUP": 20000},
            "FIXMATCH": {"WEIGHT_U": 1.0, "CONF_THRE": 0.95, "STRONG_TRANSFORMS": ()},
        }
    )

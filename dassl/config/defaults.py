"""All configuration keys except those of the trainers in trainers/, with default and meaning.

The values that each key may have are in ranges.py.
"""

from functools import reduce
from operator import getitem
from typing import Any

from yacs.config import CfgNode as CN

__all__ = ["default_tree", "setting"]


def setting(cfg: CN, key: str) -> Any:
    """The value at a dotted key such as "DATASET.ON_BAD_IMAGE", or its default where ``cfg`` has no such key.

    For keys that upstream Dassl does not have: a repository may use its own configuration tree, without them.

    Raises:
        KeyError: neither ``cfg`` nor ``default_tree()`` has the key.
    """
    path = key.split(".")
    try:
        return reduce(getitem, path, cfg)
    except KeyError:
        return reduce(getitem, path, default_tree())


def default_tree() -> CN:
    """A new tree."""
    cfg = CN()
    cfg.VERSION = 1
    # Output folder of the run; "": write nothing
    cfg.OUTPUT_DIR = "./output"
    # Folder of an interrupted run to resume from; not needed if it is OUTPUT_DIR
    cfg.RESUME = ""
    # Seed of all random generators; -1: do not seed them
    cfg.SEED = -1
    # Use the GPU if there is one; only where DEVICE is auto
    cfg.USE_CUDA = True
    # Where to compute: auto (the GPU if there is one and USE_CUDA is True, else the CPU), cpu, cuda, cuda:N (N is the
    # number of a GPU, from 0), mps (an Apple GPU)
    cfg.DEVICE = "auto"
    # Print what is built, with its settings
    cfg.VERBOSE = True
    # Protocol in results.json: base2new, cross_dataset, few_shot, zero_shot; "": derived from the other keys
    cfg.PROTOCOL = ""
    cfg.INPUT = _input()
    cfg.DATASET = _dataset()
    cfg.DATALOADER = _dataloader()
    cfg.MODEL = _model()
    cfg.OPTIM = _optim()
    cfg.TRAIN = CN()
    # Save the model every CHECKPOINT_FREQ epochs; 0: only after the last
    cfg.TRAIN.CHECKPOINT_FREQ = 0
    # Read losses from the device and print them every PRINT_FREQ batches
    cfg.TRAIN.PRINT_FREQ = 10
    # With labelled and unlabelled data, the loader that determines an epoch's length: train_x, train_u, smaller_one
    cfg.TRAIN.COUNT_ITER = "train_x"
    # Random numbers: portable (batches do not depend on NUM_WORKERS), published (as the published code draws them at
    # the same SEED, NUM_WORKERS and version of torch)
    cfg.TRAIN.RANDOMNESS = "portable"
    # Label smoothing of the cross entropy, from 0 to below 1: the share of a label that all classes get in equal parts
    cfg.TRAIN.LABEL_SMOOTHING = 0.0
    # Compute a batch in ACCUMULATE pieces of about equal size, one after the other, whose gradients are added up: less
    # memory, the same step
    cfg.TRAIN.ACCUMULATE = 1
    # Keep only the inputs of the towers' blocks, and compute a block again in the backward pass: less memory, the same
    # gradients, up to a third more time
    cfg.TRAIN.CHECKPOINT_TOWERS = False
    # Launch the losses and gradients of a step, and the logits of a test, as CUDA graphs: off, auto (where a method and
    # its settings allow it), on (or else an error). Not yet measured on a GPU
    cfg.TRAIN.CUDA_GRAPH = "off"
    cfg.TEST = _test()
    cfg.TRAINER = _trainers()
    return cfg


def _input() -> CN:
    node = CN()
    # Height, width
    node.SIZE = (224, 224)
    # bilinear, bicubic, nearest
    node.INTERPOLATION = "bilinear"
    # Names of the training transforms, see dassl.data.transforms; normalize also applies to testing
    node.TRANSFORMS = ()
    # Turn images as their EXIF orientation says: for photos of one's own. Published numbers are measured without
    node.EXIF_ORIENTATION = False
    # No transforms: the dataset gives PIL images
    node.NO_TRANSFORM = False
    node.PIXEL_MEAN = [0.485, 0.456, 0.406]
    node.PIXEL_STD = [0.229, 0.224, 0.225]
    # random_crop: pixels of padding
    node.CROP_PADDING = 4
    # random_resized_crop: range of the area, as a fraction of the image
    node.RRCROP_SCALE = (0.08, 1.0)
    # cutout: number and side length (pixels) of the holes
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
    # gaussian_blur: probability and kernel size
    node.GB_P = 0.5
    node.GB_K = 21
    return node


def _dataset() -> CN:
    node = CN()
    # Folder that contains the dataset folders; "": ./data
    node.ROOT = ""
    node.NAME = ""
    node.SOURCE_DOMAINS = ()
    node.TARGET_DOMAINS = ()
    # Total number of labelled images (semi-supervised datasets)
    node.NUM_LABELED = -1
    # Training images per class; -1: all
    node.NUM_SHOTS = -1
    # Classes: all, base (first half), new (second half)
    node.SUBSAMPLE_CLASSES = "all"
    # Prompt of zero-shot CLIP with {} for the class name; "": the dataset's own
    node.TEMPLATE = ""
    # Action for an image that cannot be read: error, skip
    node.ON_BAD_IMAGE = "error"
    # Fraction of the training data used for validation if a dataset has no validation data
    node.VAL_PERCENT = 0.1
    node.STL10_FOLD = -1
    node.CIFAR_C_TYPE = ""
    node.CIFAR_C_LEVEL = 1
    # Also use the labelled training data as unlabelled data
    node.ALL_AS_UNLABELED = False
    return node


def _loader(sampler: str, sampling: bool = True) -> CN:
    node = CN()
    # RandomSampler, SequentialSampler, RandomDomainSampler, SeqDomainSampler, RandomClassSampler
    node.SAMPLER = sampler
    node.BATCH_SIZE = 32
    if sampling:
        # RandomDomainSampler: domains per batch; 0: all
        node.N_DOMAIN = 0
        # RandomClassSampler: images per class in a batch
        node.N_INS = 16
        # Leave out the last batch of an epoch if it is incomplete and not the only one
        node.DROP_LAST = True
    return node


def _dataloader() -> CN:
    node = CN()
    node.NUM_WORKERS = 4
    # Random views of each training image
    node.K_TRANSFORMS = 1
    # Also return the image without augmentation
    node.RETURN_IMG0 = False
    # MiB for caching decoded images in few-shot training, shared by all workers; 0: no cache
    node.CACHE_MB = 2048
    # Keep features of images from a frozen image tower on disk, where they are computed once: on, off
    node.FEATURES = "on"
    node.TRAIN_X = _loader("RandomSampler")
    node.TRAIN_U = _loader("RandomSampler")
    # Use the settings of TRAIN_X for the unlabelled data
    node.TRAIN_U.SAME_AS_X = True
    node.TEST = _loader("SequentialSampler", sampling=False)
    return node


def _model() -> CN:
    node = CN()
    # Weights to start from
    node.INIT_WEIGHTS = ""
    node.BACKBONE = CN()
    node.BACKBONE.NAME = ""
    # Activation of CLIP's MLPs: quick_gelu (OpenAI's weights) or gelu (most of open_clip's); "": what the model's
    # configuration states. Weights of which nothing states it need it
    node.BACKBONE.ACTIVATION = ""
    # Pixel statistics used instead of those in INPUT; (): what the model's configuration states, else those in INPUT
    node.BACKBONE.PIXEL_MEAN = ()
    node.BACKBONE.PIXEL_STD = ()
    node.BACKBONE.PRETRAINED = True
    node.HEAD = CN()
    # "": no head
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
    node.ADAM_EPS = 1e-8
    # Learning rate LR for the layers in NEW_LAYERS, LR * BASE_LR_MULT for all others
    node.STAGED_LR = False
    node.NEW_LAYERS = ()
    node.BASE_LR_MULT = 0.1
    # single_step, multi_step, cosine
    node.LR_SCHEDULER = "single_step"
    # single_step: the last entry is the period (-1: MAX_EPOCH); multi_step: the epochs
    node.STEPSIZE = (-1,)
    node.GAMMA = 0.1
    # cosine: the rate that it ends with
    node.LR_MIN = 0.0
    # When the rate changes: after every epoch, or (cosine without warm-up) after every iteration
    node.LR_STEP = "epoch"
    node.MAX_EPOCH = 10
    # Optimizer steps for each of DATASET.NUM_SHOTS shots, instead of MAX_EPOCH epochs; the last epoch ends early.
    # 0, or without shots: MAX_EPOCH epochs
    node.STEPS_PER_SHOT = 0
    # 0 or -1: no warm-up
    node.WARMUP_EPOCH = -1
    # constant, linear
    node.WARMUP_TYPE = "linear"
    node.WARMUP_CONS_LR = 1e-5
    node.WARMUP_MIN_LR = 1e-5
    # Count the epochs of the decay from the end of the warm-up
    node.WARMUP_RECOUNT = True
    return node


def _test() -> CN:
    node = CN()
    node.EVALUATOR = "Classification"
    node.PER_CLASS_RESULT = False
    # Save the confusion matrix to OUTPUT_DIR/cmat.pt, as shares, and cmat.csv, as numbers of images
    node.COMPUTE_CMAT = False
    # Save the predictions for all images to OUTPUT_DIR/predictions.csv
    node.PREDICTIONS = False
    # Do not test after training
    node.NO_TEST = False
    # val, test
    node.SPLIT = "test"
    # Model to test after training: last_step, best_val
    node.FINAL_MODEL = "last_step"
    return node


def _trainers() -> CN:
    """The trainer's name, and the nodes of upstream Dassl's trainers, so that files that mention them still merge."""
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

"""Published configs and settings that depend on the dataset trained on, the shots or the protocol.

A function for each, which a row of ``methods.METHODS`` names. They are facts of the released code and of its scripts.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

Protocol = Literal["base2new", "cross_dataset", "few_shot", "zero_shot"]
Config = str | Callable[[str, int], str]  # a name, or a function of the dataset trained on and the shots
# Settings of train.py, by the protocol, the dataset trained on and the shots
Settings = Callable[[Protocol, str, int], Mapping[str, Any]]


def coop_few_shot(dataset: str, shots: int) -> str:
    """CoOp and ProGrad train 50 epochs with 1 shot and on ImageNet, 100 with 2 and 4 shots, 200 with more."""
    if shots == 1 or dataset == "imagenet":
        return "vit_b16_ep50"
    return "vit_b16_ep100" if shots <= 4 else "vit_b16"


# CoPrompt's depth, tokens, weight of the consistency and epochs, where they differ from 12, 4, 8 and 8
_COPROMPT: dict[str, dict[str, Any]] = {
    "caltech101": {"W": 4},
    "oxford_pets": {"N_CTX": 2, "W": 0.1},
    "stanford_cars": {"W": 4},
    "oxford_flowers": {"PROMPT_DEPTH": 9},
    "food101": {"PROMPT_DEPTH": 9, "W": 0.5, "MAX_EPOCH": 5},
    "fgvc_aircraft": {"PROMPT_DEPTH": 9, "W": 2},
    "dtd": {"N_CTX": 2},
    "eurosat": {"N_CTX": 2, "W": 0.1},
    "ucf101": {"W": 2},
}


def coprompt(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    """The table of the published code for the dataset trained on."""
    own = {"PROMPT_DEPTH": 12, "N_CTX": 4, "W": 8, "MAX_EPOCH": 8} | _COPROMPT.get(dataset, {})
    epochs = own.pop("MAX_EPOCH")
    return {f"TRAINER.COPROMPT.{key}": value for key, value in own.items()} | {"OPTIM.MAX_EPOCH": epochs}


def tcp(protocol: Protocol, dataset: str, shots: int) -> dict[str, int]:
    """TCP's train.py sets 25 epochs for ImageNet and SUN397, whatever its config says."""
    return {"OPTIM.MAX_EPOCH": 25} if dataset in ("imagenet", "sun397") else {}


def prograd(dataset: str, shots: int) -> str:
    """ProGrad's released configs are for RN50. These have the same values with ViT-B/16, as all tables here."""
    return "vit_b16_ep50" if dataset == "imagenet" else "vit_b16_ep100"


def prograd_settings(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    if protocol == "few_shot" and shots >= 8 and dataset in ("oxford_flowers", "dtd", "eurosat"):
        return {"TRAINER.PROGRAD.LAMBDA": 0.8}
    return {}


def promptsrc_settings(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    """A comment in PromptSRC's few-shot config has other weights of the epochs for these datasets."""
    if protocol == "few_shot" and dataset in ("stanford_cars", "oxford_flowers", "fgvc_aircraft", "dtd", "eurosat"):
        return {"TRAINER.PROMPTSRC.GPA_MEAN": 45, "TRAINER.PROMPTSRC.GPA_STD": 5}
    return {}


# REG_WEIGHT of MMRL, and BETA and REG_WEIGHT of MMRL++; those of ImageNet are in its configs
_MMRL: dict[str, tuple[float, float, float]] = {
    **{"caltech101": (0.5, 0.6, 3), "oxford_pets": (0.2, 0.7, 0.01), "stanford_cars": (7, 0.7, 6)},
    **{"oxford_flowers": (4, 0.4, 7), "food101": (5, 0.1, 1), "fgvc_aircraft": (6, 0.9, 2), "sun397": (6, 0.5, 3)},
    **{"dtd": (6, 0.9, 7), "eurosat": (0.01, 0.2, 0.01), "ucf101": (3, 0.9, 3)},
}


def mmrl_config(dataset: str, shots: int) -> str:
    return "vit_b16_imagenet" if dataset == "imagenet" else "vit_b16"


def mmrl_few_shot(dataset: str, shots: int) -> str:
    return "vit_b16_imagenet" if dataset == "imagenet" else "vit_b16_few_shot"


def mmrl(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    """The table of the published code for the dataset trained on."""
    if protocol == "cross_dataset" or dataset not in _MMRL:
        return {}
    wide = {"TRAINER.MMRL.REP_DIM": 2048} if dataset == "eurosat" else {}
    return {"TRAINER.MMRL.REG_WEIGHT": _MMRL[dataset][0]} | wide


def mmrlpp(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    """The same of MMRL++."""
    if protocol == "cross_dataset" or dataset not in _MMRL:
        return {}
    _, beta, weight = _MMRL[dataset]
    wide = {"TRAINER.MMRLpp.REP_DIM": 2048} if dataset == "eurosat" else {}
    return {"TRAINER.MMRLpp.BETA": beta, "TRAINER.MMRLpp.REG_WEIGHT": weight} | wide


def atprompt_coop(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    """ATPrompt's scripts on CoOp; the config for transfers has its own."""
    if protocol == "cross_dataset":
        return {}
    return {"dtd": {"TRAINER.COOP.N_CTX": 4}, "imagenet": {"OPTIM.MAX_EPOCH": 10}}.get(dataset, {})


def atprompt_maple(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    """ATPrompt's scripts on MaPLe, likewise."""
    if protocol == "cross_dataset" or dataset in ("fgvc_aircraft", "ucf101"):
        return {}
    long = dataset in ("caltech101", "oxford_pets", "oxford_flowers", "eurosat")
    return {"TRAINER.MAPLE.N_CTX": 4} | ({"OPTIM.MAX_EPOCH": 10} if long else {})


def mma(dataset: str, shots: int) -> str:
    """MMA's batches on ImageNet are larger."""
    return "vit_b16_ep5_imnet" if dataset == "imagenet" else "vit_b16_ep5"


# Tip-Adapter's ends of the search for beta and alpha, and Tip-Adapter-F's initial alpha
_TIP_ADAPTER: dict[str, tuple[list[int], float]] = {
    "imagenet": ([7, 3], 1.17),
    "oxford_pets": ([7, 3], 1.17),
    "caltech101": ([12, 5], 3),
    "dtd": ([13, 13], 2),
    "eurosat": ([12, 10], 2),
    "fgvc_aircraft": ([30, 30], 5),
    "food101": ([10, 10], 1.17),
    "oxford_flowers": ([50, 50], 10),
    "stanford_cars": ([20, 10], 3),
    "sun397": ([12, 10], 1.17),
    "ucf101": ([7, 3], 3),
}


def tip_adapter(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    if dataset not in _TIP_ADAPTER:
        return {}
    return {"TRAINER.TIPADAPTER.SEARCH_SCALE": _TIP_ADAPTER[dataset][0]}


def tip_adapter_f(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    if dataset not in _TIP_ADAPTER:
        return {}
    scale, alpha = _TIP_ADAPTER[dataset]
    long = {"OPTIM.MAX_EPOCH": 100} if dataset == "eurosat" else {}
    return {"TRAINER.TIPADAPTERF.SEARCH_SCALE": scale, "TRAINER.TIPADAPTERF.INIT_ALPHA": alpha} | long


def clip_adapter_rn50(dataset: str, shots: int) -> str:
    return coop_few_shot(dataset, shots).replace("vit_b16", "rn50")


def taskres_rn50(dataset: str, shots: int) -> str:
    return taskres(dataset, shots).replace("vit_b16", "rn50")


def taskres(dataset: str, shots: int) -> str:
    return "vit_b16_ep100" if shots <= 4 else "vit_b16"


def taskres_settings(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    if dataset == "imagenet":
        return {"OPTIM.LR": 2e-4}
    return {"TRAINER.TASKRES.RESIDUAL_SCALE": 1.0} if dataset == "oxford_flowers" else {}

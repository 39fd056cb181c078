"""The methods: for each its trainer and its published config per protocol, one row per method."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dassl.utils.names import closest_hint
from experiments.runs import DEMONSTRATION

__all__ = ["METHODS", "Method", "Protocol", "method_named"]

Protocol = Literal["base2new", "cross_dataset", "few_shot", "zero_shot"]
Config = str | Callable[[str, int], str]  # a name, or a function of the dataset trained on and the shots
# Settings of train.py, by the protocol, the dataset trained on and the shots
Settings = Callable[[Protocol, str, int], Mapping[str, Any]]


@dataclass(frozen=True)
class Method:
    """A row of the table. Configs are names of files in configs/trainers/<trainer>/, without .yaml."""

    name: str  # its folder in scripts/
    trainer: str
    config: Config  # for base-to-new, and the default for the other protocols
    cross_dataset: Config | None = None
    few_shot: Config | None = None
    second: Config | None = None  # with another backbone, whose numbers are published: for CFG
    settings: Settings | None = None  # published ones that are not in the config
    demonstration: str = "vit_micro"  # for every protocol on the embedded demonstration
    trained: bool = True  # False: there is nothing to train, so every run is a test
    base: str = ""  # trainer that it is built on: settings of its node apply, too
    script_suffix: str = ""  # ends the published names of its scripts: base2new_train_vpt.sh
    published: str = ""  # its name in published.csv, whose numbers its published configs compare with
    # Protocols that it has no meaning in, and why; also cross_dataset or domain_generalization, the kinds of transfer
    undefined: Mapping[str, str] = field(default_factory=dict)

    def published_config(self, protocol: Protocol, dataset: str, shots: int) -> str:
        """The config that the published numbers of ``protocol`` come from, when ``dataset`` is trained on."""
        if dataset == DEMONSTRATION:
            return self.demonstration
        own = {"cross_dataset": self.cross_dataset, "few_shot": self.few_shot}.get(protocol)
        config = self.config if own is None else own
        return config if isinstance(config, str) else config(dataset, shots)

    def published_configs(self, protocol: Protocol, dataset: str, shots: int) -> tuple[str, ...]:
        """This config, and the one with another backbone that numbers are published of, too."""
        own = self.published_config(protocol, dataset, shots)
        if dataset == DEMONSTRATION or self.second is None:
            return (own,)
        return own, self.second if isinstance(self.second, str) else self.second(dataset, shots)

    def published_settings(self, protocol: Protocol, dataset: str, shots: int) -> tuple[str, ...]:
        """KEY VALUE pairs that the published numbers of ``protocol`` have besides the config's, likewise."""
        if dataset == DEMONSTRATION or self.settings is None:
            return ()
        found = self.settings(protocol, dataset, shots)
        return tuple(word for key, value in found.items() for word in (key, str(value)))


def _coop_few_shot(dataset: str, shots: int) -> str:
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


def _coprompt(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    """The table of the published code for the dataset trained on."""
    own = {"PROMPT_DEPTH": 12, "N_CTX": 4, "W": 8, "MAX_EPOCH": 8} | _COPROMPT.get(dataset, {})
    epochs = own.pop("MAX_EPOCH")
    return {f"TRAINER.COPROMPT.{key}": value for key, value in own.items()} | {"OPTIM.MAX_EPOCH": epochs}


def _tcp(protocol: Protocol, dataset: str, shots: int) -> dict[str, int]:
    """TCP's train.py sets 25 epochs for ImageNet and SUN397, whatever its config says."""
    return {"OPTIM.MAX_EPOCH": 25} if dataset in ("imagenet", "sun397") else {}


def _prograd(dataset: str, shots: int) -> str:
    """ProGrad's released configs are for RN50. These have the same values with ViT-B/16, as all tables here."""
    return "vit_b16_ep50" if dataset == "imagenet" else "vit_b16_ep100"


def _prograd_settings(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    if protocol == "few_shot" and shots >= 8 and dataset in ("oxford_flowers", "dtd", "eurosat"):
        return {"TRAINER.PROGRAD.LAMBDA": 0.8}
    return {}


def _promptsrc_settings(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
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


def _mmrl_config(dataset: str, shots: int) -> str:
    return "vit_b16_imagenet" if dataset == "imagenet" else "vit_b16"


def _mmrl_few_shot(dataset: str, shots: int) -> str:
    return "vit_b16_imagenet" if dataset == "imagenet" else "vit_b16_few_shot"


def _mmrl(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    """The table of the published code for the dataset trained on."""
    if protocol == "cross_dataset" or dataset not in _MMRL:
        return {}
    wide = {"TRAINER.MMRL.REP_DIM": 2048} if dataset == "eurosat" else {}
    return {"TRAINER.MMRL.REG_WEIGHT": _MMRL[dataset][0]} | wide


def _mmrlpp(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    """The same of MMRL++."""
    if protocol == "cross_dataset" or dataset not in _MMRL:
        return {}
    _, beta, weight = _MMRL[dataset]
    wide = {"TRAINER.MMRLpp.REP_DIM": 2048} if dataset == "eurosat" else {}
    return {"TRAINER.MMRLpp.BETA": beta, "TRAINER.MMRLpp.REG_WEIGHT": weight} | wide


def _atprompt_coop(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    """ATPrompt's scripts on CoOp; the config for transfers has its own."""
    if protocol == "cross_dataset":
        return {}
    return {"dtd": {"TRAINER.COOP.N_CTX": 4}, "imagenet": {"OPTIM.MAX_EPOCH": 10}}.get(dataset, {})


def _atprompt_maple(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    """ATPrompt's scripts on MaPLe, likewise."""
    if protocol == "cross_dataset" or dataset in ("fgvc_aircraft", "ucf101"):
        return {}
    long = dataset in ("caltech101", "oxford_pets", "oxford_flowers", "eurosat")
    return {"TRAINER.MAPLE.N_CTX": 4} | ({"OPTIM.MAX_EPOCH": 10} if long else {})


def _mma(dataset: str, shots: int) -> str:
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


def _tip_adapter(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    if dataset not in _TIP_ADAPTER:
        return {}
    return {"TRAINER.TIPADAPTER.SEARCH_SCALE": _TIP_ADAPTER[dataset][0]}


def _tip_adapter_f(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    if dataset not in _TIP_ADAPTER:
        return {}
    scale, alpha = _TIP_ADAPTER[dataset]
    long = {"OPTIM.MAX_EPOCH": 100} if dataset == "eurosat" else {}
    return {"TRAINER.TIPADAPTERF.SEARCH_SCALE": scale, "TRAINER.TIPADAPTERF.INIT_ALPHA": alpha} | long


def _clip_adapter_rn50(dataset: str, shots: int) -> str:
    return _coop_few_shot(dataset, shots).replace("vit_b16", "rn50")


def _taskres_rn50(dataset: str, shots: int) -> str:
    return _taskres(dataset, shots).replace("vit_b16", "rn50")


def _taskres(dataset: str, shots: int) -> str:
    return "vit_b16_ep100" if shots <= 4 else "vit_b16"


def _taskres_settings(protocol: Protocol, dataset: str, shots: int) -> dict[str, Any]:
    if dataset == "imagenet":
        return {"OPTIM.LR": 2e-4}
    return {"TRAINER.TASKRES.RESIDUAL_SCALE": 1.0} if dataset == "oxford_flowers" else {}


def _of_trained_classes(what: str) -> dict[str, str]:
    """The protocols that test other classes than those trained on, of a method that learns for each class."""
    return dict.fromkeys(("base2new", "cross_dataset"), f"{what}, so it has nothing for other classes")


METHODS = {
    method.name: method
    for method in (
        Method("zsclip", "ZeroshotCLIP", "vit_b16", trained=False, published="CLIP"),
        Method(
            "coop",
            "CoOp",
            "vit_b16_ep100_ctxv1",
            cross_dataset="vit_b16_ep50_ctxv1",
            few_shot=_coop_few_shot,
            published="CoOp",
        ),
        Method("cocoop", "CoCoOp", "vit_b16_c4_ep10_batch1_ctxv1", published="CoCoOp"),
        Method(
            "vpt",
            "VPT",
            "vit_b16_c2_ep5_batch4_4",
            script_suffix="vpt",
            published="VPT (deep vision, 8 ctx, depth 12, 5 epochs)",
        ),
        Method(
            "independent-vlp",
            "IVLP",
            "vit_b16_c2_ep5_batch4_2+2ctx",
            script_suffix="ivlp",
            published="IVLP (2+2 ctx, depth 12, 5 epochs)",
        ),
        Method(
            "language-prompting",
            "IVLP",
            "vit_b16_c2_ep5_batch4_4ctx_language_only",
            demonstration="vit_micro_language_only",
            script_suffix="lp",
            published="IVLP language only (4 ctx, depth 12, 5 epochs)",
        ),
        Method(
            "maple",
            "MaPLe",
            "vit_b16_c2_ep5_batch4_2ctx",
            cross_dataset="vit_b16_c2_ep5_batch4_2ctx_cross_datasets",
            script_suffix="maple",
            published="MaPLe",
        ),
        Method("coprompt", "CoPrompt", "coprompt", settings=_coprompt, published="CoPrompt"),
        Method("kgcoop", "KgCoOp", "vit_b16_ep100_ctxv1", published="KgCoOp"),
        Method("tcp", "TCP", "vit_b16_ep100_ctxv1", settings=_tcp, published="TCP"),
        Method(
            "promptsrc",
            "PromptSRC",
            "vit_b16_c2_ep20_batch4_4+4ctx",
            cross_dataset="vit_b16_c2_ep20_batch4_4+4ctx_cross_datasets",
            few_shot="vit_b16_c2_ep50_batch4_4+4ctx_few_shot",
            settings=_promptsrc_settings,
            published="PromptSRC",
        ),
        Method(
            "prograd",
            "ProGrad",
            _prograd,
            few_shot=_coop_few_shot,
            settings=_prograd_settings,
            published="ProGrad",
        ),
        Method(
            "mmrl",
            "MMRL",
            _mmrl_config,
            cross_dataset="vit_b16_cross_datasets",
            few_shot=_mmrl_few_shot,
            settings=_mmrl,
            published="MMRL",
        ),
        Method(
            "mmrlpp",
            "MMRLpp",
            _mmrl_config,
            cross_dataset="vit_b16_cross_datasets",
            few_shot=_mmrl_few_shot,
            settings=_mmrlpp,
            published="MMRL++",
        ),
        Method(
            "tip_adapter",
            "TipAdapter",
            "vit_b16",
            second="rn50",
            settings=_tip_adapter,
            published="Tip-Adapter",
            undefined=_of_trained_classes("its cache holds images of the classes that it was made for"),
        ),
        Method(
            "tip_adapter_f",
            "TipAdapterF",
            "vit_b16",
            second="rn50",
            settings=_tip_adapter_f,
            published="Tip-Adapter-F",
            undefined=_of_trained_classes("its cache holds images of the classes that it was made for"),
        ),
        Method("clip_adapter", "CLIPAdapter", _coop_few_shot, second=_clip_adapter_rn50, published="CLIP-Adapter"),
        Method(
            "taskres",
            "TaskRes",
            _taskres,
            cross_dataset="generalization_vit16",
            second=_taskres_rn50,
            settings=_taskres_settings,
            undefined=_of_trained_classes("it learns a residual for each class"),
        ),
        Method(
            "dept_coop",
            "DePT",
            "coop_vit_b16_ep10_bs4_lr35",
            demonstration="vit_micro_coop",
            base="CoOp",
            published="CoOp+DePT",
        ),
        Method(
            "dept_kgcoop",
            "DePT",
            "kgcoop_vit_b16_ep10_ctxv1_bs4_lr35",
            demonstration="vit_micro_kgcoop",
            base="KgCoOp",
            published="KgCoOp+DePT",
        ),
        Method(
            "dept_maple",
            "DePT",
            "maple_vit_b16_c2_ep10_batch4_2ctx",
            demonstration="vit_micro_maple",
            base="MaPLe",
            published="MaPLe+DePT",
        ),
        Method(
            "atprompt_coop",
            "ATPrompt",
            "coop_vit_b16",
            cross_dataset="coop_vit_b16_cross_datasets",
            settings=_atprompt_coop,
            demonstration="vit_micro_coop",
            base="CoOp",
            published="CoOp+ATPrompt",
        ),
        Method(
            "atprompt_maple",
            "ATPrompt",
            "maple_vit_b16_c2_ep5_batch4_2ctx",
            cross_dataset="maple_vit_b16_c2_ep5_batch4_2ctx_cross_datasets",
            settings=_atprompt_maple,
            demonstration="vit_micro_maple",
            base="MaPLe",
            published="MaPLe+ATPrompt",
        ),
        Method(
            "mma",
            "MultiModalAdapter",
            _mma,
            cross_dataset="vit_b16_ep1_cross_datasets",
            published="MMA",
        ),
        Method("clip_lora", "CLIPLoRA", "vit_b16", published="CLIP-LoRA"),
        Method("lpp", "LPpp", "vit_b16", undefined=_of_trained_classes("it learns weights for each class")),
        Method("clap", "CLAP", "vit_b16", undefined=_of_trained_classes("it learns weights for each class")),
        Method(
            "linear_probe", "LinearProbe", "vit_b16", undefined=_of_trained_classes("it learns weights for each class")
        ),
    )
}


def method_named(name: str) -> Method:
    """A row of the table.

    Raises:
        ValueError: there is none of that name; the message holds the closest ones.
    """
    if name not in METHODS:
        hint = closest_hint(name, METHODS)
        raise ValueError(f"no method '{name}' in experiments/methods.py{hint} There are: {', '.join(METHODS)}")
    return METHODS[name]

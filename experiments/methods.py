"""The methods: for each its trainer and its published config per protocol, one row per method."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dassl.utils.names import closest_hint
from experiments import published_settings
from experiments.published_settings import Config, Protocol, Settings
from experiments.runs import DEMONSTRATION

__all__ = ["METHODS", "Method", "Protocol", "method_named"]


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
            few_shot=published_settings.coop_few_shot,
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
        Method("coprompt", "CoPrompt", "coprompt", settings=published_settings.coprompt, published="CoPrompt"),
        Method("kgcoop", "KgCoOp", "vit_b16_ep100_ctxv1", published="KgCoOp"),
        Method("tcp", "TCP", "vit_b16_ep100_ctxv1", settings=published_settings.tcp, published="TCP"),
        Method(
            "promptsrc",
            "PromptSRC",
            "vit_b16_c2_ep20_batch4_4+4ctx",
            cross_dataset="vit_b16_c2_ep20_batch4_4+4ctx_cross_datasets",
            few_shot="vit_b16_c2_ep50_batch4_4+4ctx_few_shot",
            settings=published_settings.promptsrc_settings,
            published="PromptSRC",
        ),
        Method(
            "prograd",
            "ProGrad",
            published_settings.prograd,
            few_shot=published_settings.coop_few_shot,
            settings=published_settings.prograd_settings,
            published="ProGrad",
        ),
        Method(
            "mmrl",
            "MMRL",
            published_settings.mmrl_config,
            cross_dataset="vit_b16_cross_datasets",
            few_shot=published_settings.mmrl_few_shot,
            settings=published_settings.mmrl,
            published="MMRL",
        ),
        Method(
            "mmrlpp",
            "MMRLpp",
            published_settings.mmrl_config,
            cross_dataset="vit_b16_cross_datasets",
            few_shot=published_settings.mmrl_few_shot,
            settings=published_settings.mmrlpp,
            published="MMRL++",
        ),
        Method(
            "tip_adapter",
            "TipAdapter",
            "vit_b16",
            second="rn50",
            settings=published_settings.tip_adapter,
            published="Tip-Adapter",
            undefined=_of_trained_classes("its cache holds images of the classes that it was made for"),
        ),
        Method(
            "tip_adapter_f",
            "TipAdapterF",
            "vit_b16",
            second="rn50",
            settings=published_settings.tip_adapter_f,
            published="Tip-Adapter-F",
            undefined=_of_trained_classes("its cache holds images of the classes that it was made for"),
        ),
        Method(
            "clip_adapter",
            "CLIPAdapter",
            published_settings.coop_few_shot,
            second=published_settings.clip_adapter_rn50,
            published="CLIP-Adapter",
        ),
        Method(
            "taskres",
            "TaskRes",
            published_settings.taskres,
            cross_dataset="generalization_vit16",
            second=published_settings.taskres_rn50,
            settings=published_settings.taskres_settings,
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
            settings=published_settings.atprompt_coop,
            demonstration="vit_micro_coop",
            base="CoOp",
            published="CoOp+ATPrompt",
        ),
        Method(
            "atprompt_maple",
            "ATPrompt",
            "maple_vit_b16_c2_ep5_batch4_2ctx",
            cross_dataset="maple_vit_b16_c2_ep5_batch4_2ctx_cross_datasets",
            settings=published_settings.atprompt_maple,
            demonstration="vit_micro_maple",
            base="MaPLe",
            published="MaPLe+ATPrompt",
        ),
        Method(
            "mma",
            "MultiModalAdapter",
            published_settings.mma,
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

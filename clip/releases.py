"""Models by name: the nine that OpenAI released, with checksums and the hub's copies, and open_clip's."""

import csv
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

OPENAI_ADDRESS = "https://openaipublic.azureedge.net/clip/models"
HUB_FILE = "open_clip_model.safetensors"


class Release(NamedTuple):
    """One of the models that OpenAI released."""

    file: str
    sha256: str
    hub: str  # Hugging Face repository that holds the same weights

    @property
    def url(self) -> str:
        return f"{OPENAI_ADDRESS}/{self.sha256}/{self.file}"


RELEASES = {
    "RN50": Release(
        "RN50.pt",
        "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
        "timm/resnet50_clip.openai",
    ),
    "RN101": Release(
        "RN101.pt",
        "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
        "timm/resnet101_clip.openai",
    ),
    "RN50x4": Release(
        "RN50x4.pt",
        "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
        "timm/resnet50x4_clip.openai",
    ),
    "RN50x16": Release(
        "RN50x16.pt",
        "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
        "timm/resnet50x16_clip.openai",
    ),
    "RN50x64": Release(
        "RN50x64.pt",
        "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
        "timm/resnet50x64_clip.openai",
    ),
    "ViT-B/32": Release(
        "ViT-B-32.pt",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        "timm/vit_base_patch32_clip_224.openai",
    ),
    "ViT-B/16": Release(
        "ViT-B-16.pt",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        "timm/vit_base_patch16_clip_224.openai",
    ),
    "ViT-L/14": Release(
        "ViT-L-14.pt",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        "timm/vit_large_patch14_clip_224.openai",
    ),
    "ViT-L/14@336px": Release(
        "ViT-L-14-336px.pt",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        "timm/vit_large_patch14_clip_336.openai",
    ),
}
# Name: address. ViT-Micro/8 is a demonstration model in this package, see docs/BACKBONES.md.
MODELS = {name: release.url for name, release in RELEASES.items()}
MODELS["ViT-Micro/8"] = Path(__file__).resolve().with_name("ViT-Micro-8.pt").as_uri()


@lru_cache(maxsize=1)
def open_clip_models() -> dict[str, dict[str, str]]:
    """For each architecture of open_clip the tags of its weights, and the hub's repository of each.

    The table is that of open_clip_torch 3.3.0. It includes models that do not fit, which their configuration tells.
    """
    models: dict[str, dict[str, str]] = {}
    with open(Path(__file__).with_name("open_clip_names.csv"), encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            models.setdefault(row["architecture"], {})[row["tag"]] = row["repository"]
    return models

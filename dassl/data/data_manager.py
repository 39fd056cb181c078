"""Build the dataset and the data loaders of a configuration."""

import shlex
from collections.abc import Callable, Sequence
from typing import Any

import torchvision.transforms as T
from PIL import Image
from tabulate import tabulate
from torch.utils.data import Dataset as TorchDataset
from yacs.config import CfgNode

from dassl.config import setting
from dassl.utils import check_availability, choose_device, read_image

from .datasets import DatasetBase, Datum, build_dataset
from .image_cache import ImageCache
from .loader import BadImageError, LoadedItems, Loader
from .samplers import build_sampler
from .transforms import INTERPOLATION_MODES, build_transform, normalization


def build_data_loader(
    cfg: CfgNode,
    sampler_type: str = "SequentialSampler",
    data_source: Sequence[Datum] | None = None,
    batch_size: int = 64,
    n_domain: int = 0,
    n_ins: int = 2,
    tfm: Any = None,
    is_train: bool = True,
    dataset_wrapper: Callable[..., TorchDataset] | None = None,
    drop_last: bool = True,
) -> Loader:
    """Build a loader of ``data_source``.

    Args:
        cfg: DATALOADER.NUM_WORKERS, DEVICE, USE_CUDA, DATASET.ON_BAD_IMAGE and the keys that the wrapper reads.
        sampler_type: a name of ``samplers.AVAI_SAMPLERS``.
        data_source: the items.
        batch_size: items per batch.
        n_domain: domains per batch (RandomDomainSampler).
        n_ins: items per class in a batch (RandomClassSampler).
        tfm: transform, or list of transforms.
        is_train: whether this is training data.
        dataset_wrapper: called instead of DatasetWrapper, with the same arguments.
        drop_last: leave out an incomplete last batch of training data, unless it is the only one.

    Raises:
        ValueError: ``data_source`` is empty or None.
    """
    if not data_source:
        raise ValueError(
            f"The dataset {cfg.DATASET.NAME} has no items for this loader: check DATASET.ROOT and its split"
        )
    on_bad_image = setting(cfg, "DATASET.ON_BAD_IMAGE")
    check_availability(on_bad_image, ["error", "skip"], "DATASET.ON_BAD_IMAGE")
    wrapper = dataset_wrapper or DatasetWrapper
    dataset = wrapper(cfg, data_source, transform=tfm, is_train=is_train)
    num_workers = cfg.DATALOADER.NUM_WORKERS
    published = setting(cfg, "TRAIN.RANDOMNESS") == "published"
    return Loader(
        LoadedItems(dataset, is_train, skip_bad=on_bad_image == "skip", seeded=not published),
        published=published,
        batch_size=batch_size,
        sampler=build_sampler(
            sampler_type, cfg=cfg, data_source=data_source, batch_size=batch_size, n_domain=n_domain, n_ins=n_ins
        ),
        num_workers=num_workers,
        persistent_workers=is_train and num_workers > 0 and not published,
        drop_last=is_train and drop_last and len(data_source) >= batch_size,
        pin_memory=choose_device(cfg).type == "cuda",
    )


class DataManager:
    """The dataset of a configuration, and its loaders.

    Args:
        cfg: the configuration.
        custom_tfm_train: replaces the training transform.
        custom_tfm_test: replaces the test transform.
        dataset_wrapper: replaces DatasetWrapper.
    """

    def __init__(
        self,
        cfg: CfgNode,
        custom_tfm_train: Any = None,
        custom_tfm_test: Any = None,
        dataset_wrapper: Callable[..., TorchDataset] | None = None,
    ) -> None:
        dataset: DatasetBase = build_dataset(cfg)
        tfm_train = build_transform(cfg, is_train=True) if custom_tfm_train is None else custom_tfm_train
        tfm_test = build_transform(cfg, is_train=False) if custom_tfm_test is None else custom_tfm_test

        def train_loader(data_source: list[Datum] | None, node: CfgNode) -> Loader:
            return build_data_loader(
                cfg,
                sampler_type=node.SAMPLER,
                data_source=data_source,
                batch_size=node.BATCH_SIZE,
                n_domain=node.N_DOMAIN,
                n_ins=node.N_INS,
                tfm=tfm_train,
                is_train=True,
                dataset_wrapper=dataset_wrapper,
                drop_last=node.get("DROP_LAST", True),  # upstream's tree has no such key
            )

        def eval_loader(data_source: list[Datum] | None) -> Loader | None:
            if not data_source:
                return None
            return build_data_loader(
                cfg,
                sampler_type=cfg.DATALOADER.TEST.SAMPLER,
                data_source=data_source,
                batch_size=cfg.DATALOADER.TEST.BATCH_SIZE,
                tfm=tfm_test,
                is_train=False,
                dataset_wrapper=dataset_wrapper,
            )

        loaders = cfg.DATALOADER
        self.dataset = dataset
        self.train_loader_x = train_loader(dataset.train_x, loaders.TRAIN_X)
        self.train_loader_u = None
        if dataset.train_u:
            node_u = loaders.TRAIN_X if loaders.TRAIN_U.SAME_AS_X else loaders.TRAIN_U
            self.train_loader_u = train_loader(dataset.train_u, node_u)
        self.val_loader = eval_loader(dataset.val)
        self.test_loader = eval_loader(dataset.test)
        self._num_classes = dataset.num_classes
        self._num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self._lab2cname = dataset.lab2cname
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @property
    def num_source_domains(self) -> int:
        return self._num_source_domains

    @property
    def lab2cname(self) -> dict[int, str]:
        return self._lab2cname

    def show_dataset_summary(self, cfg: CfgNode) -> None:
        """Print the dataset's name, number of classes and sizes."""
        rows: list[list[Any]] = [["Dataset", cfg.DATASET.NAME]]
        if cfg.DATASET.SOURCE_DOMAINS:
            rows.append(["Source", ", ".join(cfg.DATASET.SOURCE_DOMAINS)])
        if cfg.DATASET.TARGET_DOMAINS:
            rows.append(["Target", ", ".join(cfg.DATASET.TARGET_DOMAINS)])
        rows.append(["# classes", f"{self.num_classes:,}"])
        for name in ("train_x", "train_u", "val", "test"):
            if items := getattr(self.dataset, name):
                rows.append([f"# {name}", f"{len(items):,}"])
        print(tabulate(rows))


class DatasetWrapper(TorchDataset):
    """Items as dicts of tensors: ``img`` (3, H, W), ``label``, ``domain``, ``impath``, ``index``.

    A list of transforms gives ``img``, ``img2``, …. With DATALOADER.K_TRANSFORMS > 1, each of them is a list of that
    many random views (training only). With DATALOADER.RETURN_IMG0, ``img0`` is the image without augmentation.

    Args:
        cfg: the configuration.
        data_source: the items.
        transform: transform, list of transforms, or None for the PIL image.
        is_train: whether this is training data.

    Raises:
        ValueError: K_TRANSFORMS > 1 without a transform.
    """

    def __init__(self, cfg: CfgNode, data_source: Sequence[Datum], transform: Any = None, is_train: bool = False):
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform  # callable, or list or tuple of callables
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise ValueError(f"DATALOADER.K_TRANSFORMS is {self.k_tfm}, but there is no transform to repeat")
        steps = [T.Resize(cfg.INPUT.SIZE, interpolation=INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]), T.ToTensor()]
        if "normalize" in cfg.INPUT.TRANSFORMS:
            steps.append(normalization(cfg))
        self.to_tensor = T.Compose(steps)
        self._upright = bool(setting(cfg, "INPUT.EXIF_ORIENTATION"))
        self._cache: ImageCache | None = None
        cache_mb = setting(cfg, "DATALOADER.CACHE_MB")
        if is_train and cfg.DATASET.NUM_SHOTS >= 1 and cache_mb > 0:
            self._cache = ImageCache(len(data_source), cache_mb * 2**20, cfg.DATALOADER.NUM_WORKERS)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        item = self.data_source[idx]
        output: dict[str, Any] = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": idx}
        img0 = self._image(idx, output["impath"])
        if self.transform is None:
            output["img"] = img0
        else:
            transforms = self.transform if isinstance(self.transform, (list, tuple)) else [self.transform]
            for number, tfm in enumerate(transforms, start=1):
                output["img" if number == 1 else f"img{number}"] = self._transform_image(tfm, img0)
        if self.return_img0:
            output["img0"] = self.to_tensor(img0)  # (3, H, W)
        return output

    def _image(self, idx: int, path: str) -> Image.Image:
        """The decoded image, from the cache if it is there."""
        if self._cache is not None and (cached := self._cache.get(idx)):
            return cached
        try:
            image = read_image(path, upright=self._upright)
        except (OSError, ValueError) as error:
            name, root = self.cfg.DATASET.NAME, shlex.quote(self.cfg.DATASET.ROOT or "./data")
            raise BadImageError(
                f"{error}\n  `python -m datasets check {name} --images --root {root}` lists all such images;"
                " replace them, or set DATASET.ON_BAD_IMAGE skip"
            ) from error
        if self._cache is not None:
            self._cache.put(idx, image)
        return image

    def _transform_image(self, tfm: Callable[[Image.Image], Any], img0: Image.Image) -> Any:
        """One random view, or a list of K_TRANSFORMS views."""
        images = [tfm(img0) for _ in range(self.k_tfm)]
        return images[0] if len(images) == 1 else images

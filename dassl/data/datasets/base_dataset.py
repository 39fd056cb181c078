"""The engine's view of a dataset: lists of items, the number of classes and their names."""

import os
import random
from collections import defaultdict
from collections.abc import Sequence
from itertools import count, islice
from pathlib import Path

from dassl.data.archives import unpack
from dassl.utils import check_availability, download_url, first_few


class Datum:
    """One image with its labels.

    Args:
        impath: path of the image file.
        label: class label, from 0.
        domain: domain label, from 0.
        classname: readable name of the class.
    """

    def __init__(self, impath: str = "", label: int = 0, domain: int = 0, classname: str = "") -> None:
        if not isinstance(impath, str):
            raise TypeError(f"impath must be a str, not {type(impath).__name__}: {impath!r}")
        self._impath = impath
        self._label = label
        self._domain = domain
        self._classname = classname

    @property
    def impath(self) -> str:
        return self._impath

    @property
    def label(self) -> int:
        return self._label

    @property
    def domain(self) -> int:
        return self._domain

    @property
    def classname(self) -> str:
        return self._classname

    def __repr__(self) -> str:
        return f"Datum({self._impath!r}, label={self._label}, domain={self._domain}, classname={self._classname!r})"


class DatasetBase:
    """Base of every dataset: labelled training, unlabelled training, validation and test items.

    Args:
        train_x: labelled training items; they define the classes.
        train_u: unlabelled training items.
        val: validation items.
        test: test items.

    Raises:
        ValueError: ``train_x`` is empty, its labels are not 0 … n-1, or a label has two names.
    """

    dataset_dir: str | Path = ""  # folder of the dataset under cfg.DATASET.ROOT
    domains: list[str] = []  # names of all domains

    def __init__(
        self,
        train_x: list[Datum] | None = None,
        train_u: list[Datum] | None = None,
        val: list[Datum] | None = None,
        test: list[Datum] | None = None,
    ) -> None:
        self._train_x = train_x
        self._train_u = train_u
        self._val = val
        self._test = test
        self._num_classes = self.get_num_classes(train_x or [])
        self._lab2cname, self._classnames = self.get_lab2cname(train_x or [])

    @property
    def notes(self) -> list[str]:
        """What a reader of the results must know about the data, such as classes with fewer images than shots."""
        return self.__dict__.setdefault("_notes", [])

    def note(self, text: str) -> None:
        """Print a line and keep it in ``notes``, which become part of ``results.json``."""
        print(f"Note: {text}")
        self.notes.append(text)

    @property
    def train_x(self) -> list[Datum] | None:
        return self._train_x

    @property
    def train_u(self) -> list[Datum] | None:
        return self._train_u

    @property
    def val(self) -> list[Datum] | None:
        return self._val

    @property
    def test(self) -> list[Datum] | None:
        return self._test

    @property
    def lab2cname(self) -> dict[int, str]:
        return self._lab2cname

    @property
    def classnames(self) -> list[str]:
        return self._classnames

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @staticmethod
    def get_num_classes(data_source: Sequence[Datum]) -> int:
        """The highest label plus one."""
        return max((item.label for item in data_source), default=-1) + 1

    @staticmethod
    def get_lab2cname(data_source: Sequence[Datum]) -> tuple[dict[int, str], list[str]]:
        """The class names by label, and as a list in the order of the labels.

        Raises:
            ValueError: no items, a gap in the labels (every later name would shift), or two names for one label.
        """
        if not data_source:
            raise ValueError("The dataset has no training items: an empty or wrong folder was read")
        names: dict[int, set[str]] = defaultdict(set)
        for item in data_source:
            names[item.label].add(item.classname)
        if min(names) < 0:
            raise ValueError(f"The training labels must start at 0, but {min(names)} was found")
        highest = max(names)
        if gaps := highest + 1 - len(names):
            missing = ", ".join(str(label) for label in islice((n for n in count() if n not in names), min(gaps, 5)))
            more = f", … ({gaps} in total)" if gaps > 5 else ""
            raise ValueError(
                f"The training labels must be 0 to {highest} without a gap, but no image has label "
                f"{missing}{more}: a class folder or lines of the split file are missing"
            )
        if double := {label: sorted(found) for label, found in names.items() if len(found) > 1}:
            raise ValueError(f"A label must have one class name, but these have several: {first_few(double.items())}")
        lab2cname = {label: next(iter(names[label])) for label in range(highest + 1)}
        return lab2cname, list(lab2cname.values())

    def check_input_domains(self, source_domains: list[str], target_domains: list[str]) -> None:
        """Raise a ValueError unless all the domains are among ``self.domains``."""
        self.is_input_domain_valid(source_domains)
        self.is_input_domain_valid(target_domains)

    def is_input_domain_valid(self, input_domains: list[str]) -> None:
        for domain in input_domains:
            check_availability(domain, self.domains)

    def download_data(self, url: str, dst: str, from_gdrive: bool = True) -> None:
        """Download an archive (any URL, or a Google Drive share link) to ``dst`` and unpack it in the same folder."""
        download_url(url, dst)
        print(f"Extracting {dst}")
        unpack(dst, os.path.dirname(dst) or ".")

    def generate_fewshot_dataset(
        self, *data_sources: list[Datum], num_shots: int = -1, repeat: bool = False
    ) -> list[Datum] | list[list[Datum]]:
        """Draw ``num_shots`` items of every class, classes in order of first appearance, with Python's generator.

        Args:
            data_sources: one or several lists of items.
            num_shots: items per class; below 1 all are kept.
            repeat: draw with replacement from a class with fewer items.

        Returns:
            A list for one source, else a list of lists.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else list(data_sources)
        print(f"Creating a {num_shots}-shot dataset")
        output = []
        for data_source in data_sources:
            drawn: list[Datum] = []
            for items in self.split_dataset_by_label(data_source).values():
                if len(items) >= num_shots:
                    drawn += random.sample(items, num_shots)
                else:
                    drawn += random.choices(items, k=num_shots) if repeat else items
            output.append(drawn)
        return output[0] if len(output) == 1 else output

    def split_dataset_by_label(self, data_source: Sequence[Datum]) -> dict[int, list[Datum]]:
        """The items by label, in order of first appearance."""
        output = defaultdict(list)
        for item in data_source:
            output[item.label].append(item)
        return output

    def split_dataset_by_domain(self, data_source: Sequence[Datum]) -> dict[int, list[Datum]]:
        """The items by domain, in order of first appearance."""
        output = defaultdict(list)
        for item in data_source:
            output[item.domain].append(item)
        return output

"""Merging YAML files and KEY VALUE options into the tree, with errors that name every bad key at once."""

import math
import reprlib
import warnings
from ast import literal_eval
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from dassl.config.yaml_file import DEEPEST, read_yaml

__all__ = ["config_name", "flatten", "merge_file", "merge_options", "shown"]

_MERGED_FILES = "__merged_files__"  # an attribute next to the keys, like yacs's own, so that clone() copies it
_MOST_PROBLEMS = 20  # of one source that are listed


def merge_file(cfg: CfgNode, path: str | Path) -> None:
    """Merge a YAML file into ``cfg``, all of it or nothing.

    Keys must exist, except that a file may add a whole new node under TRAINER (the settings of a plug-in); such a
    node accepts further keys. A new node whose name looks like a misspelt known one gives a warning.

    Raises:
        FileNotFoundError: no such file; the message lists the YAML files in the same folder.
        ValueError: no valid YAML (see :func:`read_yaml`), unknown keys (with the closest known ones) or values of the
            wrong type.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(_missing(path))
    loaded = read_yaml(path)
    added = _add_trainer_nodes(cfg, loaded.get("TRAINER"), path)
    try:
        _merge(cfg, list(flatten(loaded)), str(path))
    except ValueError:
        for name in added:
            del cfg.TRAINER[name]
        raise
    cfg.__dict__.setdefault(_MERGED_FILES, []).append(path)


def merge_options(cfg: CfgNode, options: Sequence[Any]) -> None:
    """Merge command-line options ``KEY VALUE KEY=VALUE …`` into ``cfg``; of a key given twice, the last value counts.

    Raises:
        ValueError: a key without a value, unknown keys (with the closest known ones) or values of the wrong type.
    """
    words = iter(options)
    pairs: list[tuple[str, Any]] = []
    for word in words:
        key, equals, value = str(word).partition("=")
        found: Any = value if equals else next(words, _ABSENT)
        if found is _ABSENT:
            raise ValueError(
                f"Options come as pairs KEY VALUE, but there are {len(options)} words: {shown(options)}. The last one,"
                f" {shown(key)}, has no value (KEY=VALUE is understood, too; write it without spaces)"
            )
        pairs.append((key, found))
    _merge(cfg, pairs, "the command line")


_ABSENT = object()


def shown(value: Any) -> str:
    """``repr(value)`` for a message, shortened."""
    try:
        return _SHORT.repr(value)
    except ValueError:
        return "a number of thousands of digits"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100
_SHORT.maxlist = _SHORT.maxtuple = 8


def config_name(cfg: CfgNode) -> str | None:
    """The name of the trainer's YAML file that was merged last, None if there was none."""
    files = [path for path in cfg.__dict__.get(_MERGED_FILES, []) if path.parent.name != "datasets"]
    return files[-1].stem if files else None


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a nested mapping as ("OPTIM.LR", value); an empty node is a leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _missing(path: Path) -> str:
    if path.is_dir():
        names = sorted(item.name for item in path.iterdir() if item.suffix in (".yaml", ".yml"))
        return f"{path} is a folder, not a config file. The YAML files in it: {', '.join(names) or 'none'}"
    if not path.parent.is_dir():
        existing = next(parent for parent in path.absolute().parents if parent.is_dir())
        names = sorted(item.name for item in existing.iterdir() if not item.name.startswith("."))
        return f"No config file {path}: {existing} holds {', '.join(names) or 'nothing'}"
    names = sorted(item.name for item in path.parent.iterdir() if item.suffix in (".yaml", ".yml"))
    return f"No config file {path}. The YAML files in {path.parent}: {', '.join(names) or 'none'}"


def _add_trainer_nodes(cfg: CfgNode, trainers: Any, path: Path) -> list[str]:
    """Add the new nodes under TRAINER, empty and open to any key; returns their names."""
    added = []
    known = [name for name, node in cfg.TRAINER.items() if isinstance(node, CfgNode)]
    for name, node in trainers.items() if isinstance(trainers, Mapping) else ():
        if name in cfg.TRAINER or not isinstance(node, Mapping) or not str(name).isidentifier():
            continue
        if similar := [other for other in known if _is_misspelling(name, other)]:
            warnings.warn(
                f"{path} adds TRAINER.{name}, a new node with a name close to TRAINER.{' and TRAINER.'.join(similar)}:"
                " correct it if it is misspelt, ignore this warning if a plug-in reads it",
                stacklevel=3,
            )
        cfg.TRAINER[name] = CfgNode(new_allowed=True)
        added.append(name)
    return added


def _is_misspelling(name: str, known: str) -> bool:
    """Whether ``name`` differs from ``known`` only in case, or by one letter replaced, dropped, added or swapped.

    A longer name that starts with a known one (MAPLE2, COOP_X) is deliberate; in names of up to three letters, one
    letter is too large a difference.
    """
    if name.upper() == known.upper():
        return True
    if min(len(name), len(known)) <= 3 or name.upper().startswith(known):
        return False
    a, b = name.upper(), known
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[start:], b[start:]
    swapped = a[:2] == b[:2][::-1] and a[2:] == b[2:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or swapped


def _merge(cfg: CfgNode, pairs: list[tuple[str, Any]], source: str) -> None:
    """Set all pairs, or none if there is any problem."""
    known = [key for key, _ in flatten(cfg)]
    changes: list[tuple[CfgNode, str, Any]] = []
    problems: list[str] = []
    for key, raw in pairs:
        if len(problems) == _MOST_PROBLEMS:
            problems.append("…")
            break
        node, name = _locate(cfg, key)
        if node is None:
            problems.append(f"{key[:100]}: no such key{_closest(key, known)}")
            continue
        try:
            changes.append((node, name, _coerce(raw, node.get(name))))
        except ValueError as error:
            problems.append(f"{key}: {error}")
    if problems:
        raise ValueError(f"Configuration from {source}:\n  " + "\n  ".join(problems))
    for node, name, value in changes:
        node[name] = value


def _locate(cfg: CfgNode, key: str) -> tuple[CfgNode | None, str]:
    """The node that holds ``key`` or accepts it, None if there is none; and the key's last part."""
    *parents, name = key.split(".")
    node = cfg
    if len(parents) > DEEPEST or not all(key.split(".")):
        return None, name
    for parent in parents:
        child = node.get(parent)
        if child is None and node.is_new_allowed():
            child = node[parent] = CfgNode(new_allowed=True)
        if not isinstance(child, CfgNode):
            return None, name
        node = child
    return (node if name in node or node.is_new_allowed() else None), name


def _closest(key: str, known: list[str]) -> str:
    """A hint with the known keys similar to ``key`` or to its last part: OPTIM.LR for OPTIM.LRR and TRAINER.LR."""
    if len(key) > 100:
        return ""
    by_upper = {name.upper(): name for name in known}
    close = [by_upper[name] for name in get_close_matches(key.upper(), by_upper, n=3, cutoff=0.7)]
    last = key.rsplit(".", 1)[-1].upper()
    close += [name for name in known if name.rsplit(".", 1)[-1] == last and name not in close][:3]
    return f" (did you mean {' or '.join(close[:4])}?)" if close else ""


def _coerce(raw: Any, default: Any) -> Any:
    """``raw`` read as the type of ``default``: "1e-5" a float, "(224, 224)" a tuple, 7 a string if the default is one.

    Raises:
        ValueError: ``raw`` cannot be read as that type.
    """
    value = _literal(raw) if isinstance(raw, str) else raw
    if isinstance(default, CfgNode):
        if isinstance(value, Mapping) and not value:
            return default
        raise ValueError(f"holds the keys {', '.join(default) or '(none)'}, not the value {shown(raw)}")
    if isinstance(value, Mapping):
        raise ValueError(f"takes a value such as {default!r}, not keys ({shown(raw)})" if value else "holds nothing")
    if default is None or type(value) is type(default):
        return value
    if isinstance(default, str) and isinstance(raw, (str, int, float)):
        return raw if isinstance(raw, str) else shown(raw)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**1000 else math.inf
    if isinstance(default, (tuple, list)) and isinstance(value, (tuple, list)):
        return type(default)(value)
    if isinstance(default, bool) and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError(f"takes {_kind(default)} such as {default!r}, not {shown(raw)}")


def _literal(text: str) -> Any:
    """The number, boolean, string, list or mapping that ``text`` spells, or else ``text`` itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in what may be a Windows path
            value = literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    return value if _is_plain(value) else text


def _is_plain(value: Any) -> bool:
    """Whether a config.yaml can hold it."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, (bool, int, float, str))


def _kind(value: Any) -> str:
    names = {bool: "True or False", int: "an integer", float: "a number", str: "a string", tuple: "a list"}
    return names.get(type(value), "a list")

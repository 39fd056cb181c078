"""Tables of names and classes, in which trainers, datasets and evaluators are found."""

from typing import Any

from dassl.utils.names import closest_hint

__all__ = ["Registry", "UnknownNameError"]


class UnknownNameError(KeyError, ValueError):
    """A name that is not registered. Its text is the plain message, not KeyError's quoted form."""

    def __str__(self) -> str:
        return str(self.args[0])


class Registry:
    """A named table of classes or functions.

    >>> BACKBONES = Registry("BACKBONE")
    >>> @BACKBONES.register()
    ... class Tiny: ...
    >>> BACKBONES.get("Tiny")
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._obj_map: dict[str, Any] = {}

    def _do_register(self, name: str, obj: Any, force: bool = False) -> None:
        if name in self._obj_map and not force:
            known = self._obj_map[name]
            raise KeyError(
                f"'{name}' is already registered in the {self._name} registry, by module {known.__module__};"
                f" give the one in {obj.__module__} another name or register it with force=True"
            )
        self._obj_map[name] = obj

    def register(self, obj: Any = None, force: bool = False) -> Any:
        """Register ``obj`` under its ``__name__``; without ``obj``, return a decorator that does so.

        Raises:
            KeyError: the name is taken and ``force`` is not set.
        """
        if obj is not None:
            self._do_register(obj.__name__, obj, force=force)
            return obj

        def decorator(fn_or_class: Any) -> Any:
            self._do_register(fn_or_class.__name__, fn_or_class, force=force)
            return fn_or_class

        return decorator

    def get(self, name: str) -> Any:
        """Return the object registered as ``name``.

        Raises:
            UnknownNameError: there is none; the message holds the closest names and all available ones.
        """
        if name not in self._obj_map:
            available = self.registered_names()
            raise UnknownNameError(
                f"'{name}' is not in the {self._name} registry{closest_hint(name, available)}"
                f" Available: {', '.join(sorted(available)) or 'nothing yet'}"
            )
        return self._obj_map[name]

    def registered_names(self) -> list[str]:
        """Return all names, in the order of registration."""
        return list(self._obj_map)

    def __contains__(self, name: str) -> bool:
        return name in self._obj_map

"""Reading a pickle as data, without importing or calling anything that it names.

``pickle.Unpickler`` calls what a file names, hashes what it builds, and allocates what it asks for. This reader walks
the operations that :mod:`pickletools` decodes and builds numbers, texts and plain containers. A name gives an inert
:class:`Placeholder`, unless the caller gave a constructor for it. The time and memory of a pickle are bounded by
``MAX_OPERATIONS``; what comes out can be walked recursively: no cycles, at most ``MAX_DEPTH`` containers deep.
"""

import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Any

__all__ = ["MAX_DEPTH", "MAX_OPERATIONS", "Placeholder", "PlainUnpickler", "check_depth", "plain_key"]

MAX_OPERATIONS = 1_000_000  # a checkpoint of 1,000 tensors takes 30,000
MAX_DEPTH = 100
MAX_INT_BITS = 1024

_CONTAINERS = (dict, list, tuple, set, frozenset)
_SIZED = (*_CONTAINERS, str, bytes, bytearray)


class Placeholder:
    """Stands for a class or function that a pickle names, or for an object of it, and does nothing.

    Attributes:
        origin: the name, ``module.name``.
        args: what it was called with; None for the name itself.
        state: what the pickle gave the object as its state.
    """

    __slots__ = ("args", "origin", "state")

    def __init__(self, origin: str, args: tuple[Any, ...] | None = None) -> None:
        self.origin, self.args = origin, args
        self.state: Any = None

    def __repr__(self) -> str:
        return f"<{self.origin}, not read>"


def check_depth(value: Any) -> None:
    """Raise a ValueError if containers are nested in each other too deep, or reach too many values through sharing."""
    measured: dict[int, tuple[int, int]] = {}  # by identity: containers inside each other, values inside

    def measure(value: Any, depth: int) -> tuple[int, int]:
        if not isinstance(value, _CONTAINERS):
            return 0, 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        if id(value) not in measured:
            height, size = 0, 1
            for item in value.values() if isinstance(value, dict) else value:
                below, inside = measure(item, depth + 1)
                height, size = max(height, below), size + inside
            measured[id(value)] = height + 1, size
        height, size = measured[id(value)]
        if height > MAX_DEPTH or size > MAX_OPERATIONS:
            raise ValueError(f"it is nested {height} deep around {size} values")
        return height, size

    measure(value, 1)


def plain_key(value: Any) -> Any:
    """`value` if it can be a dict's key or in a set: hashing anything else may take for ever."""
    plain = (str, bytes, int, float, bool, type(None), Placeholder)
    if isinstance(value, int) and abs(value) >= 2**61 - 1:  # beyond, many integers share a hash
        raise ValueError("a key is too large a number")
    if isinstance(value, plain) or (
        isinstance(value, tuple) and len(value) < 10 and all(isinstance(item, plain) for item in value)
    ):
        return value
    raise ValueError(f"a key is a {type(value).__name__}")


class PlainUnpickler:
    """Builds the plain objects of one pickle.

    Args:
        constructors: called with a pickle's arguments, by ``module.name``.
        constants: stands for a name itself, None if it is to be a :class:`Placeholder`.
        persistent: gives the object of a persistent id.
    """

    def __init__(
        self,
        constructors: Mapping[str, Callable[..., Any]],
        constants: Callable[[str], Any] = lambda origin: None,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self._constructors, self._constants, self._persistent = constructors, constants, persistent
        self._left = MAX_OPERATIONS

    def load(self, stream: BytesIO) -> Any:
        """The object of the pickle at the stream's position, which is behind the pickle afterwards.

        Raises:
            ValueError: it is no pickle, or one that a plain object cannot come from.
        """
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}
        for opcode, argument, _ in _operations(stream):
            self._spend(1)
            if opcode.name in _VALUES:
                if isinstance(argument, int) and argument.bit_length() > MAX_INT_BITS:
                    raise ValueError(f"a number of {argument.bit_length()} bits")
                self._stack.append(argument)
            elif opcode.name in _OPERATIONS:
                try:
                    _OPERATIONS[opcode.name](self, argument)
                except (IndexError, KeyError, TypeError, AttributeError) as error:
                    raise ValueError(f"its operation {opcode.name} does not fit ({error})") from error
            elif opcode.name != "STOP":
                raise ValueError(f"the operation {opcode.name}")
        result = self._stack.pop() if self._stack else None
        if self._stack or self._marks:
            raise ValueError("it ends before its objects do")
        check_depth(result)
        return result

    def _spend(self, operations: int) -> None:
        self._left -= operations
        if self._left < 0:
            raise ValueError(f"it takes more than {MAX_OPERATIONS:,} operations")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _marked(self) -> list[Any]:
        """Take everything above the last mark off the stack."""
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _mark(self, argument: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _pop(self, argument: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._marked()

    def _pop_mark(self, argument: Any) -> None:
        self._marked()

    def _put(self, argument: Any) -> None:
        self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]

    def _get(self, argument: int) -> None:
        self._stack.append(self._memo[argument])

    def _global(self, argument: str | None) -> None:
        if argument is None:
            name, module = self._stack.pop(), self._stack.pop()
            if not (isinstance(module, str) and isinstance(name, str)):
                raise TypeError("a name that is no text")
        else:
            module, _, name = argument.partition(" ")
        origin = f"{module}.{name}"
        constant = self._constants(origin)
        self._stack.append(Placeholder(origin) if constant is None else constant)

    def _call(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, Placeholder) or not isinstance(arguments, tuple):
            raise TypeError(f"it calls a {type(function).__name__}")
        constructor = None if function.args is not None else self._constructors.get(function.origin)
        if constructor is None:
            self._stack.append(Placeholder(function.origin, arguments))
        else:
            self._spend(sum(len(argument) for argument in arguments if isinstance(argument, _SIZED)))
            self._stack.append(constructor(*arguments))

    def _reduce(self, argument: Any) -> None:
        arguments = self._stack.pop()
        self._call(self._stack.pop(), arguments)

    def _new_with_keywords(self, argument: Any) -> None:
        self._stack.pop()
        self._reduce(argument)

    def _instance(self, argument: str) -> None:
        arguments = tuple(self._marked())
        self._global(argument)
        self._call(self._stack.pop(), arguments)

    def _object(self, argument: Any) -> None:
        function, *arguments = self._marked()
        self._call(function, tuple(arguments))

    def _build(self, argument: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Placeholder) and target.args is not None:
            target.state = state
        elif not isinstance(target, (dict, set)):  # the state of a dict is its attributes, which nothing needs
            raise TypeError(f"it sets the state of a {type(target).__name__}")

    def _persistent_id(self, argument: Any) -> None:
        if self._persistent is None:
            raise TypeError("a persistent id")
        self._stack.append(self._persistent(self._stack.pop()))

    def _extend(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Placeholder):
            raise TypeError(f"it appends to a {type(target).__name__}")

    def _append(self, argument: Any) -> None:
        item = self._stack.pop()
        self._extend(self._stack[-1], [item])

    def _appends(self, argument: Any) -> None:
        items = self._marked()
        self._extend(self._stack[-1], items)

    def _fill(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[plain_key(key)] = value
        elif not isinstance(target, Placeholder):
            raise TypeError(f"it sets an item of a {type(target).__name__}")

    def _set_item(self, argument: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._fill(self._stack[-1], [key, value])

    def _set_items(self, argument: Any) -> None:
        items = self._marked()
        self._fill(self._stack[-1], items)

    def _dict(self, argument: Any) -> None:
        items = self._marked()
        self._stack.append({})
        self._fill(self._stack[-1], items)

    def _add_items(self, argument: Any) -> None:
        items = self._marked()
        if isinstance(self._stack[-1], set):
            self._stack[-1].update(map(plain_key, items))
        elif not isinstance(self._stack[-1], Placeholder):
            raise TypeError(f"it adds to a {type(self._stack[-1]).__name__}")

    def _last(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError("the stack is empty")
        self._stack[-count:] = [tuple(self._stack[-count:])]


def _operations(stream: BytesIO) -> Iterator[tuple[pickletools.OpcodeInfo, Any, Any]]:
    try:
        yield from pickletools.genops(stream)
    except (ValueError, struct.error) as error:
        raise ValueError(f"its pickle is damaged or cut ({error})") from error


_VALUES = {opcode.name for opcode in pickletools.opcodes if opcode.name.startswith(("BININT", "LONG1", "LONG4"))}
_VALUES |= {"INT", "LONG", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE"}
_VALUES |= {"SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}

_OPERATIONS: dict[str, Callable[[PlainUnpickler, Any], None]] = {
    "PROTO": lambda self, argument: None,
    "FRAME": lambda self, argument: None,
    "NONE": lambda self, argument: self._push(None),
    "NEWTRUE": lambda self, argument: self._push(True),
    "NEWFALSE": lambda self, argument: self._push(False),
    "EMPTY_LIST": lambda self, argument: self._push([]),
    "EMPTY_TUPLE": lambda self, argument: self._push(()),
    "EMPTY_DICT": lambda self, argument: self._push({}),
    "EMPTY_SET": lambda self, argument: self._push(set()),
    "LIST": lambda self, argument: self._push(self._marked()),
    "TUPLE": lambda self, argument: self._push(tuple(self._marked())),
    "FROZENSET": lambda self, argument: self._push(frozenset(map(plain_key, self._marked()))),
    "TUPLE1": lambda self, argument: self._last(1),
    "TUPLE2": lambda self, argument: self._last(2),
    "TUPLE3": lambda self, argument: self._last(3),
    "DICT": PlainUnpickler._dict,
    "MARK": PlainUnpickler._mark,
    "POP": PlainUnpickler._pop,
    "POP_MARK": PlainUnpickler._pop_mark,
    "DUP": lambda self, argument: self._push(self._stack[-1]),
    "APPEND": PlainUnpickler._append,
    "APPENDS": PlainUnpickler._appends,
    "SETITEM": PlainUnpickler._set_item,
    "SETITEMS": PlainUnpickler._set_items,
    "ADDITEMS": PlainUnpickler._add_items,
    "GLOBAL": PlainUnpickler._global,
    "STACK_GLOBAL": PlainUnpickler._global,
    "REDUCE": PlainUnpickler._reduce,
    "NEWOBJ": PlainUnpickler._reduce,
    "NEWOBJ_EX": PlainUnpickler._new_with_keywords,
    "INST": PlainUnpickler._instance,
    "OBJ": PlainUnpickler._object,
    "BUILD": PlainUnpickler._build,
    "BINPERSID": PlainUnpickler._persistent_id,
}
_OPERATIONS |= dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), PlainUnpickler._put)
_OPERATIONS |= dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), PlainUnpickler._get)

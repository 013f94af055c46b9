"""A reader of pickles that calls nothing: instructions in, dictionaries and lists out."""

import dataclasses

_MARK = object()
# Instructions that push their argument as it is.
_VALUES = frozenset(
    {
        "BININT",
        "BININT1",
        "BININT2",
        "INT",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
    }
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_ORDERED_DICT = "collections.OrderedDict"
_REBUILD = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"


@dataclasses.dataclass(frozen=True)
class Opaque:
    """A placeholder for a class, a function, or what one of them would have made.

    Attributes:
        name: `module.name`, empty for what would have been made.
    """

    name: str = ""


class Reader:
    """Reads the instructions of one pickle.

    Args:
        storage: Called with a persistent identifier (a tuple); gives a tensor's storage.
        tensor: Called with `(storage, offset, size, stride, ...)`; gives a tensor.
    """

    def __init__(self, storage, tensor):
        self._storage, self._tensor = storage, tensor
        self._stack, self._memo = [], {}

    def read(self, instructions):
        """The pickled value.

        Args:
            instructions: What `pickletools.genops` gives.

        Raises:
            ValueError, IndexError, ...: If the pickle is damaged or holds an unknown instruction.
        """
        for operation, argument, _ in instructions:
            if operation.name == "STOP":
                return self._stack.pop()
            self._step(operation.name, argument)
        raise ValueError("no end")

    def _step(self, name, argument):
        stack = self._stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack[-count:] = [tuple(stack[-count:])]
        else:
            getattr(self, f"_{name.lower()}")(argument)

    def _since_mark(self):
        position = len(self._stack) - 1
        while self._stack[position] is not _MARK:
            position -= 1
            if position < 0:
                raise ValueError("no mark")
        values = self._stack[position + 1 :]
        del self._stack[position:]
        return values

    def _proto(self, _):
        pass

    def _frame(self, _):
        pass

    def _mark(self, _):
        self._stack.append(_MARK)

    def _pop(self, _):
        self._stack.pop()

    def _pop_mark(self, _):
        self._since_mark()

    def _empty_dict(self, _):
        self._stack.append({})

    def _empty_list(self, _):
        self._stack.append([])

    def _empty_set(self, _):
        self._stack.append([])

    def _tuple(self, _):
        self._stack.append(tuple(self._since_mark()))

    def _list(self, _):
        self._stack.append(self._since_mark())

    def _dict(self, _):
        values = self._since_mark()
        self._stack.append(dict(zip(values[::2], values[1::2], strict=True)))

    def _append(self, _):
        self._extend([self._stack.pop()])

    def _appends(self, _):
        self._extend(self._since_mark())

    def _additems(self, _):
        self._extend(self._since_mark())

    def _extend(self, values):
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(values)

    def _setitem(self, _):
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def _setitems(self, _):
        self._update(self._since_mark())

    def _update(self, values):
        if isinstance(self._stack[-1], dict):
            self._stack[-1].update(zip(values[::2], values[1::2], strict=True))

    def _memoize(self, _):
        self._memo[len(self._memo)] = self._stack[-1]

    def _put(self, argument):
        self._memo[int(argument)] = self._stack[-1]

    _binput = _long_binput = _put

    def _get(self, argument):
        self._stack.append(self._memo[int(argument)])

    _binget = _long_binget = _get

    def _global(self, argument):
        self._stack.append(Opaque(argument.replace(" ", ".")))

    def _stack_global(self, _):
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(Opaque(f"{module}.{name}"))

    def _binpersid(self, _):
        self._stack.append(self._storage(self._stack.pop()))

    def _reduce(self, _):
        """What calling a function would give: of three functions that is known."""
        arguments, function = self._stack.pop(), self._stack.pop()
        name = function.name if isinstance(function, Opaque) else ""
        if name == _ORDERED_DICT:
            self._stack.append(dict(*arguments))
        elif name == _REBUILD:
            self._stack.append(self._tensor(*arguments))
        elif name == _PARAMETER:
            self._stack.append(arguments[0])
        else:
            self._stack.append(Opaque())

    def _newobj(self, _):
        del self._stack[-2:]
        self._stack.append(Opaque())

    def _newobj_ex(self, _):
        del self._stack[-3:]
        self._stack.append(Opaque())

    def _build(self, _):
        self._stack.pop()  # the state of an object that was not made

"""How values are taken apart: the shape of every type, one level deep.

Owns the table of types. Walking from shape to shape, cycles and the digest are ``fingerprint``'s; the bytes of arrays
are ``arrays``'s; what code consists of is ``codeid``'s. An object without a place in the table is taken apart as
pickling would, but not pickled: a pickle's bytes depend on identity and on the order of sets.
"""

from __future__ import annotations

import copyreg
import functools
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from localrun.model.identity import arrays, codeid, ownership
from localrun.model.identity.bytecode import canonical
from localrun.model.identity.shapes import CODE, PART, VALUE, Known, Shape, Unfit, full_name, text_part

_NEW_OBJECT = vars(copyreg)["__newobj__"]
# What holds these changes with time, and says nothing of the code that holds it.
_RESTLESS = frozenset({"weakref", "_weakref", "_weakrefset", "threading", "_thread"})

Shaper = Callable[[Any, int], Shape]


def shape_of(value: Any, mode: int) -> Shape:
    """The shape of a value that is no leaf. Raises: Unfit."""
    cls = type(value)
    shaper = _SHAPERS.get(cls) or _found.get(cls)
    if shaper is None:
        shaper = _found[cls] = _find(cls)
    return shaper(value, mode)


def opaque(value: Any) -> Shape:
    """The shape of what code reaches but has no content to speak of: its class and the functions it holds."""
    try:
        held = dict(getattr(value, "__dict__", {}))
    except Exception:  # noqa: BLE001 - a proxy for something that isn't there now
        held = {}
    functions = [held[name] for name in sorted(held, key=str) if isinstance(held[name], FunctionType)]
    return Shape(b"opaque", (type(value), *functions), mode=CODE)


def _flat(pairs: dict[Any, Any]) -> list[Any]:
    return [part for pair in pairs.items() for part in pair]


def _dict(value: dict[Any, Any], mode: int) -> Shape:
    return Shape(b"dict", _flat(value), group=2, place="key")


def _class_of(value: Any, mode: int) -> tuple[bytes, tuple[type, ...]]:
    """The class of an instance: its name and, if its code counts, itself."""
    cls = type(value)
    by_code = mode != VALUE and codeid.is_user_code(cls)
    return (b"", (cls,)) if by_code else (full_name(cls).encode(), ())


def _set(value: Any, mode: int) -> Shape:
    """A subclass of set or frozenset."""
    name, cls = _class_of(value, mode)
    return Shape(b"set:" + name, (*cls, frozenset(value), getattr(value, "__dict__", None)))


def _function(fn: FunctionType, mode: int) -> Shape:
    closure = fn.__closure__ or ()
    if not codeid.is_user_code(fn):
        # A wrapper made by an installed decorator has what it wraps in its closure; other functions are their names.
        made = "<locals>" in fn.__qualname__ or ownership.is_user_module(fn.__module__ or "")
        name = f"{fn.__globals__.get('__name__')}.{fn.__code__.co_qualname}" if made else full_name(fn)
        return Shape(b"name:" + name.encode(), (*closure, *codeid.wrapped(fn)) if made else (), mode=CODE)
    imported = [codeid.imported_module(name) for name in codeid.imports_of(fn)]
    own = (fn.__code__, fn.__defaults__, fn.__kwdefaults__)
    reached = (closure, codeid.used_globals(fn), tuple(codeid.wrapped(fn)), [each for each in imported if each])
    # Most functions reach little, and nothing is told sooner than what an empty tuple holds.
    return Shape(b"function", (*own, *(each or None for each in reached)), mode=CODE)


def _code(code: CodeType, mode: int) -> Shape:
    return Shape(b"code", (sys.version_info[:2], *canonical(code)[:4]))


def _imported(module: codeid.ImportedModule, mode: int) -> Shape:
    below = [codeid.imported_module(name) for name in module.imports]
    return Shape(b"import:" + module.name.encode(), (module.code, *[each for each in below if each]))


def _cell(cell: CellType, mode: int) -> Shape:
    try:
        return Shape(b"cell", (cell.cell_contents,))
    except ValueError:
        return Shape(b"empty cell")


def _class(cls: type, mode: int) -> Shape:
    if not codeid.is_user_code(cls):
        return Shape(b"name:" + full_name(cls).encode())
    if mode == VALUE:
        return Shape(b"class:" + full_name(cls).encode(), (cls,), mode=CODE)
    head = b"class:" + cls.__qualname__.encode()
    return Shape(head, (type(cls), cls.__bases__, codeid.class_attributes(cls)), mode=CODE)


def _builtin(fn: Any, mode: int) -> Shape:
    """A function written in C, or a method of one, bound to an object."""
    if fn.__self__ is None or isinstance(fn.__self__, ModuleType):
        module = fn.__module__ or getattr(fn.__self__, "__name__", "")
        return Shape(f"name:{module}.{fn.__qualname__}".encode())
    return Shape(b"builtin method:" + fn.__name__.encode(), (_owner(fn),))


def _owner(method: Any) -> Any:
    """The object of a bound method. ``random.random`` is a function's name, whatever state is behind it."""
    owner = method.__self__
    name = None if codeid.is_user_code(type(owner)) else _name_in_module(owner)
    return owner if name is None else Known(text_part(name))


def _enum(member: Any, mode: int) -> Shape:
    name, cls = _class_of(member, mode)
    unnamed = member._name_ is None  # a combination of flags with unknown bits
    return Shape(b"enum:" + name, (*cls, member._name_, member._value_ if cls or unnamed else None))


def _path(path: Any, mode: int) -> Shape:
    if codeid.is_user_code(type(path)):
        return _object(path, mode)
    name = full_name(type(path)).replace("pathlib._local.", "pathlib.")  # where Python 3.13 keeps them
    return Shape(b"path:" + name.encode(), (str(path),))


def _array(array: Any, mode: int) -> Shape:
    """An array by dtype, shape and every byte; one of structures by its fields, which may have gaps between them."""
    dtype = array.dtype
    if not arrays.is_plain(array):
        return _object(array, mode)
    if dtype.names is not None:
        return Shape(b"fields", (dtype, array.shape, *(array[name] for name in dtype.names)))
    if dtype.hasobject:
        return Shape(b"objects", (dtype, array.shape, array.reshape(-1).tolist()))
    return Shape(b"array:" + arrays.digest(array), (dtype, array.shape))


def _tensor(tensor: Any, mode: int) -> Shape:
    content = arrays.of_tensor(tensor)
    if content is None:
        return _object(tensor, mode)
    about = (str(tensor.dtype), tuple(tensor.shape), tensor.device.type, tensor.requires_grad)
    return Shape(b"tensor:" + full_name(type(tensor)).encode(), (*about, content, vars(tensor)))


def _frame(frame: Any, mode: int) -> Shape:
    """A table of pandas by its columns: how they lie together in memory depends on how it was made."""
    if type(frame) is not _loaded("pandas", "DataFrame"):
        return _object(frame, mode)
    columns = [column.array for _, column in frame.items()]
    return Shape(b"frame", (frame.columns, frame.index, columns, frame.attrs, frame.flags.allows_duplicate_labels))


def _dtype(dtype: Any, mode: int) -> Shape:
    name = arrays.dtype_name(dtype)
    return _object(dtype, mode) if name is None else Shape(b"dtype:" + name.encode())


_SHAPERS: dict[type, Shaper] = {
    Shape: lambda value, mode: value,
    list: lambda value, mode: Shape(b"list", value, place="index"),
    tuple: lambda value, mode: Shape(b"tuple", value, place="index"),
    dict: _dict,
    set: lambda value, mode: Shape(b"set", list(value), group=1),
    frozenset: lambda value, mode: Shape(b"frozenset", list(value), group=1),
    type: _class,
    FunctionType: _function,
    BuiltinFunctionType: _builtin,
    MethodType: lambda value, mode: Shape(b"method", (value.__func__, _owner(value))),
    CodeType: _code,
    CellType: _cell,
    codeid.ImportedModule: _imported,
    functools.partial: lambda value, mode: Shape(b"partial", (value.func, value.args, value.keywords)),
}
_found: WeakKeyDictionary[type, Shaper] = WeakKeyDictionary()


def _find(cls: type) -> Shaper:
    """The shaper of a class that has none of its own, by what it derives from."""
    bases: list[tuple[Any, Shaper]] = [
        (type, _class),
        (ModuleType, lambda value, mode: Shape(b"module:" + value.__name__.encode())),
        (_loaded("enum", "Enum"), _enum),
        (property, lambda value, mode: Shape(b"property", (value.fget, value.fset, value.fdel))),
        (staticmethod, lambda value, mode: Shape(b"staticmethod", (value.__func__,))),
        (classmethod, lambda value, mode: Shape(b"classmethod", (value.__func__,))),
        ((set, frozenset), _set),
        (_loaded("pathlib", "PurePath"), _path),
        (_loaded("numpy", "ndarray"), _array),
        (_loaded("numpy", "generic"), lambda value, mode: Shape(b"numpy scalar", (arrays.of_scalar(value),))),
        (_loaded("numpy", "dtype"), _dtype),
        (_loaded("torch", "Tensor"), _tensor),
        (_loaded("pandas", "DataFrame"), _frame),
    ]
    return next((shaper for base, shaper in bases if issubclass(cls, base)), _object)


def _loaded(module: str, name: str) -> Any:
    """A class of a module, if that is loaded; else an empty tuple of classes."""
    return getattr(sys.modules.get(module), name, ())


# -- objects ----------------------------------------------------------------------------------------------------------


def _object(value: Any, mode: int) -> Shape:
    """An instance: its class and its state, as pickling would take it apart."""
    cls = type(value)
    installed = not codeid.is_user_code(cls)
    if installed and mode != VALUE:
        for function in codeid.wrapped(value):  # functools.lru_cache, localrun.function: the rest is not code
            return Shape(b"wrapper:" + full_name(cls).encode(), (function,), mode=CODE)
        # A sentinel, with nothing in it, is itself and a copy of itself after it travelled: it goes by its class.
        if getattr(value, "__dict__", None) != {} and (name := _name_in_module(value)):
            return Shape(b"name:" + name.encode())
        if cls.__module__ in _RESTLESS:
            raise Unfit(cls, "it changes with time")
    reduced = _reduced(value, mode)
    if isinstance(reduced, bytes):
        return Shape(b"pickle:" + full_name(cls).encode(), (reduced,))
    if isinstance(reduced, str):
        head = f"name:{getattr(value, '__module__', None) or cls.__module__}.{reduced}".encode()
        return Shape(head, tuple(codeid.wrapped(value)), mode=CODE)
    inside = installed and mode == CODE and cls.__module__ not in ("builtins", "collections")
    return _of_reduced(value, reduced, mode)._replace(mode=PART if inside else mode)


def _reduced(value: Any, mode: int) -> str | bytes | tuple[Any, ...]:
    """What ``__reduce_ex__`` says; the bytes of a pickle for what only cloudpickle knows how to pickle."""
    cls = type(value)
    try:
        # Protocol 4: from 5 on, buffers are wrapped in PickleBuffer.
        reducer = copyreg.dispatch_table.get(cls)
        reduced: str | tuple[Any, ...] = reducer(value) if reducer else value.__reduce_ex__(4)
        return reduced
    except Exception as error:  # whatever the class's own methods raise
        if mode != VALUE:
            raise Unfit(cls, str(error)) from error
    try:
        import cloudpickle

        pickled: bytes = cloudpickle.dumps(value, protocol=4)
        return pickled
    except Exception as error:
        raise Unfit(cls, str(error)) from error


def _of_reduced(value: Any, reduced: tuple[Any, ...], mode: int) -> Shape:
    cls = type(value)
    name, by_code = _class_of(value, mode)
    make, arguments, state, items, pairs, setter = (*reduced, None, None, None, None)[:6]
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict) and (state[0] or {}) == {}:
        state = state[1]  # of __slots__
    plain = make is _NEW_OBJECT and len(arguments) == 1 and arguments[0] is cls
    if plain and type(state) is dict and items is None and pairs is None:
        attributes = {key: each for key, each in state.items() if key not in _passing(cls, mode)}
        return Shape(b"object:" + name, [None, (*by_code,), *_flat(attributes)], group=2, place="attribute")
    ordered = hasattr(cls, "move_to_end")
    children = (
        *by_code,
        Known(text_part(full_name(make))),
        tuple(Known(b"@") if each is cls else each for each in arguments),
        state,
        None if items is None else list(items),
        None if pairs is None else list(pairs) if ordered else dict(pairs),
        None if setter is None else Known(text_part(full_name(setter))),
    )
    return Shape(b"reduced:" + name, children)


def _passing(cls: type, mode: int) -> frozenset[str]:
    """The attributes that are no state: cached properties and, where the code counts, texts."""
    cached = _cached_properties.get(cls)
    if cached is None:
        classes = (vars(base).items() for base in cls.__mro__)
        found = {name for each in classes for name, value in each if isinstance(value, functools.cached_property)}
        cached = _cached_properties[cls] = frozenset(found)
    return cached if mode == VALUE else cached | {"__doc__", "__module__"}


_cached_properties: WeakKeyDictionary[type, frozenset[str]] = WeakKeyDictionary()


def _name_in_module(value: Any) -> str | None:
    """The name of an object that the module of its installed class holds, such as ``os.environ``: that is code, too."""
    module = sys.modules.get(type(value).__module__)
    names = vars(module).items() if isinstance(module, ModuleType) and module.__name__ != "builtins" else ()
    return next((f"{type(value).__module__}.{name}" for name, held in list(names) if held is value), None)

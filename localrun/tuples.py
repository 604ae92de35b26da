"""``NamedTuple`` as ``typing`` has it, without ``typing``: a tenth of what the dispatcher and its forks would load."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    from collections import namedtuple

    class _Meta(type):
        def __new__(mcs, name, bases, body):
            """The named tuple of the annotated fields, with the body's defaults and methods."""
            if not bases:
                return super().__new__(mcs, name, bases, body)
            fields = list(body.get("__annotations__", ()))
            defaults = [body.pop(field) for field in fields if field in body]
            parent = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            return type(name, (parent,), {"__slots__": ()} | body)

    class NamedTuple(metaclass=_Meta):
        """What fields, defaults and methods are declared under."""

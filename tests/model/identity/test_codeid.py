"""Code identity: what changes a function's fingerprint and what doesn't, in real modules and real processes."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import textwrap
import types
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localrun.model.identity import bytecode
from localrun.model.identity.fingerprint import code_fingerprint
from localrun.model.identity.ownership import is_user_module

REPOSITORY = Path(__file__).resolve().parents[3]
PRINT = "from localrun.model.identity.fingerprint import code_fingerprint; print(code_fingerprint({}))"

PROJECT = {
    "train.py": '''
        import functools
        import json
        import threading

        import decorators
        import helpers
        import pkg.deep
        from base import Base
        from helpers import g

        RATE = 0.1
        TABLE = {"a": [1, 2], "f": helpers.from_table}
        UNUSED = 1
        LOCK = threading.Lock()

        class Model(Base):
            """A model."""
            size = 3

            def __init__(self, n):
                self.n = n

            def go(self):
                """Go."""
                return super().go() + helpers.f(self.n)

            @property
            def half(self):
                return self.n / 2

            def again(self):
                return train(self.n)

        MODEL = Model(7)

        @functools.lru_cache
        def cached(v):
            return v + 5

        def scaled(factor):
            def scale(v):
                return v * factor
            return scale

        double = scaled(2)
        added = functools.partial(helpers.add, 10)

        @decorators.twice
        def train(x, y=5, *, z=RATE):
            """Train."""
            def inner(v):
                return v * RATE

            with LOCK:
                if x > 100:
                    from later import late
                    return late(x)
                try:
                    total = Model(x).go() + g(y) + inner(z) + pkg.deep.h(TABLE)
                except ValueError:
                    total = 0
                while total > 1000:
                    total -= 1
                return [cached(total), double(x), added(1), MODEL.n, json.dumps(x), sum(v for v in (x, y) if v)]

        def unused():
            return 1
        ''',
    "helpers.py": '''
        """Helpers."""
        OFFSET = 1

        def f(x):
            return x + OFFSET

        def g(x):
            return deeper(x) * 2

        def deeper(x):
            return x if x < 2 else g(x - 1)

        def add(x, y):
            return x + y

        def from_table():
            return 1

        def unused():
            return 1
        ''',
    "base.py": """
        class Base:
            def go(self):
                return self.step() + 1

            def step(self):
                return 1
        """,
    "decorators.py": """
        import functools

        TIMES = 2

        def twice(fn):
            @functools.wraps(fn)
            def call(*args, **kwargs):
                return [fn(*args, **kwargs) for _ in range(TIMES)]
            return call
        """,
    "pkg/__init__.py": "",
    "pkg/deep.py": """
        from .sibling import shared

        def h(x):
            return shared(x)
        """,
    "pkg/sibling.py": """
        def shared(x):
            return len(x)
        """,
    "later.py": """
        import latest

        def late(x):
            return latest.last(x)
        """,
    "latest.py": """
        def last(x):
            return x
        """,
}

Edit = tuple[str, str, str]

HARMLESS: dict[str, Edit] = {
    "comment": ("train.py", "self.n = n", "# so be it\n        self.n = n  # yes"),
    "lines": ("train.py", "RATE = 0.1", "\n\n\nRATE = (\n    0.1\n)"),
    "broken line": (
        "train.py",
        "+ g(y) + inner(z)",
        "\\\n            + g(\n                y,\n            ) + (inner(z))",
    ),
    "broken generator": ("train.py", "sum(v for v in (x, y) if v)", "sum(\n  v\n  for v\n  in (x, y)\n  if v\n)"),
    "one line": ("train.py", "while total > 1000:\n            total -= 1", "while total > 1000: total -= 1"),
    "docstring of the function": ("train.py", '"""Train."""', '"""Otherwise."""'),
    "no docstring of the function": ("train.py", '"""Train."""', ""),
    "docstring of a method": ("train.py", '"""Go."""', ""),
    "docstring of a class": ("train.py", '"""A model."""', '"""Another."""'),
    "docstring of a module": ("helpers.py", '"""Helpers."""', '"""Other helpers."""'),
    "new docstring": ("helpers.py", "return x + OFFSET", '"""Add."""\n    return x + OFFSET'),
    "annotations": ("helpers.py", "def f(x):", "def f(x: int) -> int:"),
    "unused global": ("train.py", "UNUSED = 1", "UNUSED = 2"),
    "unused function": ("train.py", "def unused():\n    return 1", "def unused():\n    return 2"),
    "unused helper": ("helpers.py", "def unused():\n    return 1", "def unused():\n    return 2"),
    "order of functions": ("helpers.py", "OFFSET = 1", "def first():\n    pass\n\nOFFSET = 1"),
    "order of a dict": ("train.py", '{"a": [1, 2], "f": helpers.from_table}', '{"f": helpers.from_table, "a": [1, 2]}'),
    "comment in what is imported later": ("latest.py", "return x", "return x  # the same"),
}

HARMFUL: dict[str, Edit] = {
    "its own code": ("train.py", "total = 0", "total = 1"),
    "an operator": ("train.py", "total -= 1", "total += 1"),
    "a condition": ("train.py", "while total > 1000", "while total >= 1000"),
    "an inverted condition": ("train.py", "if x > 100", "if not x > 100"),
    "what try covers": ("train.py", "except ValueError", "except TypeError"),
    "a nested function": ("train.py", "return v * RATE", "return v + RATE"),
    "a default": ("train.py", "y=5", "y=6"),
    "a default's type": ("train.py", "y=5", "y=5.0"),
    "a keyword's default": ("train.py", "z=RATE", "z=2"),
    "a parameter's name": ("train.py", "def train(x, y=5, *, z=RATE)", "def train(x, y=5, z=RATE)"),
    "a constant": ("train.py", "RATE = 0.1", "RATE = 0.2"),
    "a constant's content": ("train.py", "[1, 2]", "[1, 3]"),
    "a function in a constant": ("helpers.py", "def from_table():\n    return 1", "def from_table():\n    return 2"),
    "a module's function": ("helpers.py", "return x + OFFSET", "return x - OFFSET"),
    "a module's constant": ("helpers.py", "OFFSET = 1", "OFFSET = 2"),
    "an imported function": ("helpers.py", "* 2", "* 3"),
    "a function of that": ("helpers.py", "x < 2", "x < 3"),
    "a submodule": ("pkg/deep.py", "return shared(x)", "return shared(x) + 1"),
    "a relative import": ("pkg/sibling.py", "return len(x)", "return len(x) + 1"),
    "a method": ("train.py", "super().go() + helpers.f(self.n)", "super().go() + helpers.f(1)"),
    "a method that isn't called by name": ("train.py", "self.n = n", "self.n = n + 1"),
    "a property": ("train.py", "self.n / 2", "self.n / 3"),
    "a class attribute": ("train.py", "size = 3", "size = 4"),
    "a base class's method": ("base.py", "return self.step() + 1", "return self.step() + 2"),
    "a base class's other method": (
        "base.py",
        "def step(self):\n        return 1",
        "def step(self):\n        return 2",
    ),
    "the base class": ("train.py", "class Model(Base)", "class Model(Base, dict)"),
    "a global object's state": ("train.py", "MODEL = Model(7)", "MODEL = Model(8)"),
    "the decorator": ("decorators.py", "for _ in range(TIMES)", "for _ in range(TIMES + 1)"),
    "the decorator's constant": ("decorators.py", "TIMES = 2", "TIMES = 3"),
    "no decorator": ("train.py", "@decorators.twice\n", ""),
    "a cached function": ("train.py", "return v + 5", "return v + 6"),
    "a closure's value": ("train.py", "double = scaled(2)", "double = scaled(3)"),
    "a closure's code": ("train.py", "return v * factor", "return v / factor"),
    "a partial's argument": ("train.py", "functools.partial(helpers.add, 10)", "functools.partial(helpers.add, 11)"),
    "a partial's function": ("helpers.py", "return x + y", "return x - y"),
    "what is imported later": ("later.py", "latest.last(x)", "latest.last(x + 1)"),
    "what that imports": ("latest.py", "return x", "return x + 1"),
}


class Project:
    """A user's folder of modules, and the processes that ask for the fingerprints of what is in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, files: dict[str, str]) -> Project:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return self

    def edit(self, edit: Edit) -> Project:
        name, old, new = edit
        text = (self.folder / name).read_text()
        assert text.count(old) == 1, f"{old!r} must stand once in {name}"
        (self.folder / name).write_text(text.replace(old, new))
        return self

    def printed(self, script: str, seed: str = "random", python: str = sys.executable) -> str:
        """What a script prints, in a process of its own, with the project on its path."""
        path = os.pathsep.join([str(self.folder), str(REPOSITORY)])
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [python, "-W", "error", "-c", script]
        done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, cwd="/")
        assert done.returncode == 0, script
        return done.stdout.strip()

    def fingerprint(self, name: str = "train.train", seed: str = "random") -> str:
        return self.printed(f"import {name.partition('.')[0]}; " + PRINT.format(name), seed)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "a project's folder").write(PROJECT)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> str:
    return Project(tmp_path_factory.mktemp("original")).write(PROJECT).fingerprint()


@pytest.mark.parametrize("edit", HARMLESS.values(), ids=HARMLESS)
def test_same_code(project: Project, original: str, edit: Edit) -> None:
    assert project.edit(edit).fingerprint() == original


@pytest.mark.parametrize("edit", HARMFUL.values(), ids=HARMFUL)
def test_other_code(project: Project, original: str, edit: Edit) -> None:
    assert project.edit(edit).fingerprint() != original


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_every_process_computes_the_same(project: Project, original: str, seed: str) -> None:
    assert project.fingerprint(seed=seed) == original


def test_calling_does_not_change_the_code(project: Project, original: str) -> None:
    script = "import train; train.train(1); train.train(200); train.cached(3); train.MODEL.go(); "
    assert project.printed(script + PRINT.format("train.train")) == original


def test_script_is_the_same_code_as_its_module(project: Project, original: str) -> None:
    with (project.folder / "train.py").open("a") as file:
        file.write(f"\nif __name__ == '__main__':\n    {PRINT.format('train')}\n")
    script = project.folder / "train.py"
    assert project.printed(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')") == original


def test_code_is_the_same_after_it_travelled(project: Project, original: str) -> None:
    pickled = project.folder / "function.pkl"
    script = f"import train; from localrun.model.pickles import travel; open({str(pickled)!r}, 'wb').write("
    project.printed(script + "travel.dumps_function(train.train))")
    arrive = f"from localrun.model.pickles import payload; f = payload.loads(open({str(pickled)!r}, 'rb').read()); "
    assert project.printed(arrive + PRINT.format("f")) == original


# -- other shapes of code: each a module, the expression for a function in it, and an edit that must count ------------

SHAPES: dict[str, tuple[str, str, str, str]] = {
    "bound method": ("class A:\n    def m(self): return 1\na = A()", "m.a.m", "return 1", "return 2"),
    "its object": ("class A:\n    n = 1\n    def m(self): return self.n\na = A()", "m.a.m", "n = 1", "n = 2"),
    "callable object": ("class A:\n    def __call__(self): return 1\na = A()", "m.a", "return 1", "return 2"),
    "class": ("class A:\n    def m(self): return 1", "m.A", "return 1", "return 2"),
    "metaclass": (
        "class M(type):\n    def m(self): return 1\nclass A(metaclass=M): pass\ndef f(): A",
        "m.f",
        "return 1",
        "return 2",
    ),
    "static method": ("class A:\n    @staticmethod\n    def m(): return 1\ndef f(): A", "m.f", "return 1", "return 2"),
    "class method": ("class A:\n    @classmethod\n    def m(c): return 1\ndef f(): A", "m.f", "return 1", "return 2"),
    "cached property": (
        "import functools\nclass A:\n    @functools.cached_property\n    def m(self): return 1\ndef f(): A",
        "m.f",
        "return 1",
        "return 2",
    ),
    "dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    n: int = 1\ndef f(): return A()",
        "m.f",
        "n: int = 1",
        "n: int = 2",
    ),
    "default factory": (
        "from dataclasses import *\n@dataclass\nclass A:\n    n: list = field(default_factory=lambda: [1])\ndef f(): A",
        "m.f",
        "[1]",
        "[2]",
    ),
    "named tuple": (
        "from typing import NamedTuple\nclass A(NamedTuple):\n    n: int = 1\ndef f(): return A()",
        "m.f",
        "= 1",
        "= 2",
    ),
    "enum": ("import enum\nclass A(enum.Enum):\n    X = 1\ndef f(): return A.X", "m.f", "X = 1", "X = 2"),
    "enum member": (
        "import enum\nclass A(enum.Enum):\n    X = 1\n    def m(self): return 1\nx = A.X\ndef f(): return x",
        "m.f",
        "return 1",
        "return 2",
    ),
    "single dispatch": (
        "import functools\n@functools.singledispatch\ndef s(x): ...\n@s.register\ndef _(x: int): return 1\ndef f(): s",
        "m.f",
        "return 1",
        "return 2",
    ),
    "context manager": (
        "import contextlib\n@contextlib.contextmanager\ndef c(): yield 1\ndef f():\n    with c(): pass",
        "m.f",
        "yield 1",
        "yield 2",
    ),
    "coroutine": ("async def g(): return 1\nasync def f(): return await g()", "m.f", "return 1", "return 2"),
    "generator": ("def f(): yield 1", "m.f", "yield 1", "return 1"),
    "lambda": ("f = lambda x: x + 1", "m.f", "+ 1", "+ 2"),
    "partial": ("import functools\nf = functools.partial(lambda x: x, x=1)", "m.f", "x=1", "x=2"),
    "partial with a lock": (
        "import functools, threading\nf = functools.partial(lambda x, y: x, threading.Lock(), y=1)",
        "m.f",
        "y=1",
        "y=2",
    ),
    "object with a lock": (
        "import threading\nclass A:\n    def __init__(s): s.l = threading.Lock(); s.n = 1\na = A()\ndef f(): a",
        "m.f",
        "s.n = 1",
        "s.n = 2",
    ),
    "function held by an installed object": (
        "import threading\nt = threading.Timer(1, lambda: 1)\ndef f(): t",
        "m.f",
        "lambda: 1",
        "lambda: 2",
    ),
    "alias of a module": ("import n\ndef f():\n    h = n\n    return h.g()", "m.f", "n.py:return 1", "return 2"),
    "function in a nested class": (
        "def f():\n    class A:\n        def m(self): return 1\n    return A()",
        "m.f",
        "return 1",
        "return 2",
    ),
    "negative zero": ("def f(): return 0.0", "m.f", "0.0", "-0.0"),
    "constant's type": ("def f(): return 1", "m.f", "return 1", "return True"),
    "constant set": ("def f(x): return x in {'a', 'b'}", "m.f", "'b'", "'c'"),
    "what try covers": (
        "def f():\n    try:\n        g()\n        h()\n    except ValueError:\n        pass",
        "m.f",
        "        h()\n    except ValueError:\n        pass",
        "    except ValueError:\n        pass\n    else:\n        h()",
    ),
    "array": ("import numpy as np\nX = np.arange(3)\ndef f(): return X", "m.f", "arange(3)", "arange(4)"),
    "attribute of an installed decorator's object": (
        "import functools\n@functools.lru_cache\ndef f(x): return 1",
        "m.f",
        "return 1",
        "return 2",
    ),
}


@pytest.mark.parametrize(("source", "name", "old", "new"), SHAPES.values(), ids=SHAPES)
def test_every_shape_of_code_counts(tmp_path: Path, source: str, name: str, old: str, new: str) -> None:
    file, _, old = old.rpartition(":") if old.startswith("n.py:") else ("m.py", "", old)
    project = Project(tmp_path).write({"m.py": source, "n.py": "def g(): return 1"})
    before, again = project.fingerprint(name), project.fingerprint(name)
    assert before == again
    assert project.edit((file, old, new)).fingerprint(name) != before


UNSTEADY = """
import contextlib, functools, itertools, logging, os, random, sys, threading, weakref
from concurrent.futures import ThreadPoolExecutor
from os import environ
from random import randint, random as uniform
import numpy as np
from numpy.random import rand

LOCK, LOCAL, POOL, LOG = threading.Lock(), threading.local(), ThreadPoolExecutor(1), logging.getLogger("name")
WEAK, OUT, EVENT = weakref.WeakKeyDictionary(), sys.stdout, threading.Event()
_model = None

class Key: pass
KEY = Key()

@functools.lru_cache
def cached(x): return x

@functools.singledispatch
def dispatched(x): return x

def lazily():
    global _model
    if _model is None:
        _model = object()
    return _model

def f():
    return LOCK, LOCAL, POOL, LOG, WEAK, OUT, EVENT, cached, dispatched, lazily, environ, rand, randint, uniform, open

def use():
    cached(1), dispatched(1), lazily(), rand(), randint(1, 2), uniform()
    POOL.submit(print, end="").result()
    WEAK[KEY] = 1
    LOCAL.x = 1
    EVENT.set()
    environ["SOMETHING"] = "else"
    LOG.setLevel("INFO")
"""


def test_what_changes_by_being_used_is_no_code(tmp_path: Path) -> None:
    project = Project(tmp_path).write({"m.py": UNSTEADY})
    script = "import m; from localrun.model.identity.fingerprint import code_fingerprint as c; "
    script += "before = c(m.f); m.use(); "
    first = project.printed(script + "assert c(m.f) == before; print(before)")
    assert project.printed(script + "assert c(m.f) == before; print(before)") == first


def test_installed_code_counts_by_its_name(project: Project) -> None:
    """The same for two versions of an installed package; another for another function of it."""
    project.write({"site-packages/tool.py": "def work(): return 1\ndef other(): return 1\n"})
    project.write({"uses.py": "import tool\nfrom tool import work\ndef f(): return work() + tool.other()"})
    script = f"import sys; sys.path.append({str(project.folder / 'site-packages')!r}); import tool, uses; "

    def names() -> list[str]:
        prints = "; ".join(
            PRINT.format(name) for name in ("uses.f", "tool.work", "tool.other", "uses.len", "str.upper")
        )
        return project.printed(script + "uses.len = len; " + prints).split()

    before = names()
    assert len(set(before)) == len(before)
    assert project.edit(("site-packages/tool.py", "def work(): return 1", "def work(): return 2")) and names() == before


def test_long_chains_of_functions_end() -> None:
    source = "\n".join(f"def f{i}(x): return f{(i + 1) % 3000}(x) + f{i * 7 % 3000}(x)" for i in range(3000))
    one: dict[str, Any] = {"__name__": "__main__"}
    other: dict[str, Any] = {"__name__": "__main__"}
    exec(source, one)
    exec(source.replace("def f1500(x): return", "def f1500(x): return 1 +"), other)
    assert code_fingerprint(one["f0"]) == code_fingerprint(one["f0"])
    assert code_fingerprint(one["f0"]) != code_fingerprint(other["f0"])


# -- bytecode ---------------------------------------------------------------------------------------------------------


class _WithoutDocstrings(ast.NodeTransformer):
    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
        return node


def code_objects(code: types.CodeType, prefix: str = "") -> Iterator[tuple[str, types.CodeType]]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield prefix + constant.co_name, constant
            yield from code_objects(constant, f"{prefix}{constant.co_name}.")


@pytest.mark.parametrize(
    "module", ["argparse", "dataclasses", "textwrap", "threading", "tarfile", "asyncio.base_events"]
)
def test_no_layout_counts_in_the_standard_library(module: str) -> None:
    """Real code, stripped of all layout, comments and docstrings, is the same code; and no two functions are."""
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).read_text()
    stripped = ast.unparse(_WithoutDocstrings().visit(ast.parse(source)))
    before = dict(code_objects(compile(source, "before.py", "exec")))
    after = dict(code_objects(compile(stripped, "after.py", "exec")))
    assert before.keys() == after.keys()
    assert [name for name in before if code_fingerprint(before[name]) != code_fingerprint(after[name])] == []
    by_raw = {(code.co_code, code.co_consts, code.co_names, code.co_varnames) for code in before.values()}
    assert len({code_fingerprint(code) for code in before.values()}) > 0.9 * len(by_raw)


@pytest.mark.parametrize("module", ["argparse", "dataclasses", "inspect", "typing"])
def test_globals_are_read_as_dis_reads_them(module: str) -> None:
    import dis

    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    for name, code in code_objects(compile(Path(spec.origin).read_text(), "module.py", "exec")):
        found = list(dis.get_instructions(code))
        read = {i.argval for i in found if i.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")}
        written = {i.argval for i in found if i.opname == "STORE_GLOBAL"}
        assert bytecode.canonical(code).reads == read - written, name
        imported = [i.argval for i in found if i.opname == "IMPORT_NAME"]
        assert [each.name for each in bytecode.canonical(code).imports] == imported, name


def test_import_statements_are_read_whole() -> None:
    def imports() -> None:
        import json  # noqa: F401
        import os.path  # noqa: F401
        from json import dumps, loads  # noqa: F401

    source = "def f():\n    from .. import a\n    from ..b import c as d"
    relative = next(code_objects(compile(source, "f.py", "exec")))[1]
    assert bytecode.canonical(imports.__code__).imports == (
        (0, "json", ()),
        (0, "os.path", ()),
        (0, "json", ("dumps", "loads")),
    )
    assert bytecode.canonical(relative).imports == ((2, "", ("a",)), (2, "b", ("c",)))


# -- the user's modules -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("__main__", True),
        (__name__, True),
        ("sys", False),
        ("builtins", False),
        ("_frozen_importlib", False),
        ("zipimport", False),
        ("os", False),
        ("os.path", False),
        ("json.decoder", False),
        ("_json", False),
        ("antigravity", False),  # not loaded
        ("numpy", False),
        ("numpy.linalg", False),
        ("pytest", False),
        ("_pytest.python", False),
        ("cloudpickle", False),
        ("localrun", False),
        ("localrun.model.identity.fingerprint", False),
        ("localrun.not_loaded", False),
        ("nobody_knows_this", True),
    ],
)
def test_known_modules(name: str, expected: bool) -> None:
    assert is_user_module(name) is expected
    if name in sys.modules:
        assert is_user_module(sys.modules[name]) is expected


def test_modules_without_a_file() -> None:
    assert is_user_module(types.ModuleType("made_here"))
    assert is_user_module(types.ModuleType("made_here.too"))
    assert not is_user_module(types.ModuleType("numpy.made_up"))  # as torch.ops or six.moves
    relative = types.ModuleType("numpy.made_up")
    relative.__file__ = "_ops.py"  # torch.ops says so
    assert not is_user_module(relative)


def asked(project: Project, names: list[str], python: str = sys.executable, before: str = "") -> dict[str, bool]:
    """What is_user_module says of modules in a process of its own: not loaded, by name, and as a module."""
    script = f"""
        import importlib, sys
        {before}
        from localrun.model.identity.ownership import is_user_module
        for name in {names!r}:
            unloaded = is_user_module(name)
            module = importlib.import_module(name)
            assert is_user_module(name) == is_user_module(module) == unloaded, (name, unloaded)
            print(name, int(unloaded))
        """
    lines = project.printed(textwrap.dedent(script), python=python).splitlines()
    return {name: answer == "1" for name, answer in (line.split() for line in lines)}


def test_environment_inside_the_project(project: Project) -> None:
    venv.create(project.folder / ".venv", symlinks=True)
    python = project.folder / ".venv/bin/python"
    site = Path(project.printed("import sysconfig; print(sysconfig.get_path('purelib'))", python=str(python)))
    project.write({"editable/src/mine/__init__.py": "", "portion/inner.py": "", "lib/python3/tools.py": ""})
    for name in ("installed.py", "package/__init__.py", "package/part.py", "company/product.py"):
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text("")
    (site / "mine.pth").write_text(str(project.folder / "editable/src") + "\n")
    installed = ["installed", "package", "package.part", "company", "company.product"]
    own = ["train", "pkg", "pkg.deep", "mine", "portion", "portion.inner", "lib.python3.tools"]
    answers = asked(project, [*installed, *own], python=str(python))
    assert answers == dict.fromkeys(installed, False) | dict.fromkeys(own, True)


@pytest.mark.parametrize("folder", ["site-packages", "usr/lib/python3/dist-packages"])
def test_other_environments_packages_are_installed(project: Project, folder: str) -> None:
    project.write({f"{folder}/tool.py": "", f"{folder}/space/part.py": "", "space/own.py": ""})
    before = f"sys.path.append({str(project.folder / folder)!r})"
    answers = asked(project, ["tool", "space.part", "space.own", "train"], before=before + "; import space.part")
    assert answers == {"tool": False, "space.part": False, "space.own": True, "train": True}


def test_project_behind_a_symlink(project: Project, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(project.folder)
    assert asked(Project(tmp_path / "link"), ["train", "pkg.deep"]) == {"train": True, "pkg.deep": True}


def test_module_with_the_name_of_an_installed_one(project: Project) -> None:
    """A project's file that hides one of the standard library is still the project's."""
    project.write({"calendar.py": ""})
    assert asked(project, ["calendar"]) == {"calendar": True}


def test_notebook_functions_are_the_users() -> None:
    made: dict[str, Any] = {"__name__": "__main__"}
    exec("def f(x): return g(x)\ndef g(x): return x", made)
    before = code_fingerprint(made["f"])
    exec("def g(x): return x + 1", made)
    assert code_fingerprint(made["f"]) != before
    f: Callable[..., Any] = made["f"]
    exec("def g(x): return x", made)
    assert code_fingerprint(f) == before

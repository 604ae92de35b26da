"""Code that travels: submitted in one process, executed in a second where its files have changed, read in a third."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from localrun.errors import PayloadError
from localrun.model.pickles import payload, travel

REPOSITORY = Path(__file__).resolve().parents[3]

SUBMIT = """
if __name__ == "__main__":
    from pathlib import Path
    from localrun.model.pickles import payload, travel
    Path("function.pkl").write_bytes(travel.dumps_function({function}))
    Path("inputs.pkl").write_bytes(payload.dumps([{inputs}]))
"""

EXECUTE = """
import asyncio, sys, types
sys.path.insert(0, {project!r})
from pathlib import Path
from localrun.model.pickles import payload
here = Path({project!r})
function = payload.loads((here / "function.pkl").read_bytes())
inputs = payload.loads((here / "inputs.pkl").read_bytes())
try:
    value = function(*inputs)
    if isinstance(value, types.CoroutineType):
        value = asyncio.run(value)
except Exception as error:
    value = error
payload.store(value, here / "result.pkl")
"""

READ = """
from pathlib import Path
from localrun.model.pickles import payload
result = payload.load(Path({project!r}) / "result.pkl", None)
"""


class Project:
    """A user's folder with modules, and the three processes in a run's life."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = [str(REPOSITORY)]

    def write(self, path: str, source: str) -> None:
        """Make or replace a module."""
        (self.folder / path).parent.mkdir(exist_ok=True, parents=True)
        (self.folder / path).write_text(textwrap.dedent(source))

    def spoil(self, *paths: str) -> None:
        """Replace modules by others that can't be imported."""
        for path in paths:
            self.write(path, "raise ImportError('the file as it is now')")

    def submit(
        self,
        source: str,
        function: str = "f",
        inputs: str = "",
        script: str = "script.py",
        arguments: tuple[str, ...] = (),
    ) -> None:
        """Run a script that defines a function, and pickle it and its inputs at the end."""
        self.write(script, textwrap.dedent(source) + SUBMIT.format(function=function, inputs=inputs))
        self.python(*(arguments or (script,)))

    def execute(self) -> None:
        """Call the function on its inputs and store what it returns or raises."""
        self.python("-c", EXECUTE.format(project=str(self.folder)), cwd=self.folder.parent)

    def result(self) -> Any:
        """What the function returned or raised, read in the test's process."""
        return payload.load(self.folder / "result.pkl", None)

    def read(self, source: str, script: str = "reader.py") -> str:
        """What a script prints that finds the result as ``result``."""
        head = READ.format(project=str(self.folder))
        self.write(script, textwrap.dedent(source).replace("# READ\n", head))
        return self.python(script)

    def run(self, source: str, function: str = "f", inputs: str = "") -> Any:
        """Submit, spoil every module there is, execute, and give the result."""
        self.submit(source, function, inputs)
        self.spoil(*(str(path.relative_to(self.folder)) for path in self.folder.rglob("*.py")))
        self.execute()
        return self.result()

    def python(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run Python in the folder; its output. Fails the test if it fails."""
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(self.path),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=cwd or self.folder, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "a project's folder"
    folder.mkdir()
    return Project(folder)


def test_a_function_of_the_script_travels_with_all_that_it_uses(project: Project) -> None:
    source = """
        import json, math as m
        FACTOR = 3
        def helper(x): return x * FACTOR
        class Adder:
            def __init__(self, n): self.n = n
            def __call__(self, x): return helper(x) + self.n
        def f(x, y=2): return json.dumps([Adder(y)(x), m.floor(1.5)])
    """
    assert project.run(source, inputs="5") == "[17, 1]"


@pytest.mark.parametrize(
    "body",
    [
        "import helpers\ndef f(): return helpers.value()",
        "from helpers import value\ndef f(): return value()",
        "from helpers import value as v\ndef f(): return (lambda: v())()",
        "def f():\n    import helpers\n    return helpers.value()",
        "import helpers\ndef f():\n    from helpers import value\n    return value()",
        "def f():\n    def inner():\n        import helpers as h\n        return h.value()\n    return inner()",
        "import helpers\ndef f():\n    return helpers and __import__('importlib').import_module('helpers').value()",
        "import helpers\nf = helpers.value",
        "import functools, helpers\nf = functools.partial(helpers.value)",
        "import helpers\nf = helpers.Thing().method",
        "import helpers\nf = helpers.Thing()",
        "import helpers\nf = helpers.Thing.make",
        "import helpers\nf = lambda: helpers.value()",
        "from helpers import Thing\ndef f(): return Thing().method()",
        "from helpers import Child\ndef f(): return Child().method()",
        "import helpers\nasync def f(): return helpers.value()",
        "import helpers\ndef g():\n    yield helpers.value()\ndef f(): return next(g())",
        "import helpers\ndef f(): return helpers.CONSTANT",
        "from helpers import CONSTANT\ndef f(): return CONSTANT",
    ],
)
def test_a_module_travels_as_it_was_submitted(project: Project, body: str) -> None:
    project.write(
        "helpers.py",
        """
        CONSTANT = "as submitted"
        def value(): return CONSTANT
        class Thing:
            def method(self): return value()
            __call__ = method
            @classmethod
            def make(cls): return cls().method()
        class Child(Thing):
            def method(self): return super().method()
        """,
    )
    assert project.run(body) == "as submitted"


def test_modules_that_import_each_other_travel(project: Project) -> None:
    project.write("a.py", "import b\nNAME = 'a'\ndef names(): return [NAME, *b.names()]")
    project.write("b.py", "import a\nNAME = 'b'\ndef names(): return [NAME, a.NAME]")
    assert project.run("import a\ndef f(): return a.names()") == ["a", "b", "a"]


def test_a_package_travels_with_relative_imports_in_functions(project: Project) -> None:
    project.write("pkg/__init__.py", "from .core import top\nDEFAULT = 1\ndef own(): return DEFAULT")
    project.write(
        "pkg/core.py",
        """
        def top():
            from . import deep, own
            from .deep.leaf import leaf
            import pkg.deep.other
            return [own(), leaf(), pkg.deep.other.other(), deep.__name__]
        """,
    )
    project.write("pkg/deep/__init__.py", "")
    project.write("pkg/deep/leaf.py", "def leaf():\n    from .. import DEFAULT\n    return DEFAULT + 1")
    project.write("pkg/deep/other.py", "def other():\n    from ..deep.leaf import leaf\n    return leaf() + 1")
    assert project.run("import pkg\ndef f(): return pkg.top()") == [1, 2, 3, "pkg.deep"]


def test_a_module_that_was_never_imported_travels_as_its_source(project: Project) -> None:
    project.write("late.py", "import later\nfrom sub.leaf import LEAF\ndef value(): return later.VALUE + LEAF")
    project.write("later.py", "VALUE = 'as '")
    project.write("sub/__init__.py", "")
    project.write("sub/leaf.py", "LEAF = 'submitted'")
    assert project.run("def f():\n    import late\n    return late.value(), late.__file__[-7:]") == (
        "as submitted",
        "late.py",
    )


def test_nothing_is_imported_or_executed_by_submitting(project: Project) -> None:
    project.write("late.py", "raise SystemExit('executed')")
    project.submit("import sys\ndef f():\n    import late, decimal\n", inputs="'late' in sys.modules")


def test_functions_of_every_kind_arrive_as_they_were_and_without_cloudpickle(project: Project) -> None:
    """Importing that would take a worker longer than to start, and nearly half of its memory."""
    source = """
        import os.path, sys
        def outer(a):
            def inner(b, /, c=2, *, d: int = 3) -> int:
                "What it does."
                return a, b, c, d
            def factorial(n): return n * factorial(n - 1) if n else 1
            def count():
                nonlocal a
                a += 1
                return a
            def too_early(): return late
            if not a: late = 1
            return inner, factorial, count, too_early
        inner, factorial, count, too_early = outer(1)
        inner.mark = "m"
        own = {"__name__": "__main__"}
        exec("BASE = 5\\ndef made(): return BASE + len('ab')", own)
        made = own["made"]
        async def waits(): return os.path.join("a", "b")
        async def f():
            seen = [inner(1), inner(1, 5, d=7), inner.mark, inner.__doc__, inner.__annotations__, inner.__qualname__]
            seen += [factorial(5), count(), count(), made(), await waits()]
            try:
                too_early()
            except NameError as error:
                seen.append(str(error).partition(" ")[0])
            return seen, f.__globals__ is vars(sys.modules["__main__"]), "cloudpickle" in sys.modules
    """
    seen, shares_globals, loads_cloudpickle = project.run(source)
    assert seen[:4] == [(1, 1, 2, 3), (1, 1, 5, 7), "m", "What it does."]
    assert seen[4:] == [{"d": int, "return": int}, "outer.<locals>.inner", 120, 2, 3, 7, "a/b", "cannot"]
    assert shares_globals
    assert not loads_cloudpickle


def test_functions_of_a_module_share_its_globals(project: Project) -> None:
    project.write("state.py", "COUNT = 10\ndef bump():\n    global COUNT\n    COUNT += 1\ndef count(): return COUNT")
    source = """
        import state
        from state import bump, count
        TOTAL = 0
        def add():
            global TOTAL
            TOTAL += 1
        class Probe:
            def total(self): return TOTAL
        def f(probe):
            bump(); state.bump(); add()
            assert state.count is count and type(probe) is Probe
            return count(), state.COUNT, TOTAL, probe.total(), Probe().total()
    """
    assert project.run(source, inputs="Probe()") == (12, 12, 1, 1, 1)


def test_module_state_is_that_of_the_submission(project: Project) -> None:
    project.write("state.py", "SEEN = []\ndef seen(): return SEEN")
    assert project.run("from state import SEEN, seen\nSEEN.append(1)\ndef f(): return seen(), seen() is SEEN") == (
        [1],
        True,
    )


def test_what_an_import_makes_anew_is_made_anew(project: Project) -> None:
    project.write(
        "locks.py",
        """
        import threading, functools
        LOCK = threading.Lock(); RLOCK = threading.RLock(); LOCAL = threading.local()
        LOCK.acquire()
        class Single:
            _lock = threading.Lock()
            @functools.cached_property
            def value(self):
                with self._lock, RLOCK: return 7
        @functools.lru_cache(maxsize=5)
        def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
        @functools.singledispatch
        def kind(x): return "object"
        @kind.register
        def _(x: int): return "int"
        def use():
            LOCAL.x = 1
            with LOCK: return Single().value
        """,
    )
    source = """
        from locks import LOCK, fib, kind, use
        def f():
            import locks
            return use(), fib(20), fib.cache_info().maxsize, kind(1), kind(""), locks.LOCK is LOCK, LOCK.locked()
    """
    assert project.run(source) == (7, 6765, 5, "int", "object", True, False)


def test_what_cannot_travel_is_left_behind_by_a_module_and_says_so_when_touched(project: Project) -> None:
    project.write(
        "helpers.py",
        """
        import sys, socket, logging, threading, multiprocessing
        FILE = open(__file__, "a"); SOCKET = socket.socket(); GENERATOR = (i for i in ()); OUT = sys.stdout
        CONDITION = threading.Condition(); LOG = logging.getLogger("x"); STDIN = sys.stdin
        LOG.addHandler(logging.StreamHandler()); HANDLER = LOG.handlers[0]
        class Client:
            connection = SOCKET
            def ok(self): return "ok"
        def make():
            secret = SOCKET
            return lambda: secret
        closure = make()
        def fine(): return Client().ok()
        def touch(): return SOCKET.family
        def call(): return GENERATOR()
        """,
    )
    project.submit(
        """
        import helpers
        def message(call):
            try: call()
            except AttributeError as error: return str(error)
        def f():
            touched = lambda: helpers.FILE.name, helpers.touch, helpers.call, lambda: list(helpers.closure())
            return helpers.fine(), helpers.LOG.name, [message(each) for each in touched]
        """
    )
    project.execute()
    fine, log, messages = project.result()
    assert (fine, log) == ("ok", "x")
    for message, name in zip(messages, ["FILE", "SOCKET", "GENERATOR", "closure"], strict=True):
        assert f"module 'helpers': '{name}' did not travel with the run, because it can't be pickled: " in message


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("POOL = socket.socket()\ndef f(): return POOL", "f() uses the global 'POOL', which can't travel"),
        ("POOL = socket.socket()\ndef g(): return POOL\ndef f(): return g()", "g() uses the global 'POOL'"),
        (
            "def outer(s): return lambda: s\nf = outer(socket.socket())",
            "<lambda> can't be pickled: cannot pickle 'socket'",
        ),
        ("def f(s=(i for i in ())): return s", "f can't be pickled: cannot pickle 'generator'"),
    ],
)
def test_what_the_function_itself_uses_must_travel(project: Project, source: str, expected: str) -> None:
    source = (
        f"import socket, sys\n{source}\n"
        "from localrun.model.pickles import travel\nfrom localrun.errors import PayloadError\n"
    )
    source += "try: travel.dumps_function(f)\nexcept PayloadError as error: print(error)\nsys.exit()\n"
    project.write("script.py", source)
    printed = project.python("script.py")
    assert expected in printed
    assert printed.count("\n") == 1


def test_functions_behind_installed_decorators_travel_and_the_decorators_do_not(project: Project) -> None:
    project.write(
        "site-packages/deco.py",
        """
        import functools
        REGISTRY = {}
        class Function:
            def __init__(self, fn): self.fn = fn; functools.update_wrapper(self, fn)
            def __call__(self, *args): return self.fn(*args)
        def counted(fn):
            @functools.wraps(fn)
            def wrapper(*args):
                REGISTRY["calls"] = REGISTRY.get("calls", 0) + 1
                return fn(*args)
            return wrapper
        """,
    )
    project.path.append(str(project.folder / "site-packages"))
    project.submit(
        """
        from deco import Function, counted, REGISTRY
        REGISTRY["state"] = "of the submitter"
        @Function
        def other(n): return n + 1
        @counted
        def plain(n): return n
        @Function
        def f(n):
            import deco
            assert type(f) is type(other) is deco.Function
            return (other(plain(n)), deco.REGISTRY) if n < 2 else f(n - 1)
        """,
        inputs="3",
    )
    project.spoil("script.py")
    project.execute()
    assert project.result() == (2, {"calls": 1})


TYPES = """
    import abc, dataclasses, enum, typing
    T = typing.TypeVar("T"); P = typing.ParamSpec("P"); UserId = typing.NewType("UserId", int)
    @dataclasses.dataclass(slots=True)
    class Slotted:
        x: int
        __hidden: int = 3
        def hidden(self): return self.__hidden
    @dataclasses.dataclass(frozen=True, order=True)
    class Frozen:
        x: int
        y: "list[int]" = dataclasses.field(default_factory=list)
    class Slots:
        __slots__ = ("a", "__b")
        def __init__(self): self.a = 1; self.__b = 2
        def b(self): return self.__b
    class Planet(enum.Enum):
        EARTH = (5, 6)
        MARS = (3, 3)
        def __init__(self, mass, radius): self.mass = mass; self.radius = radius
        def density(self): return self.mass / self.radius
    class Flag(enum.IntFlag):
        A = enum.auto()
        B = enum.auto()
    class Base(abc.ABC):
        known = {}
        def __init_subclass__(cls, /, key, **kwargs):
            super().__init_subclass__(**kwargs)
            Base.known[key] = cls.label
        @abc.abstractmethod
        def go(self): ...
    class Sub(Base, key="sub"):
        label = "a sub"
        def go(self): return self.label
    class Meta(type):
        def __new__(mcls, name, bases, names):
            cls = super().__new__(mcls, name, bases, {**names, "made": names["given"] + 1})
            Meta.count = getattr(Meta, "count", 0) + 1
            return cls
        def __len__(cls): return cls.made
        def __bool__(cls): return False
    class MadeByMeta(metaclass=Meta): given = 1
    class AbstractMeta(abc.ABCMeta):
        def __init__(cls, name, bases, names): assert names["given"]
    class MadeByAbstractMeta(metaclass=AbstractMeta):
        given = 1
        @abc.abstractmethod
        def go(self): ...
    class Outer(typing.Generic[T]):
        class Inner:
            class Deepest(Exception): pass
        def get(self, x: T) -> UserId: return x
    class Pair(typing.NamedTuple):
        a: int
        b: str = "b"
    class Keys(typing.TypedDict, total=False):
        a: UserId
    class Shape(typing.Protocol[T]):
        def area(self) -> T: ...
    class Broken(Exception):
        def __init__(self, code, *, note="n"): super().__init__(code); self.code = code; self.note = note
    def check():
        assert Slotted(1).hidden() == 3 and not hasattr(Slotted(1), "__dict__")
        assert Slots().b() == 2 and not hasattr(Slots(), "__dict__")
        assert Planet.EARTH.density() == 5 / 6 and Planet((3, 3)) is Planet.MARS and Flag.A | Flag.B == 3
        assert Sub().go() == "a sub" and Base.known == {"sub": "a sub"}
        assert len(MadeByMeta) == 2 and Meta.count == 1 and MadeByAbstractMeta.__abstractmethods__
        assert Outer.Inner.Deepest.__qualname__ == "Outer.Inner.Deepest"
        assert typing.get_type_hints(Outer.get) == {"x": T, "return": UserId}
        assert typing.get_type_hints(Frozen)["y"] == list[int]
        assert Pair(1).b == "b" and Keys(a=1) == {"a": 1}
        return "checked"
"""
VALUES = """[Slotted(1), Frozen(1, [2]), Slots(), Planet.MARS, Flag.A | Flag.B, Sub(), Outer(), Outer.Inner(), Pair(2),
    Outer.Inner.Deepest("d"), Broken(4, note="m"), Outer, Planet, MadeByMeta()]"""
COMPARE = f"""
    expected = {VALUES}
    assert [type(each) for each in result] == [type(each) for each in expected], result
    assert result[0] == expected[0] and result[1] == expected[1] and result[2].b() == 2 and result[3] is Planet.MARS
    assert result[11] is Outer and result[12] is Planet and result[10].note == "m"
    print("the same")
"""


@pytest.mark.parametrize("place", ["script", "module", "names"])
def test_classes_of_every_kind_travel_and_come_back_as_the_readers_own(project: Project, place: str) -> None:
    definitions = textwrap.dedent(TYPES)
    if place != "script":
        project.write("kinds.py", definitions)
        definitions = "import typing\n" + (
            "from kinds import *" if place == "names" else "import kinds\nfrom kinds import *"
        )
    check = "kinds.check" if place == "module" else "check"
    body = f"\ndef f(*same): assert {check}() == 'checked'; return [*{VALUES}, same]\n"
    source = definitions + body
    project.submit(source, inputs="Slotted(1), Planet.EARTH, Sub()")
    if place != "script":
        project.write("kinds.py", "raise ImportError('changed')")
    project.execute()
    if place != "script":
        project.write("kinds.py", textwrap.dedent(TYPES))
    script = "script.py" if place == "script" else "reader.py"  # whose __main__ has the classes
    again = definitions + "\n# READ\n*result, same = result\n"
    again += "assert type(same[0]) is Slotted and same[1] is Planet.EARTH\n" + textwrap.dedent(COMPARE)
    assert project.read(again, script) == "the same\n"
    # And where the classes are unknown, they come with the result.
    result = project.result()
    assert type(result[0]).__qualname__ == "Slotted"
    assert result[0].hidden() == 3
    assert result[3].density() == 1
    assert result[1].y == [2]


def test_the_submitting_process_gets_instances_of_its_own_classes(project: Project) -> None:
    project.submit(
        """
        import sys, subprocess
        class MyError(Exception):
            count = 0
        def local():
            class Hidden: pass
            return Hidden
        Hidden = local()
        def f(n):
            MyError.count += n
            error = MyError("no", Hidden())
            error.seen = MyError.count
            raise error
        def main():
            from pathlib import Path
            from localrun.model.pickles import payload, travel
            Path("function.pkl").write_bytes(travel.dumps_function(f))
            Path("inputs.pkl").write_bytes(payload.dumps([5]))
            MyError.count = 100
            subprocess.run([sys.executable, "execute.py"], check=True)
            try: raise payload.load(Path("result.pkl"), None)
            except MyError as error:
                assert type(error.args[1]) is Hidden and error.seen == 5
                assert MyError.count == 100 and MyError is sys.modules["__main__"].MyError
                print("caught")
        """
    )
    project.write("execute.py", EXECUTE.format(project=str(project.folder)))
    project.write("script.py", (project.folder / "script.py").read_text().partition("\nif __name__")[0] + "\nmain()\n")
    assert project.python("script.py") == "caught\n"


def test_a_different_programs_class_of_the_same_name_is_not_used(project: Project) -> None:
    project.submit("class Config:\n    kind = 'a'\ndef f(): return Config()")
    project.execute()
    assert project.read("class Config: pass\n# READ\nprint(type(result) is Config, result.kind)") == "False a\n"


HELPERS = """
    class Thing:
        def __eq__(self, other): return type(other) is type(self)
    def double(x): return 2 * x
"""


def test_in_the_run_plain_pickle_finds_the_code(project: Project) -> None:
    project.write("helpers.py", HELPERS)
    source = """
        import pickle
        from helpers import Thing, double
        class Mine(Thing): pass
        def f(): return pickle.loads(pickle.dumps([Thing(), Mine(), double])) == [Thing(), Mine(), double]
    """
    assert project.run(source) is True


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("script", ["script.py", "pkg/script.py"])
def test_in_the_run_multiprocessing_finds_the_code(project: Project, start: str, script: str) -> None:
    project.write("pkg/__init__.py", "")
    project.write("pkg/helpers.py", HELPERS)
    project.submit(
        f"""
        import multiprocessing
        from {".helpers" if script.startswith("pkg") else "pkg.helpers"} import double
        def triple(x): return 3 * x
        def f():
            with multiprocessing.get_context("{start}").Pool(1) as pool:
                return pool.map(double, [1]) + pool.map(triple, [1])
        """,
        script=script,
        arguments=("-m", "pkg.script") if script.startswith("pkg") else ("script.py",),
    )
    project.execute()
    assert project.result() == [2, 3]


def test_a_module_that_came_in_part_gives_the_rest_from_its_file(project: Project) -> None:
    project.write("helpers.py", "def used(): return 'submitted'\ndef unused(): return 'submitted'")
    project.submit(
        """
        import importlib
        from helpers import used
        def f():
            helpers = importlib.import_module("helpers")
            assert helpers.used is used
            return used(), helpers.unused(), hasattr(helpers, "nothing")
        """
    )
    project.write("helpers.py", "def used(): return 'now'\ndef unused(): return 'now'")
    project.execute()
    assert project.result() == ("submitted", "now", False)


def test_a_function_submits_another_from_inside_a_run(project: Project) -> None:
    project.write("helpers.py", "def value(): return 'as submitted'")
    source = """
        import helpers
        from localrun.model.pickles import payload, travel
        class Mine: pass
        def inner(mine): return helpers.value(), type(mine).__name__
        def f(): return travel.dumps_function(inner), payload.dumps([Mine()])
    """
    function, inputs = project.run(source)
    (project.folder / "function.pkl").write_bytes(function)
    (project.folder / "inputs.pkl").write_bytes(inputs)
    project.execute()
    assert project.result() == ("as submitted", "Mine")


def test_results_of_one_run_are_inputs_of_another(project: Project) -> None:
    project.write("kinds.py", "class Thing:\n    n = 1")
    project.submit("from kinds import Thing\ndef f(): return Thing()")
    project.execute()
    project.write("more.py", READ.format(project=str(project.folder)))
    source = """
        from kinds import Thing
        import importlib
        from pathlib import Path
        from localrun.model.pickles import payload
        def f(given, path):
            return type(given) is Thing, type(payload.load(Path(path), None)) is Thing
    """
    given = "payload.load(Path('result.pkl'), None), str(Path('result.pkl').resolve())"
    assert project.run(source, inputs=given) == (True, True)


def test_installed_code_goes_by_reference() -> None:
    assert (
        travel.dumps_function(textwrap.dedent)
        == b"\x80\x05\x95\x17\x00\x00\x00\x00\x00\x00\x00\x8c\x08textwrap\x94\x8c\x06dedent\x94\x93\x94."
    )
    assert len(travel.dumps_function(subprocess.run)) < 50


def test_reading_leaves_the_readers_modules_alone(project: Project) -> None:
    project.write("helpers.py", "STATE = 1\ndef get(): return STATE\nclass Thing:\n    def get(self): return get()")
    project.submit(
        "from helpers import Thing\nimport helpers\ndef f():\n    helpers.STATE = 2\n    return Thing(), helpers.get"
    )
    project.execute()
    read = "import helpers, sys\nbefore = dict(sys.modules)\n# READ\nthing, get = result\n"
    read += "print(helpers.STATE, thing.get(), get(), sys.modules['helpers'] is helpers)"
    assert project.read(read) == "1 1 2 True\n"


def test_an_interactive_session_travels(project: Project) -> None:
    script = """
        import code, sys
        from pathlib import Path
        from localrun.model.pickles import payload, travel
        main = sys.modules["__main__"]
        del main.__file__
        shell = code.InteractiveInterpreter(vars(main))
        shell.runsource("class Cell: n = 4\\n", symbol="exec")
        shell.runsource("def f(cell): return cell, Cell.n\\n", symbol="exec")
        exec(compile("unused = (i for i in ()); big = 1", "<cell>", "exec"), vars(main))
        Path("function.pkl").write_bytes(travel.dumps_function(main.f))
        Path("inputs.pkl").write_bytes(payload.dumps([main.Cell()]))
    """
    project.write("session.py", script)
    project.python("session.py")
    project.execute()
    cell, n = project.result()
    assert (n, type(cell).__name__) == (4, "Cell")


def test_values_need_only_what_their_classes_use(project: Project) -> None:
    project.submit(
        """
        import socket
        class Client:
            n = 1
            def send(self): return SOCKET
            def name(self): return "client"
        def f():
            global SOCKET
            SOCKET = socket.socket()
            return Client()
        """
    )
    project.execute()
    assert project.result().name() == "client"
    with pytest.raises(AttributeError, match="'SOCKET' did not travel"):
        project.result().send().send()


def test_threads_pickle_at_the_same_time() -> None:
    from concurrent.futures import ThreadPoolExecutor

    def function(n: int) -> Any:
        return lambda: PayloadError(str(n))

    with ThreadPoolExecutor(8) as pool:
        pickles = list(pool.map(lambda n: travel.dumps_function(function(n)), range(40)))
    assert [str(payload.loads(each)()) for each in pickles] == [str(n) for n in range(40)]

"""Exceptions come out of a run as they were raised in it, whatever their constructors want."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from support import Home

import localrun
from localrun import RunFailedError


class KeywordsOnly(Exception):
    """Its constructor can't be called with what it passes on."""

    def __init__(self, code: int, message: str, *, retry: bool) -> None:
        super().__init__(message)
        self.code, self.retry = code, retry


class MoreThanItKeeps(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__("message alone")
        self.sum = first + second


class OwnNew(ValueError):
    def __new__(cls, first: int, second: int) -> OwnNew:
        return super().__new__(cls, first)

    def __init__(self, first: int, second: int) -> None:
        super().__init__(first)
        self.second = second


class OwnGroup(ExceptionGroup[Exception]):
    def __new__(cls, message: str, exceptions: list[Exception], label: str) -> OwnGroup:
        group = super().__new__(cls, message, exceptions)
        group.label = label
        return group

    def __init__(self, message: str, exceptions: list[Exception], label: str) -> None:
        pass

    label: str


class Computed(Exception):
    def __init__(self, *, size: int) -> None:
        super().__init__(size)

    @property
    def size(self) -> int:
        return int(self.args[0])


class OwnFile(OSError):
    def __init__(self, *, name: str) -> None:
        super().__init__(2, "No such file", name)
        self.kept = name


class OwnImport(ImportError):
    def __init__(self, module: str, *, hint: str) -> None:
        super().__init__(f"no {module}", name=module)
        self.hint = hint


class Parse(SyntaxError):
    pass


class Decode(UnicodeDecodeError):
    pass


class Done(StopIteration):
    pass


class Slotted(Exception):
    __slots__ = ("size",)


def slotted() -> Exception:
    error = Slotted("text")
    error.size = 3
    return error


def noted() -> Exception:
    error = KeywordsOnly(1, "noted", retry=True)
    error.add_note("a note")
    return error


CASES: dict[str, Callable[[], Exception]] = {
    "keywords only": lambda: KeywordsOnly(3, "text", retry=True),
    "more than it keeps": lambda: MoreThanItKeeps(1, 2),
    "__new__": lambda: OwnNew(1, 2),
    "property": lambda: Computed(size=7),
    "note": noted,
    "OSError's own": lambda: OwnFile(name="there"),
    "ImportError's own": lambda: OwnImport("package", hint="install it"),
    "SyntaxError's own": lambda: Parse("bad", ("file", 1, 2, "text", 1, 3)),
    "UnicodeDecodeError's own": lambda: Decode("utf8", b"a", 0, 1, "reason"),
    "StopIteration's own": lambda: Done(3),
    "slots": slotted,
    "native beside own": lambda: ExceptionGroup("g", [KeyError(1), SyntaxError("bad", ("f", 1, 2, "t", 1, 3))]),
    "group": lambda: ExceptionGroup("several", [KeywordsOnly(1, "x", retry=False), KeyError("y"), OwnNew(1, 2)]),
    "groups in a group": lambda: ExceptionGroup("outer", [ExceptionGroup("inner", [MoreThanItKeeps(1, 2)])]),
    "own group": lambda: OwnGroup("several", [KeywordsOnly(1, "x", retry=False)], "label"),
    "UnicodeDecodeError": lambda: UnicodeDecodeError("utf8", b"a", 0, 1, "reason"),
    "CalledProcessError": lambda: subprocess.CalledProcessError(4, ["exit", "4"], b"out", b"err"),
    "OSError": lambda: FileNotFoundError(2, "No such file or directory", "from", None, "to"),
    "ImportError": lambda: ImportError("none", name="package", path="there"),
}


def told(error: BaseException) -> tuple[Any, ...]:
    """All that there is to know of an exception."""
    inner = [told(each) for each in error.exceptions] if isinstance(error, BaseExceptionGroup) else None
    names = ["filename", "filename2", "errno", "name", "path", "reason", "start", "object", "size", "value", "msg"]
    native = [getattr(error, name, None) for name in names]
    return type(error), str(error), error.args if inner is None else error.args[0], vars(error), native, inner


@pytest.mark.parametrize("case", CASES)
def test_it_comes_out_as_it_was_raised(home: Home, case: str) -> None:
    @localrun.function
    def fails(make: Callable[[], Exception]) -> None:
        raise make()

    expected = CASES[case]()
    with pytest.raises(type(expected)) as caught:
        fails(CASES[case], run_name="run")
    assert told(caught.value) == told(expected)
    assert f"{type(expected).__name__}: " in str(caught.value.__cause__)  # the traceback of the run
    again = localrun.get_run("run").exception()
    assert again is not None
    assert told(again) == told(expected)


def test_what_a_library_raises_of_the_system(home: Home) -> None:
    @localrun.function
    def fails() -> None:
        subprocess.run("echo out; echo err >&2; exit 4", shell=True, check=True, capture_output=True)

    with pytest.raises(subprocess.CalledProcessError) as caught:
        fails(run_name="run")
    assert (caught.value.returncode, caught.value.stdout, caught.value.stderr) == (4, b"out\n", b"err\n")


def test_except_star_takes_a_group_apart(home: Home) -> None:
    @localrun.function
    def fails() -> None:
        raise ExceptionGroup("several", [KeywordsOnly(5, "x", retry=True), KeyError("y")])

    seen: list[object] = []
    try:
        fails(run_name="run")
    except* KeywordsOnly as group:
        seen += [error.code for error in group.exceptions if isinstance(error, KeywordsOnly)]
    except* KeyError as group:
        seen += [error.args for error in group.exceptions]
    assert seen == [5, ("y",)]


def test_constructors_are_not_called_again(home: Home) -> None:
    class Announced(Exception):
        def __init__(self, *, text: str) -> None:
            print("made", text)
            super().__init__(text)

    @localrun.function
    def fails() -> None:
        raise Announced(text="once")

    run = fails.run(run_name="run")
    error = run.exception(30)
    assert (type(error).__name__, str(error), run.stdout()) == ("Announced", "once", "made once\n")


def test_one_that_cannot_be_made_again_is_told_in_words(home: Home) -> None:
    @localrun.function
    def fails() -> None:
        class Awkward(Exception):
            def __reduce__(self) -> Any:
                return int, ("no number",)

        raise Awkward("message alone")

    with pytest.raises(RunFailedError, match="message alone"):
        fails(run_name="run")

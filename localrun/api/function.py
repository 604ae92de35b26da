"""The decorator: a function that can also be called as a run, and its results found again by name.

``Function`` owns how a call becomes a run and when a cached one is taken; waiting and results are `Run`'s, what makes
two calls the same is `fingerprint`'s.
"""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from localrun.errors import CacheMismatchError, CacheMismatchWarning, RunConfigError, RunExistsError
from localrun.model.status import RunStatus

if TYPE_CHECKING:
    from localrun.api.run import Run
    from localrun.model.config import RunConfig

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS_OF_OURS = {"on_mismatch", "path"}
ON_MISMATCH = ("warn", "rerun", "error", "ignore")


class Function(Generic[P, R]):
    """A decorated function. Called plainly it is the function itself; with ``run_name=`` it is a run.

    ``fn`` is the function as it was written.
    """

    # Beside the attributes: what is remembered of the code must not travel, nor get into a wrapper of this.
    __slots__ = ("__dict__", "__weakref__", "_code_seen")

    def __init__(self, fn: Callable[P, R], options: dict[str, Any]) -> None:
        if not hasattr(fn, "__call__") and not hasattr(fn, "__get__"):  # noqa: B004 - a classmethod has the latter
            raise RunConfigError(f"localrun.function decorates a function, not {fn!r}")
        functools.update_wrapper(self, fn)
        self.fn = fn
        self._options = _checked(options)
        _refuse_taken_parameter(fn)

    def __call__(self, *args: Any, run_name: str | None = None, **kwargs: Any) -> Any:
        """Call the function in this process; or, with ``run_name``, as a run: wait, show its output, return its value.

        Raises:
            RunExistsError: a run of that name is queued or active. One that has ended is archived and replaced.
        """
        if run_name is None:
            return self.fn(*args, **kwargs)
        return _attend(self.run(*args, run_name=run_name, **kwargs))

    def run(self, *args: Any, run_name: str | None = None, **kwargs: Any) -> Run:
        """Queue the call and return its Run at once; without ``run_name`` it gets one of its own."""
        from localrun.api import submit

        fingerprints = self._fingerprints(args, kwargs)
        if run_name is None and self._path is None:
            return self._submit(None, args, kwargs, fingerprints, None)
        there = submit.find(run_name, self._path)
        return self._submit(run_name, args, kwargs, fingerprints, there)

    def get_or_call(self, *args: Any, run_name: str | None = None, **kwargs: Any) -> R:
        """The value cached under that name, or of the run that is making it, or of a new run; waits for it.

        Without ``run_name`` the name is made of the function's code and its inputs. However many processes ask at
        once, one run is made.
        """
        run, made = self._get_or_run(args, kwargs, run_name)
        value: R = run._outcome() if run.status.is_terminal() and not made else _attend(run)
        return value

    def get_or_run(self, *args: Any, run_name: str | None = None, **kwargs: Any) -> Run:
        """The same as a Run, without waiting."""
        return self._get_or_run(args, kwargs, run_name)[0]

    def map(self, *iterables: Iterable[Any]) -> list[Run]:
        """Start a run for each item (or for each tuple of items of several iterables); returns the Runs, in order."""
        if self._path is not None:
            raise RunConfigError("path: one folder can't hold the runs of map")
        return [self.run(*items) for items in zip(*iterables, strict=False)]

    def options(self, **options: Any) -> Function[P, R]:
        """A copy of this function with some options changed; the options are the decorator's."""
        return Function(self.fn, {**self._options, **options})

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Decorated in a class body, it binds like any function."""
        bind = getattr(self.fn, "__get__", None)
        bound = self.fn if bind is None else bind(instance, owner)
        return self if bound is self.fn else Function(bound, self._options)

    def __reduce__(self) -> Any:
        """By name where that leads here, as functions pickle: the name of ``fn`` is this object's."""
        try:
            found = _named(self.fn.__module__, self._name)
        except (ImportError, AttributeError):
            found = None
        if not isinstance(found, Function) or found.fn is not self.fn:
            return self.__reduce_by_value__()
        return (_named, (self.fn.__module__, self._name, None if found is self else self._options))

    def __reduce_by_value__(self) -> Any:
        """With its function, as it travels to a run."""
        import copyreg

        return copyreg.__newobj__, (type(self),), vars(self)  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"<localrun.function {self._name}>"

    # -- a call as a run --------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return getattr(self.fn, "__qualname__", type(self.fn).__name__)

    def _fingerprints(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, str]:
        from localrun.model.identity.fingerprint import inputs_fingerprint
        from localrun.model.identity.remembered import code_seen

        self._code_seen = code_seen(self.fn, getattr(self, "_code_seen", None))
        return {"code": self._code_seen.fingerprint, "inputs": inputs_fingerprint(self.fn, args, kwargs)}

    def _submit(
        self,
        name: str | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        fingerprints: dict[str, str],
        there: Run | None,
    ) -> Run:
        """Queue the call; ``there`` is the run that has its name, and makes way for it if it has ended."""
        from localrun.api import submit
        from localrun.model.pickles.payload import dumps_inputs
        from localrun.model.pickles.travel import dumps_function

        fields = {"fn_name": self._name, "fingerprints": fingerprints}

        def contents() -> dict[str, bytes]:
            return {"function.pkl": dumps_function(self.fn), "inputs.pkl": dumps_inputs(args, kwargs)}

        base = _safe_name(self._name)
        return submit.function(
            self._config(name), fields=fields, contents=contents, base=base, path=self._path, there=there
        )

    def _config(self, name: str | None) -> RunConfig:
        from localrun.model.config import RunConfig

        config = RunConfig(name=name)
        _configure(config, self._options)
        return config

    @property
    def _path(self) -> str | None:
        path = self._options.get("path")
        return None if path is None else os.fspath(path)

    # -- caching ----------------------------------------------------------------------------------------------------

    def _get_or_run(self, args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None) -> tuple[Run, bool]:
        """The run that has, makes or will make the value; True if this call made it."""
        from localrun.api import submit
        from localrun.model.names import validate_name

        fingerprints = self._fingerprints(args, kwargs)
        name = self._key(fingerprints) if name is None else validate_name(name, "run_name")
        while True:
            there = submit.find(name, self._path)
            if there is not None and there.status not in (RunStatus.STOPPED, RunStatus.FAILED):
                if self._accepts(there, fingerprints):
                    return there, False
                there.wait()  # a mismatch that is to be run again: first the one that is at work
            try:
                return self._submit(name, args, kwargs, fingerprints, there), True
            except RunExistsError:
                continue  # another caller was first: theirs is the one

    def _accepts(self, run: Run, fingerprints: dict[str, str]) -> bool:
        """True if the run is to be taken for this call, whatever made it; warns or raises as the option says."""
        made_by = run._record["fingerprints"]
        different = [what for what, value in fingerprints.items() if made_by is None or made_by.get(what) != value]
        policy = self._options.get("on_mismatch", "warn")
        if not different or policy == "ignore":
            return True
        text = f"run {run.name} was made by other {' and '.join(different)} than now asked for ({run.path})"
        if policy == "error":
            raise CacheMismatchError(text)
        if policy == "warn":
            warnings.warn(f"{text}; its value is returned (on_mismatch)", CacheMismatchWarning, stacklevel=4)
        return bool(policy != "rerun")

    def _key(self, fingerprints: dict[str, str]) -> str:
        import hashlib

        identity = f"{self.fn.__module__}\n{self._name}\n{fingerprints['code']}\n{fingerprints['inputs']}"
        return f"{_safe_name(self._name)}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


@overload
def function(fn: Callable[P, R], /) -> Function[P, R]: ...
@overload
def function(**options: Any) -> Callable[[Callable[P, R]], Function[P, R]]: ...
def function(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Decorate a function so that it can be called as a run: ``@localrun.function`` or ``@localrun.function(cpus=2)``.

    Options are the fields of ``RunConfig``, ``compute`` and ``scheduling`` by name, or those two as dicts; ``path``
    puts the runs' folder there; ``on_mismatch`` says what happens when a cached run was made by other code or inputs:
    ``"warn"`` (default), ``"rerun"``, ``"error"`` or ``"ignore"``.

    Raises:
        RunConfigError: an unknown option, or the function has a parameter called ``run_name``.
    """
    return Function(fn, options) if fn is not None else functools.partial(_decorate, options)


def _decorate(options: dict[str, Any], fn: Callable[P, R]) -> Function[P, R]:
    return Function(fn, options)


def _named(module: str, qualname: str, options: dict[str, Any] | None = None) -> Any:
    """What has that name; with ``options``, a decorated function with these instead of its own."""
    import importlib
    import operator

    found = operator.attrgetter(qualname)(importlib.import_module(module))
    return found if options is None else Function(found.fn, options)


def _attend(run: Run) -> Any:
    """Wait for a run, showing its output; Ctrl-C stops it."""
    from localrun.api.output import following

    try:
        following.show(run, sys.stdout, sys.stderr)
    except KeyboardInterrupt:
        run.stop("interrupted (Ctrl-C)")
        raise
    return run.result()


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """The options, if a configuration takes them."""
    if options:
        from localrun.model.config import RunConfig

        policy = options.get("on_mismatch", "warn")
        if policy not in ON_MISMATCH:
            raise RunConfigError(f"on_mismatch: must be one of {', '.join(ON_MISMATCH)}, not {policy!r}")
        _configure(RunConfig(), options)
    return options


def _configure(config: RunConfig, options: Mapping[str, Any]) -> None:
    """Set the fields that options name: single ones after the mappings that hold them too."""
    for field in sorted(options.keys() - _OPTIONS_OF_OURS, key=lambda field: field not in ("compute", "scheduling")):
        setattr(config, field, options[field])


def _refuse_taken_parameter(fn: Callable[..., Any]) -> None:
    code = getattr(fn, "__code__", None)
    if code is not None and "run_name" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
        raise RunConfigError(f"run_name: {fn.__qualname__} has a parameter of that name, which localrun needs")


def _safe_name(qualname: str) -> str:
    """A function's qualified name in the characters a run's name may have."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in qualname.split(".")[-1])
    return kept.strip("._-")[:100] or "function"

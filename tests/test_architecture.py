"""The rooms and their doors: imports go down only, importing is light, settings are read in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from support import REPOSITORY, run_python

import localrun

PACKAGE = REPOSITORY / "localrun"
# Each may import from those below it and from itself.
ROOMS = ["cli", "api", "engine", "model", "base"]
HEAVY = {
    "yaml", "cloudpickle", "psutil", "fsspec", "rich", "filelock", "numpy", "pynvml", "argparse", "inspect", "asyncio",
    "multiprocessing", "subprocess", "logging", "tempfile", "shutil", "typing_extensions", "dataclasses", "hashlib",
}  # fmt: skip

MODULES = sorted(PACKAGE.rglob("*.py"))


def room(module: str) -> str:
    """The room of a module by its dotted name; ``localrun.errors`` and its like are the base of all."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "base"


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """The modules of localrun that a file imports, anywhere in it, except for type checkers."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("localrun"):
            base = node.module or ""
            for alias in node.names:
                inner = REPOSITORY.joinpath(*base.split("."), alias.name)
                is_module = inner.with_suffix(".py").exists() or inner.is_dir()
                found.add(f"{base}.{alias.name}" if is_module else base)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("localrun")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down_only(path: Path) -> None:
    mine = room(name_of(path))
    if name_of(path) in ("localrun", "localrun.__main__"):
        return  # the package's own names, loaded when they are used; its entry
    wrong = [other for other in imports(path) if ROOMS.index(room(other)) < ROOMS.index(mine)]
    assert wrong == []


def test_what_is_below_all_knows_nothing_of_the_rooms() -> None:
    for name in ("errors", "settings", "files"):
        assert {room(other) for other in imports(PACKAGE / f"{name}.py")} <= {"base"}


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a statement, beyond those it starts with."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    return set(run_python(code, env={"PYTHONPATH": str(REPOSITORY)}).stdout.split())


def test_importing_localrun_is_light() -> None:
    assert loaded_by("import localrun") & HEAVY == set()


def test_a_dispatcher_imports_little() -> None:
    """Every supervisor is a fork of it and pays for what it has loaded."""
    loaded = loaded_by("import localrun.engine.dispatch.dispatcher")
    assert loaded & (HEAVY - {"dataclasses", "hashlib"}) == set()
    assert not [name for name in loaded if name.startswith("localrun.api")]


def test_a_worker_that_does_nothing_imports_little(home: object) -> None:
    code = """
        import localrun
        @localrun.function
        def loaded():
            import sys
            return sorted(sys.modules)
        print(*loaded(run_name="run"))
    """
    loaded = set(run_python(code).stdout.split())
    assert loaded & {"psutil", "filelock", "fsspec", "rich", "yaml", "argparse", "numpy", "cloudpickle"} == set()


def environment_uses(path: Path) -> set[str]:
    """The variables that a file names where it uses the environment; ``*`` where it uses all of it."""
    tree = ast.parse(path.read_text())
    found = set()
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv")):
            continue
        outer: ast.AST = node
        while isinstance(parents.get(outer), ast.Attribute | ast.Subscript | ast.Call) and outer is not None:
            outer = parents[outer]
            named = [each.value for each in ast.walk(outer) if isinstance(each, ast.Constant)]
            if named:
                found.add(str(named[0]))
                break
        else:
            found.add("*")
    return found


def test_environment_variables_are_read_in_one_place() -> None:
    """localrun's own by settings; besides them the terminal's width, and the environment as a whole to hand it on."""
    allowed = {
        "localrun.engine.launchers.surroundings": {"*"},  # the submitter's, kept for the run or the dispatcher
        "localrun.engine.launchers.preparation": {"*"},  # the run's, for git and pip
        "localrun.engine.gpus.probe": {"*"},  # for the process that asks the driver
        "localrun.api.provenance.git": {"*"},  # for git
        "localrun.engine.worker": {"LOCALRUN_SYS_PATH"},  # its import path, from its supervisor
        "localrun.cli.terminal": {"COLUMNS", "NO_COLOR", "TERM"},
    }
    uses = {name_of(path): environment_uses(path) for path in MODULES}
    assert uses.pop("localrun.settings") == {
        "LOCALRUN_HOME", "LOCALRUN_RUNS_DIR", "LOCALRUN_IDLE_S", "LOCALRUN_GPUS", "LOCALRUN_LEASE_DIR",
        "LD_LIBRARY_PATH", "SHELL", "TERM", "COLORTERM", "LOCALRUN_CONTAINER_ENGINE", "DOCKER_HOST", "DOCKER_CONTEXT",
        "LOCALRUN_RUN_DIR",
        "*",  # those that it lists for the container engine's client
    }  # fmt: skip
    wrong = {name: names - allowed.get(name, set()) for name, names in uses.items()}
    assert {name: names for name, names in wrong.items() if names} == {}


@pytest.mark.parametrize("name", localrun.__all__)
def test_exported_names_resolve_and_are_documented(name: str) -> None:
    value = getattr(localrun, name)
    if not name.startswith("__"):
        assert value.__doc__, name
        assert value.__doc__.strip().splitlines()[0].rstrip().endswith((".", ":")), name


def test_exported_names_are_listed_everywhere() -> None:
    assert set(localrun.__all__) <= set(dir(localrun))
    with pytest.raises(AttributeError):
        localrun.no_such_name  # noqa: B018
    assert sorted(localrun.__all__) == list(localrun.__all__)


def test_methods_are_documented() -> None:
    for kind in (localrun.Run, localrun.Function, localrun.Executor, localrun.RunConfig, localrun.RunStatus):
        for name, value in vars(kind).items():
            if not name.startswith("_") and callable(value):
                assert value.__doc__, f"{kind.__name__}.{name}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), path


def test_errors_are_one_tree_and_pickle() -> None:
    import pickle

    from localrun import errors

    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, Exception) and not issubclass(value, Warning):
            assert issubclass(value, localrun.LocalrunError), name
            error = value(400, "message") if value is localrun.LocalrunError else value("message", "more")
            again = pickle.loads(pickle.dumps(error))
            assert (type(again), str(again), again.status) == (type(error), str(error), error.status)
            assert 400 <= error.status < 600
    assert localrun.MAPIException is localrun.LocalrunError

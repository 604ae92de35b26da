"""What a configuration's integrations must be, and the programs that they come to."""

from __future__ import annotations

import os
from typing import Any

import pytest

from localrun.engine.launchers.preparation import Step, steps
from localrun.errors import RunConfigError
from localrun.model.config import RunConfig
from localrun.model.integrations import needs_venv, validate_integrations
from localrun.model.request import Request

GIT = {"integration_type": "git_repo"}
PIP = {"integration_type": "pip_packages"}


def one(**keys: Any) -> dict[str, Any]:
    (integration,) = validate_integrations([keys])
    return integration


def programs(**keys: Any) -> list[Step]:
    return steps(one(**keys), "/venv")


class TestRepositories:
    @pytest.mark.parametrize(
        ("keys", "repo", "path"),
        [
            ({"git_repo": "owner/name"}, "git@github.com:owner/name.git", "name"),
            ({"git_repo": "owner/name", "ssh_clone": False}, "https://github.com/owner/name.git", "name"),
            ({"git_repo": "owner/name", "host": "git.x.org"}, "git@git.x.org:owner/name.git", "name"),
            ({"git_repo": "https://x.org/a/b.git"}, "https://x.org/a/b.git", "b"),
            ({"git_repo": "me@x.org:b.git"}, "me@x.org:b.git", "b"),
            ({"git_repo": "me@x.org:a/b/"}, "me@x.org:a/b/", "b"),
            ({"git_repo": "/srv/a repo.git/"}, "/srv/a repo.git/", "a repo"),
            ({"git_repo": "./x"}, os.path.abspath("x"), "x"),
            ({"git_repo": "~/x"}, os.path.expanduser("~/x"), "x"),
            ({"git_repo": "owner/name", "path": "deep/./er/"}, "git@github.com:owner/name.git", "deep/er"),
        ],
    )
    def test_where_from_and_where_to(self, keys: dict[str, Any], repo: str, path: str) -> None:
        made = one(**GIT, **keys)
        assert (made["git_repo"], made["path"]) == (repo, path)

    def test_programs(self) -> None:
        assert programs(**GIT, git_repo="/x") == [Step("git clone", ["git", "clone", "--", "/x", "x"])]
        clone, verify, checkout, install = programs(
            **GIT, git_repo="/x", git_branch="b", git_commit="c0ffee", path="y/z", pip_install="-e '.[a b]'"
        )
        assert clone == Step("git clone", ["git", "clone", "--branch", "b", "--", "/x", "y/z"])
        assert (any("c0ffee" in word for word in verify.argv), verify.cwd) == (True, "y/z")
        assert (checkout.argv[-4:], checkout.cwd) == (["checkout", "--detach", "c0ffee", "--"], "y/z")
        assert (install.argv[0], install.argv[-3:], install.cwd) == (
            "/venv/bin/python", ["install", "-e", ".[a b]"], "y/z",
        )  # fmt: skip

    def test_two_in_one_place(self) -> None:
        with pytest.raises(RunConfigError) as caught:
            validate_integrations([{**GIT, "git_repo": "a/x"}, {**GIT, "git_repo": "b/x"}])
        message = "integrations[1].path: 'x' is taken by integrations[0]: set another path"
        assert caught.value.message == message


class TestPackages:
    def test_programs(self) -> None:
        (step,) = programs(**PIP, packages=["a==1", "./b.whl"], upgrade=True, find_links="wheels")
        install = step.argv.index("install")
        assert step.argv[:3] == ["/venv/bin/python", "-m", "pip"]
        assert step.argv[install + 1 :] == [
            "--no-index", "--find-links", os.path.abspath("wheels"), "--upgrade", "a==1", os.path.abspath("b.whl"),
        ]  # fmt: skip

    def test_who_needs_an_environment(self) -> None:
        assert needs_venv(validate_integrations([{**PIP, "packages": ["a"]}]))
        assert needs_venv(validate_integrations([{**GIT, "git_repo": "a/b", "pip_install": "-e ."}]))
        assert not needs_venv(validate_integrations([{**GIT, "git_repo": "a/b"}]))


@pytest.mark.parametrize(
    ("integration", "message"),
    [
        (3, ": must be a mapping, not 3"),
        ({}, ".integration_type: must be given: git_repo or pip_packages"),
        ({"integration_type": ["git_repo"]}, ".integration_type: a list is none of git_repo, pip_packages"),
        ({"integration_type": "git_rep"}, ".integration_type: 'git_rep' is none of git_repo, pip_packages: did"),
        ({"integration_type": "x"}, ".integration_type: 'x' is none of git_repo, pip_packages"),
        ({"integration_type": "wandb"}, ".integration_type: wandb is not one of localrun's: log to it from your code"),
        ({"integration_type": "mlflow"}, ".integration_type: mlflow is not one of localrun's"),
        ({"integration_type": "comet_ml"}, ".integration_type: comet_ml is not one of localrun's"),
        ({"integration_type": "apt_packages", "packages": ["x"]}, ".integration_type: apt_packages needs a container"),
        ({**GIT, "git_repo": "a/b", "git_brnch": "x"}, ": unknown key 'git_brnch': did you mean 'git_branch'?"),
        ({**PIP, "packages": ["a"], "zzz": 1}, ": unknown key 'zzz': allowed are packages, upgrade, find_links"),
        ({**GIT, "git_branch": "x"}, ".git_repo: git_repo needs it"),
        ({**PIP, "packages": None}, ".packages: pip_packages needs it"),
        ({**GIT, "git_repo": 3}, ".git_repo: must be text, not 3"),
        ({**GIT, "git_repo": "name"}, ".git_repo: must be owner/name, a URL, or a path that begins with /, "),
        ({**GIT, "git_repo": "a/b/c"}, ".git_repo: must be owner/name, a URL, or a path"),
        ({**GIT, "git_repo": "--upload-pack=x/y"}, ".git_repo: must be printable and not begin with '-'"),
        ({**GIT, "git_repo": "a/b", "git_branch": "-x"}, ".git_branch: must be printable and not begin with '-'"),
        ({**GIT, "git_repo": "a/b", "git_commit": 12}, ".git_commit: must be text, not 12"),
        ({**GIT, "git_repo": "a/b", "path": "/x"}, ".path: must name a folder inside the run's working folder, not"),
        ({**GIT, "git_repo": "a/b", "path": "x/../.."}, ".path: must name a folder inside the run's working folder"),
        ({**GIT, "git_repo": "a/b", "path": "."}, ".path: must name a folder inside the run's working folder"),
        ({**GIT, "git_repo": "/"}, ".path: must be text, not ''"),
        ({**GIT, "git_repo": "a/b", "ssh_clone": "no"}, ".ssh_clone: must be true or false, not 'no'"),
        ({**GIT, "git_repo": "a/b", "pip_install": "'"}, ".pip_install: No closing quotation"),
        ({**PIP, "packages": "a"}, ".packages: must be a list of packages, not 'a'"),
        ({**PIP, "packages": []}, ".packages: must be a list of packages, not a list"),
        ({**PIP, "packages": ["a", "-r x"]}, ".packages[1]: must be printable and not begin with '-'"),
        ({**PIP, "packages": ["a"], "upgrade": 1}, ".upgrade: must be true or false, not 1"),
        ({**PIP, "packages": ["a"], "find_links": ""}, ".find_links: must be text, not ''"),
    ],
)
def test_refused(integration: Any, message: str) -> None:
    with pytest.raises(RunConfigError) as caught:
        Request.from_config(RunConfig(command="true", integrations=[integration]))
    assert caught.value.message.startswith(f"integrations[0]{message}")
    assert "\n" not in caught.value.message


def test_unset_keys_and_no_integrations() -> None:
    assert one(**PIP, packages=["a"], upgrade=None)["upgrade"] is False
    assert Request.from_config(RunConfig(command="true", integrations=[])).integrations == []
    assert Request.from_config(RunConfig(command="true", secrets=["a", "b", "a"])).secrets == ["a", "b"]
    assert Request.from_config(RunConfig(command="true")).secrets is None

"""Secrets: what a run gets of them, and that their values are nowhere else."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from support import Home, execute, run_python, stdout_bytes, submit, wait_until

import localrun
from localrun import (
    RunConfig,
    RunConfigError,
    Secret,
    SecretExistsError,
    SecretNotFoundError,
    SystemFailureError,
    create_run,
    create_secret,
    delete_secrets,
    get_secrets,
)
from localrun.engine.launchers import ranks

VALUE = "hush-4f1c9e"


def said(run: Any) -> str:
    return stdout_bytes(run).decode()


def files_with(value: str, place: Path) -> list[str]:
    """The files below a folder that hold a text."""
    files = (file for file in place.rglob("*") if file.is_file() and not file.is_symlink())
    return sorted(str(file.relative_to(place)) for file in files if value.encode() in file.read_bytes())


def command_lines_with(value: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and value.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


class TestWhatARunGets:
    def test_all_by_default(self, home: Home) -> None:
        create_secret(Secret("my-token", value=VALUE))
        create_secret(Secret("other", "environment", "två ord", key="KEY_OF_OURS"))
        run = execute("run", 'echo "$MY_TOKEN|$KEY_OF_OURS"')
        assert said(run) == f"{VALUE}|två ord\n"

    def test_those_it_names(self, home: Home) -> None:
        create_secret(Secret("one", value="1"))
        create_secret(Secret("two", value="2"))
        show = 'echo "${ONE-none} ${TWO-none}"'
        assert said(execute("named", show, secrets=["two", "two"])) == "none 2\n"
        assert said(execute("none", show, secrets=[])) == "none none\n"

    def test_a_mounted_one_is_a_file(self, home: Home, tmp_path: Path) -> None:
        value = b"\0\xff" + VALUE.encode() + b"\n\n"
        create_secret(Secret("key.pem", "mounted", value))
        run = execute("run", 'stat -c "%a %n" "$SECRET_PATH_KEY_PEM"; cat "$SECRET_PATH_KEY_PEM"')
        assert stdout_bytes(run) == f"600 {home.path}/secrets/key.pem/secret\n".encode() + value

    def test_functions_and_every_rank(self, home: Home) -> None:
        create_secret(Secret("token", value=VALUE))

        @localrun.function(nproc_per_node=2)
        def length() -> int:
            return len(os.environ["TOKEN"])

        assert length(run_name="run") == [len(VALUE)] * 2

    def test_over_the_submitters_environment_and_under_the_runs_own(
        self, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TOKEN", "submitter's")
        create_secret(Secret("token", value=VALUE))
        assert said(execute("secret", "echo $TOKEN")) == f"{VALUE}\n"
        run = execute("own", 'echo "$TOKEN ${LOCALRUN_RUN_SECRETS-none}"', env_variables={"TOKEN": "own"})
        assert said(run) == "own none\n"

    def test_what_there_is_when_it_starts(self, home: Home, tmp_path: Path) -> None:
        """Queueing, retries and restarts: the value of now each time, kept nowhere in between."""
        create_secret(Secret("token", value="before"))
        command = f'echo $TOKEN; test -e "{tmp_path}/go"'
        run = execute("run", command, secrets=["token"])
        assert (said(run), run.reason) == ("before\n", "Error")
        delete_secrets(["token"])
        create_secret(Secret("token", value="after"))
        (tmp_path / "go").touch()
        run.start().wait(60)
        assert (stdout_bytes(run, 1), run.reason) == (b"after\n", "Completed")

    def test_of_a_retry(self, home: Home) -> None:
        create_secret(Secret("token", value=VALUE))
        run = execute("run", 'echo $TOKEN; test "$RESUMPTION_INDEX" = 1', max_retries=1)
        assert (stdout_bytes(run, 0), stdout_bytes(run, 1)) == (f"{VALUE}\n".encode(),) * 2


class TestWhatKeepsARunFromStarting:
    def test_unknown_ones_are_refused_at_submission(self, home: Home) -> None:
        with pytest.raises(SecretNotFoundError, match=r"^secret nothing: there is none of that name$") as caught:
            create_run(RunConfig(name="run", command="true", secrets=["nothing"]))
        assert caught.value.status == 404
        assert not home.runs.exists()
        with pytest.raises(RunConfigError, match=r"^secrets\[0\]: '../x' has '/'"):
            create_run(RunConfig(command="true", secrets=["../x"]))

    def test_one_that_was_deleted_meanwhile(self, home: Home, tmp_path: Path) -> None:
        create_secret(Secret("token", value=VALUE))
        first = submit("first", f"until test -e {tmp_path}/go; do sleep 0.02; done", cpus=len(os.sched_getaffinity(0)))
        run = submit("run", f"touch {tmp_path}/started", secrets=["token"])
        delete_secrets(["token"])
        (tmp_path / "go").touch()
        run.wait(60)
        assert run.reason == "FailedToStart"
        assert run.message.startswith("secret token: it was deleted after the run was submitted: create it")
        assert not (tmp_path / "started").exists()
        assert first.wait(60).reason == "Completed"

    def test_one_that_others_could_have_read(self, home: Home) -> None:
        create_secret(Secret("token", value=VALUE))
        (home.path / "secrets" / "token" / "secret").chmod(0o640)
        run = execute("run", "true")
        assert run.reason == "FailedToStart"
        assert run.message.endswith("secret is another user's, or others may read it: chmod go= it")

    @pytest.mark.parametrize("link", ["secrets", "secrets/token", "secrets/token/secret"])
    def test_links_are_not_followed(self, home: Home, tmp_path: Path, link: str) -> None:
        create_secret(Secret("token", value=VALUE))
        place = home.path / link
        place.rename(tmp_path / "elsewhere")
        place.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(SystemFailureError, match="can't be"):
            get_secrets(["token"], values=True)
        assert execute("run", "true").reason == "FailedToStart"

    def test_a_damaged_one_says_so(self, home: Home) -> None:
        create_secret(Secret("token", value=VALUE))
        (home.path / "secrets" / "token" / "about.json").write_text("{")
        with pytest.raises(SystemFailureError, match=r"^secret token: .* can't be read: it is damaged; remove it$"):
            get_secrets()


class TestNowhereElse:
    def test_in_no_file_and_no_command_line(self, home: Home, tmp_path: Path) -> None:
        create_secret(Secret("token", value=VALUE))
        create_secret(Secret("file", "mounted", VALUE))

        @localrun.function
        def fails(go: Path) -> None:
            import time

            token = os.environ["TOKEN"]  # noqa: F841 - in the traceback's frame
            while not go.exists():
                time.sleep(0.01)
            raise ValueError("an error of the user's own")

        go = tmp_path / "go"
        runs = [
            fails.run(go, run_name="function"),
            submit("command", f"until test -e {go}; do sleep 0.02; done; exit 3", max_retries=1),
            submit("named", f"until test -e {go}; do sleep 0.02; done", secrets=["file"]),
        ]
        kept = ["secrets/file/secret", "secrets/token/secret"]
        wait_until(lambda: [run for run in runs if run.refresh().status.value == "RUNNING"])
        assert files_with(VALUE, home.path) == kept
        assert command_lines_with(VALUE) == []
        go.touch()
        for run in runs:
            run.wait(60)
            assert VALUE not in repr(run)
        assert files_with(VALUE, home.path) == kept
        assert files_with(VALUE, tmp_path / "leases") == []

    def test_not_in_what_a_function_raises(self, home: Home) -> None:
        create_secret(Secret("token", value=VALUE))
        create_secret(Secret("file", "mounted", b"key of ours\nanother\\line\n"))
        create_secret(Secret("short", value="abc"))

        @localrun.function
        def fails(kind: str) -> None:
            with open(os.environ["SECRET_PATH_FILE"]) as file:
                content = file.read()
            token = os.environ.pop("TOKEN")
            if kind == "exit":
                raise SystemExit("bad token " + token)
            raise {"value": ValueError, "key": KeyError}[kind](f"abc: bad {token} or {content}")

        for kind in ("value", "key", "exit"):
            run = fails.run(kind, run_name=kind)
            error = run.exception(60)
            assert isinstance(error, localrun.RunFailedError)
            for text in (str(error), run.message, run.error, run.error_traceback, run.stderr(), str(run.logs())):
                assert text and VALUE not in text and "key of ours" not in text and "another" not in text
            assert "bad" in str(run.message) and "***" in str(run.message)
            assert kind == "exit" or "abc: bad *** or ***" in str(run.error)
        assert files_with(VALUE, home.path) == ["secrets/token/secret"]
        assert files_with("key of ours", home.path) == ["secrets/file/secret"]

    def test_other_exceptions_come_back_as_they_are(self, home: Home) -> None:
        create_secret(Secret("token", value=VALUE))

        @localrun.function
        def fails() -> None:
            raise ValueError("an error of the user's own")

        with pytest.raises(ValueError, match="an error of the user's own"):
            fails(run_name="run")

    def test_not_in_output_that_is_shown(self, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
        create_secret(Secret("token", value=VALUE))

        @localrun.function
        def says() -> str:
            print("token", os.environ["TOKEN"])
            return os.environ["TOKEN"]

        assert says(run_name="run") == VALUE
        assert capsys.readouterr().out == "token ***\n"
        run = localrun.get_run("run")
        assert (run.stdout(), run.result()) == (f"token {VALUE}\n", VALUE)
        assert localrun.get_run_logs(run) == run.logs() == "token ***\n"
        assert localrun.get_run_logs(run, stream="stdout", tail=4) == "***\n"
        assert localrun.get_run_logs(run, timestamps=True).endswith(" token ***\n")
        assert list(localrun.follow_run_logs(run)) == ["token ***\n"]
        assert list(localrun.follow_run_logs(run, tail=6)) == ["n ***\n"]

    def test_not_in_the_environment_kept_for_a_run_that_a_run_submits(self, home: Home, tmp_path: Path) -> None:
        create_secret(Secret("token", value=VALUE))
        create_secret(Secret("file", "mounted", VALUE))
        go = tmp_path / "go"

        @localrun.function
        def outer(go: Path) -> bool:
            from localrun import RunConfig, create_run

            command = f'until test -e {go}; do sleep 0.02; done; echo "${{TOKEN-none}} ${{SECRET_PATH_FILE-none}}"'
            create_run(RunConfig(name="none", command=command, secrets=[], cpus=0))
            create_run(RunConfig(name="all", command="echo ${#TOKEN}", cpus=0)).wait()
            return "TOKEN" in os.environ

        assert outer(go, run_name="outer")
        assert files_with(VALUE, home.path) == ["secrets/file/secret", "secrets/token/secret"]
        go.touch()
        assert localrun.get_run("none").wait(60).stdout() == "none none\n"
        assert localrun.get_run("all").stdout() == f"{len(VALUE)}\n"

    def test_not_in_a_dispatcher_that_a_run_starts(self, home: Home) -> None:
        create_secret(Secret("token", value=VALUE))
        code = "from localrun.engine.launchers.surroundings import environment; print('TOKEN' in environment())"
        shown = run_python(code, env={**os.environ, "TOKEN": VALUE, "LOCALRUN_RUN_SECRETS": "OTHER TOKEN"})
        assert shown.stdout == "False\n"

    def test_not_in_pickles_and_texts(self, home: Home) -> None:
        secret = Secret("token", value=VALUE)
        assert VALUE not in repr(secret) + str(secret) + f"{[secret]}" + str(create_secret(secret))
        assert pickle.loads(pickle.dumps(secret)).value is None
        assert VALUE not in repr(get_secrets(values=True))


class TestCalls:
    def test_create_get_delete(self, home: Home) -> None:
        assert get_secrets() == []
        made = create_secret(Secret("b", value=VALUE))
        assert (made.name, made.secret_type, made.key) == ("b", "environment", "B")
        assert (made.mount_path, made.value) == (None, None)
        made = create_secret(Secret("a.pem", "mounted", "x"))
        assert (made.key, made.mount_path, made.variable) == (None, "/secrets/a.pem", "SECRET_PATH_A_PEM")
        assert [(each.name, each.value) for each in get_secrets()] == [("a.pem", None), ("b", None)]
        assert [each.value for each in get_secrets(values=True)] == [b"x", VALUE]
        assert [each.name for each in delete_secrets(["b", made])] == ["b", "a.pem"]
        assert (get_secrets(), delete_secrets([])) == ([], [])
        assert os.listdir(home.path / "secrets") == [".lock"]

    def test_futures(self, home: Home) -> None:
        assert create_secret(Secret("a", value="x"), future=True).result(10).name == "a"  # type: ignore[attr-defined]
        assert [each.name for each in get_secrets(future=True).result(10)] == ["a"]  # type: ignore[attr-defined]
        assert [each.name for each in delete_secrets(["a"], future=True).result(10)] == ["a"]  # type: ignore[attr-defined]

    def test_only_the_user_can_read_them(self, home: Home) -> None:
        mask = os.umask(0)
        try:
            create_secret(Secret("a", value="x"))
        finally:
            os.umask(mask)
        place = home.path / "secrets"
        modes = {path.name: path.stat().st_mode & 0o777 for path in (place, place / "a", *(place / "a").iterdir())}
        assert modes == {"secrets": 0o700, "a": 0o700, "about.json": 0o600, "secret": 0o600}

    def test_taken_names_and_variables(self, home: Home) -> None:
        create_secret(Secret("a-b", value="x"))
        with pytest.raises(SecretExistsError, match=r"^secret a-b exists already") as caught:
            create_secret(Secret("a-b", "mounted", "y"))
        assert caught.value.status == 409
        with pytest.raises(SecretExistsError, match=r"^secret a-b has the variable A_B already$"):
            create_secret(Secret("a.b", value="x"))
        assert get_secrets(values=True)[0].value == "x"

    def test_an_unknown_name_deletes_nothing(self, home: Home) -> None:
        create_secret(Secret("a", value="x"))
        for call in (get_secrets, delete_secrets):
            with pytest.raises(SecretNotFoundError, match=r"^secret b: there is none of that name$"):
                call(["a", "b"])
        assert [each.name for each in get_secrets()] == ["a"]

    @pytest.mark.parametrize("names", ["a", None, Secret("a")])
    def test_what_is_no_list_deletes_nothing(self, home: Home, names: Any) -> None:
        create_secret(Secret("a", value="x"))
        with pytest.raises(RunConfigError, match=r"^secrets: "):
            delete_secrets(names)
        assert get_secrets()

    def test_what_a_killed_process_left_is_cleared_away(self, home: Home) -> None:
        create_secret(Secret("a", value="x"))
        left = home.path / "secrets" / ".b.new"
        left.mkdir()
        (left / "secret").write_text(VALUE)
        create_secret(Secret("b", value="y"))
        assert sorted(os.listdir(home.path / "secrets")) == [".lock", "a", "b"]

    def test_many_at_once_make_one(self, home: Home) -> None:
        tried = [create_secret(Secret("a", value=str(index)), future=True) for index in range(8)]
        errors = [each.exception(30) for each in tried]  # type: ignore[attr-defined]
        assert len([error for error in errors if error is None]) == 1
        assert {type(error) for error in errors} == {type(None), SecretExistsError}


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        (Secret("../x", value="v"), "name: '../x' has '/'"),
        (Secret("x", "env", "v"), "secret_type: must be 'environment' or 'mounted', not 'env'"),
        (Secret("x"), "value: must be text, and is nothing"),
        (Secret("x", value=b"v"), "value: must be text, and is of type bytes"),
        (Secret("x", "mounted", 3), "value: must be text or bytes, and is of type int"),  # type: ignore[arg-type]
        (Secret("x", value="v\0"), "value: must not have a NUL character"),
        (Secret("x", value="\ud800"), "value: has a character that cannot be encoded"),
        (Secret("x", value="v" * 131072), "value: is longer than an environment variable may be"),
        (Secret("x", value="v", key="a b"), "key: must be letters, digits and '_', with no digit first, not 'a b'"),
        (Secret("9x", value="v"), "key: must be letters, digits and '_', with no digit first, not '9X': give a key"),
        (Secret("x", value="v", key="LOCALRUN_HOME"), "key: LOCALRUN_HOME is a variable that localrun or"),
        (Secret("path", value="v"), "key: PATH is a variable that localrun or the system sets: give a key"),
        (Secret("x", value="v", key="LD_PRELOAD"), "key: LD_PRELOAD is a variable that localrun or the system sets"),
        (Secret("x", value="v", key="PYTHONPATH"), "key: PYTHONPATH is a variable that localrun or the system sets"),
        (Secret("x", value="v", mount_path="/x"), "mount_path: is for mounted secrets, and x is environment"),
        (Secret("x", "mounted", "v", key="X"), "key: is for environment secrets, and x is mounted"),
        (Secret("x", "mounted", "v", mount_path="x"), "mount_path: must be an absolute path without '..', not 'x'"),
        ("x", "secret: must be a Secret, not 'x'"),
    ],
)
def test_refused(home: Home, secret: Any, message: str) -> None:
    with pytest.raises(RunConfigError) as caught:
        create_secret(secret)
    assert caught.value.message.startswith(message)
    assert "\n" not in caught.value.message
    assert not home.path.exists()


def test_what_localrun_sets_is_reserved() -> None:
    record = {"name": "x", "port": 1, "gpus": [], "request": {"nproc_per_node": 2, "max_retries": 0}}
    several = set(ranks.environment(record, 0, 0))
    one = set(ranks.environment({**record, "request": {}}, 0, 0))
    for name in several | one | {"RUN_NAME", "RESUMPTION_INDEX", "PARAMETERS", "HOME"}:
        with pytest.raises(RunConfigError, match=f"^key: {name} is a variable"):
            Secret("x", value="v", key=name).checked()


def test_the_longest_value_reaches_a_run(home: Home) -> None:
    create_secret(Secret("x", value="v" * (131071 - len("X="))))
    assert said(execute("run", "echo ${#X}")) == f"{131071 - 2}\n"

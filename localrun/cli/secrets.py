"""``localrun create secret``, ``get secrets`` and ``delete secrets``. No command shows a value, and none needs it as an
argument, where every process of the machine could read it."""

from __future__ import annotations

import fnmatch
import sys
from argparse import ArgumentTypeError, Namespace
from typing import TYPE_CHECKING

from localrun.api.secrets import create_secret, delete_secrets, get_secrets
from localrun.cli.arguments import is_glob
from localrun.cli.confirm import is_confirmed
from localrun.cli.output import print_json, say
from localrun.cli.table import print_table
from localrun.errors import RunConfigError, SecretNotFoundError
from localrun.model.secret import ENVIRONMENT, MOUNTED, Secret

if TYPE_CHECKING:
    from localrun.cli.parser import Parser

_FIELDS = ("name", "secret_type", "variable", "key", "mount_path")
_FROM_STDIN = "-"


def add_create(parser: Parser) -> None:
    """The second words of ``localrun create``."""
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    kinds.add_parser("secret", help="a value that runs get and nothing shows", fill=_add_create_secret)
    parser.examples("localrun create secret env HF_TOKEN", "localrun create secret file ssh-key ~/.ssh/id_ed25519")


def _add_create_secret(parser: Parser) -> None:
    parser.description = "Keep a value that runs to come get, and that no record, log or command shows."
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    kinds.add_parser("env", help="as an environment variable of runs", fill=_add_env)
    kinds.add_parser("file", help="as a file for runs", fill=_add_file)
    parser.examples(
        "localrun create secret env HF_TOKEN                           asks for the value",
        "localrun create secret env HF_TOKEN < token.txt",
        "localrun create secret file ssh-key ~/.ssh/id_ed25519",
    )


def _add_env(parser: Parser) -> None:
    parser.description = (
        "Keep a secret that is an environment variable of runs. Without =VALUE the value is asked for or, in a pipe,\n"
        "read from standard input less the newline at its end: no other process sees it there."
    )
    parser.add_argument("variable", metavar="KEY[=VALUE]", type=_variable, help="the variable")
    parser.add_argument("--name", metavar="NAME", help="the secret's name (the key's: hf-token of HF_TOKEN)")
    parser.examples(
        "localrun create secret env HF_TOKEN",
        "localrun create secret env HF_TOKEN < token.txt",
        "localrun create secret env WANDB_MODE=offline --name wandb",
    )
    parser.set_defaults(command=create_env)


def _add_file(parser: Parser) -> None:
    parser.description = "Keep a secret that is a file for runs: its path is in their variable SECRET_PATH_<NAME>."
    parser.add_argument("name", metavar="NAME", help="the secret's name")
    parser.add_argument("path", metavar="FILE", help="where it is read from now; - is standard input")
    parser.add_argument("--mount-path", metavar="FOLDER", help="where it is in containers (/secrets/NAME)")
    parser.examples("localrun create secret file ssh-key ~/.ssh/id_ed25519", "localrun create secret file cert -")
    parser.set_defaults(command=create_file)


def _variable(text: str) -> tuple[str, str | None]:
    key, has_value, value = text.partition("=")
    if not key:
        raise ArgumentTypeError("must be KEY or KEY=VALUE")
    return key, value if has_value else None


def create_env(args: Namespace) -> None:
    """Keep a secret that is an environment variable."""
    key, value = args.variable
    name = args.name or key.lower().replace("_", "-").strip("-")
    Secret(name, ENVIRONMENT, "", key).checked()  # before anybody is asked for a value
    _create(Secret(name, ENVIRONMENT, _asked_for(key) if value is None else value, key))


def create_file(args: Namespace) -> None:
    """Keep a secret that is a file."""
    if args.path == _FROM_STDIN:
        content = sys.stdin.buffer.read()
    else:
        try:
            with open(args.path, "rb") as file:
                content = file.read()
        except OSError as error:
            raise RunConfigError(f"{args.path}: {error.strerror}") from None
    _create(Secret(args.name, MOUNTED, content, mount_path=args.mount_path))


def _asked_for(key: str) -> str:
    """A value that is typed unseen, or that comes on standard input."""
    if sys.stdin.isatty():
        import getpass

        value = getpass.getpass(f"value of {key}: ")
    else:
        value = sys.stdin.buffer.read().decode("utf-8", "surrogateescape").removesuffix("\n")
    if not value:
        raise RunConfigError(f"{key}: no value was given, neither as {key}=VALUE nor on standard input")
    return value


def _create(secret: Secret) -> None:
    made = create_secret(secret)
    say(f"{made.name}: created; runs to come have {'it' if made.key else 'its path'} in ${made.variable}")


def add_get_secrets(parser: Parser) -> None:
    """The arguments of ``localrun get secrets``."""
    parser.add_argument(
        "names", nargs="*", metavar="SECRET", help="a secret's name or variable, or a glob such as 'aws-*'"
    )
    parser.add_argument("-o", "--output", choices=("table", "json", "name"), default="table", help="how to print them")
    parser.examples("localrun get secrets", "localrun get secrets 'aws-*' -o name")
    parser.set_defaults(command=get)


def get(args: Namespace) -> None:
    """Print what secrets there are."""
    found = get_secrets(_named(args.names) if args.names else None)
    rows = [{field: getattr(secret, field) for field in _FIELDS} for secret in found]
    if args.output == "json":
        print_json(rows)
    elif args.output == "name":
        print("".join(f"{secret.name}\n" for secret in found), end="")
    elif found:
        cells = [(row["name"], row["secret_type"], row["variable"], row["mount_path"]) for row in rows]
        print_table(("NAME", "TYPE", "VARIABLE", "MOUNT PATH"), cells, expendable=("MOUNT PATH", "TYPE"))
    else:
        say("no secrets")


def add_delete_secrets(parser: Parser) -> None:
    """The arguments of ``localrun delete secrets``."""
    parser.add_argument(
        "names", nargs="*", metavar="SECRET", help="a secret's name or variable, or a glob such as 'aws-*'"
    )
    parser.add_argument("--all", action="store_true", help="every secret")
    parser.add_argument("-y", "--yes", action="store_true", help="don't ask")
    parser.examples("localrun delete secret hf-token", "localrun delete secrets 'aws-*' -y")
    parser.set_defaults(command=delete)


def delete(args: Namespace) -> int | None:
    """Delete the secrets that are asked for."""
    if bool(args.names) == args.all:
        raise RunConfigError("--all: can't be given with names" if args.all else "name the secrets, or give --all")
    found = get_secrets(None if args.all else _named(args.names))
    picked = args.all or any(map(is_glob, args.names))
    these = [(secret.name, secret.secret_type) for secret in found]
    if not is_confirmed("delete", "secret", these, picked=picked, yes=args.yes):
        return 1
    for secret in delete_secrets(found):
        say(f"{secret.name}: deleted")
    return None


def _named(texts: list[str]) -> list[str]:
    """The names themselves, globs as the names of the secrets that match them."""
    there = [secret.name for secret in get_secrets()] if any(map(is_glob, texts)) else []
    found = [name for text in texts for name in (fnmatch.filter(there, text) if is_glob(text) else [_name_of(text)])]
    return list(dict.fromkeys(found))


def _name_of(text: str) -> str:
    """The name itself or, if there is none, that of the secret which is this variable of runs."""
    try:
        get_secrets([text])
    except (RunConfigError, SecretNotFoundError):
        return next((secret.name for secret in get_secrets() if secret.variable == text), text)
    return text

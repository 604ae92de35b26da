"""Configurations as text: YAML and JSON read with an eye for mistakes, and written so that they read back the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from localrun.errors import RunConfigError


def described(value: object) -> str:
    """A value for an error's message: itself if it is short and simple, else what it is. Always one line."""
    if value is None or isinstance(value, (str, bool, int, float)):
        try:
            text = repr(value)
        except ValueError:  # an int of thousands of digits
            return "a huge number"
        return text if len(text) <= 60 else f"{text[:56]}...{text[-1]}"
    if isinstance(value, Mapping):
        return "a mapping"
    kind = type(value).__name__
    return f"an {kind}" if kind[0] in "aeiouAEIOU" else f"a {kind}"


def read_json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key, value in pairs:
            if key in mapping:
                raise RunConfigError(f"the key {described(key)} is given twice")
            mapping[key] = value
        return mapping

    try:
        return json.loads(text, object_pairs_hook=unique)
    except RunConfigError:
        raise
    except json.JSONDecodeError as error:
        raise RunConfigError(f"line {error.lineno}: {error.msg}") from None
    except ValueError as error:  # a number of thousands of digits
        raise RunConfigError(f"not valid JSON: {error}") from None


def read_yaml(text: str) -> Any:
    """What a YAML text holds, read as ``from_file`` does; RunConfigError with the line for bad syntax."""
    import yaml

    try:
        return yaml.load(text, _yaml_loader())  # noqa: S506 - a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        problem = error.problem or error.context or "not valid YAML"
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        # Not only YAMLError: what a tag such as !!int or !!bool cannot read leaves PyYAML as whatever it was.
        where, problem = "", f"not valid YAML: {error}"
    raise RunConfigError(where + " ".join(problem.split()))


# A number in YAML 1.2, and text in 1.1 for want of a dot or of the exponent's sign.
_NUMBER = r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"


def write_json(mapping: Any) -> str:
    """A mapping as JSON text; TypeError or ValueError if JSON has no form for something in it."""
    return json.dumps(mapping, indent=2) + "\n"


def write_yaml(mapping: Any) -> str:
    """A mapping as YAML text; ValueError if YAML has no form for something in it."""
    import yaml

    try:
        return str(yaml.dump(mapping, Dumper=_yaml_dumper(), sort_keys=False, allow_unicode=True, width=120))
    except yaml.YAMLError as error:
        raise ValueError(*error.args) from None


@cache
def _yaml_dumper() -> Any:
    """PyYAML's SafeDumper, with lines of text as lines, and in quotes what the loader here would take for a number."""
    import re

    import yaml

    class Dumper(yaml.SafeDumper):
        def represent_text(self, text: str) -> yaml.ScalarNode:
            is_strange = not text.replace("\n", "").isprintable()  # some are line ends to YAML: escaped
            style = '"' if is_strange else "|" if "\n" in text else None
            return self.represent_scalar("tag:yaml.org,2002:str", text, style)

    Dumper.add_representer(str, Dumper.represent_text)
    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_NUMBER), list("-+.0123456789"))
    return Dumper


@cache
def _yaml_loader() -> Any:
    """PyYAML's SafeLoader, with ``1e-4`` a number as in YAML 1.2, dates left as text, and no key given twice."""
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            node = super().compose_mapping_node(anchor)
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in seen:
                        message = f"the key {described(key.value)} is given twice"
                        raise yaml.MarkedYAMLError(problem=message, problem_mark=key.start_mark)
                    seen.add((key.tag, key.value))
            return node

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_NUMBER), list("-+.0123456789"))
    return Loader

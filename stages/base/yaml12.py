"""YAML as DVC reads it.

PyYAML reads unquoted values by YAML 1.1, and DVC (with ruamel.yaml) by YAML 1.2. They differ for
`1e-3`, `010`, `0o10`, `no` and `on`. This loader is PyYAML's safe loader with DVC's rules for
values. Like DVC, it refuses a key that is given twice.
"""

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.nodes import MappingNode, ScalarNode

from stages.base.errors import UserError

PYYAML_RESOLVERS = yaml.CSafeLoader.yaml_implicit_resolvers
BOOL, FLOAT, INT = (f"tag:yaml.org,2002:{name}" for name in ("bool", "float", "int"))
SCALARS = {  # by tag: a pattern, and the characters with which a match may begin
    BOOL: (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), [*"tTfF"]),
    FLOAT: (
        re.compile(
            r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?"
            r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
            r"|[-+]?\.[0-9_]+([eE][-+][0-9]+)?"
            r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
        ),
        [*"-+.0123456789"],
    ),
    INT: (
        re.compile(r"^(?:[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9_]+))$"),
        [*"-+0123456789"],
    ),
}
RESOLVERS = {  # by first character: tags and patterns; PyYAML's own, except those of SCALARS
    first: [
        *(pair for pair in PYYAML_RESOLVERS.get(first, []) if pair[0] not in SCALARS),
        *((tag, pattern) for tag, (pattern, firsts) in SCALARS.items() if first in firsts),
    ]
    for first in chain(PYYAML_RESOLVERS, *(firsts for _, firsts in SCALARS.values()))
}

MAX_KEYS = 10**5  # of a mapping, including the keys that it merges
MAX_SIZE = 10**7  # of a document, in values and characters

# PyYAML raises these for faulty YAML, for a tag that does not fit its value, and for deep nesting.
REFUSALS = yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError


class _Loader(yaml.CSafeLoader):
    """Build plain data only; no tag in a document can run code."""

    yaml_implicit_resolvers = RESOLVERS

    def construct_int(self, node: ScalarNode) -> int:
        digits = str(self.construct_scalar(node)).replace("_", "")
        return int(digits, 0 if re.match(r"[-+]?0[box]", digits) else 10)

    def construct_float(self, node: ScalarNode) -> float:
        text = str(self.construct_scalar(node)).replace("_", "").lower()
        return float(re.sub(r"\.(inf|nan)$", r"\1", text))

    def flatten_mapping(self, node: MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_KEYS:
            raise yaml.MarkedYAMLError(problem="too many keys", problem_mark=node.start_mark)

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key_node, _ in node.value:
            merge = key_node.tag == "tag:yaml.org,2002:merge"
            key = "<<" if merge else self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | None):
                raise yaml.MarkedYAMLError(
                    problem="a key is not text", problem_mark=key_node.start_mark
                )
            if key in keys:
                problem = f"the key `{key}` is given twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            keys.add(key)
        return super().construct_mapping(node, deep)

    yaml_constructors: ClassVar = {
        **yaml.CSafeLoader.yaml_constructors,
        INT: construct_int,
        FLOAT: construct_float,
    }


def read_yaml(path: Path) -> Any:
    """Read the document in ``path``; its values have the types that DVC gives them.

    Raises:
        UserError: If the file is missing or is not one valid YAML 1.2 document.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Run this in the project's folder.") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: {error.problem}. Correct the file.") from None
    except REFUSALS as error:
        raise UserError(f"{path}: not valid YAML: {error}. Correct the file.") from None


def parse_yaml(text: str) -> Any:
    """Read the document in ``text``; an empty document is an empty mapping, as in DVC."""
    if re.search(r"^%YAML", text, re.MULTILINE):
        raise ValueError("a %YAML directive changes the meaning of values; remove it")
    content = yaml.load(text, _Loader)  # noqa: S506 (the loader above is a SafeLoader)
    if _size(content, {}) > MAX_SIZE:
        raise ValueError("too large when each alias is replaced by its value")
    # Refuse a value that contains itself, and half of a character.
    json.dumps(content, ensure_ascii=False, default=str).encode()
    return content or {}


def _size(value: Any, sizes: dict[int, int]) -> int:
    """The number of values and characters; a shared value counts each time that it is used."""
    if not isinstance(value, dict | list):
        return 1 + len(value) if isinstance(value, str) else 1
    if id(value) not in sizes:
        sizes[id(value)] = 0  # ends a value that contains itself
        members = (*value.keys(), *value.values()) if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(_size(member, sizes) for member in members)
    return sizes[id(value)]

"""YAML as DVC reads it.

PyYAML resolves plain scalars by YAML 1.1, DVC (through ruamel.yaml) by YAML 1.2: `1e-3`, `010`,
`0o10`, `no` and `on` differ. This loader keeps PyYAML's safe parser and takes DVC's scalars; like
DVC, it refuses a key given twice.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, ScalarNode

from stages.base.errors import UserError

SCALARS = {  # by type: a pattern, and the characters that a match may begin with
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
    "float": (
        (
            r"[-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?"
            r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
            r"|[-+]?\.[0-9_]+([eE][-+][0-9]+)?"
            r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
        ),
        "-+.0123456789",
    ),
    "int": (r"[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9_]+)", "-+0123456789"),
}

MAX_KEYS = 10**5  # of a mapping, with those that it merges
MAX_SIZE = 10**7  # of a document, in values and characters

# What PyYAML raises for a tag that does not fit its value, and for deep nesting.
REFUSALS = yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError


class _Loader(yaml.CSafeLoader):
    """Builds plain data only: no tag in a document can run code."""

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


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag.rpartition(":")[2] not in SCALARS]
    for first, pairs in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
for _type, (_pattern, _first) in SCALARS.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_type}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_float)


def read_yaml(path: Path) -> Any:
    """The document in ``path``, its scalars typed as DVC types them.

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
    """The document in ``text``; an empty one is an empty mapping, as in DVC."""
    if re.search(r"^%YAML", text, re.MULTILINE):
        raise ValueError("a %YAML directive changes what values mean; remove it")
    content = yaml.load(text, _Loader)  # noqa: S506 (the loader above is a SafeLoader)
    if _size(content, {}) > MAX_SIZE:
        raise ValueError("too much, if each alias is replaced by what it stands for")
    json.dumps(
        content, ensure_ascii=False, default=str
    ).encode()  # neither circles nor half characters
    return content or {}


def _size(value: Any, sizes: dict[int, int]) -> int:
    """How many values and characters there are; a value that is shared counts each time."""
    if not isinstance(value, dict | list):
        return 1 + len(value) if isinstance(value, str) else 1
    if id(value) not in sizes:
        sizes[id(value)] = 0  # a circle ends here
        parts = (*value.keys(), *value.values()) if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(_size(part, sizes) for part in parts)
    return sizes[id(value)]

"""YAML as DVC reads it.

PyYAML reads unquoted values by YAML 1.1, and DVC (with ruamel.yaml) by YAML 1.2. They differ for
`1e-3`, `010`, `0o10`, `no` and `on`. This loader is PyYAML's safe loader with DVC's rules for
values. Like DVC, it refuses a key that is given twice.
"""

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.nodes import MappingNode, ScalarNode

from stages.base.errors import UserError

TAG = "tag:yaml.org,2002:"
PATTERNS = {  # in this order
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"(?!_)[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9_]+)",
    "float": r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?|[-+]?\.[0-9_]+([eE][-+][0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}
SCALARS = {TAG + name: re.compile(f"^({pattern})$") for name, pattern in PATTERNS.items()}


class _Loader(yaml.CSafeLoader):
    """Build plain data only; no tag in a document can run code."""

    yaml_implicit_resolvers = {  # by first character; None stands for any
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in SCALARS]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    } | {None: [*SCALARS.items()]}

    def construct_int(self, node: ScalarNode) -> int:
        digits = node.value.replace("_", "")
        return int(digits, 0 if re.match(r"[-+]?0[box]", digits) else 10)

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                problem = f"the key `{key}` is given twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            keys.add(key)
        return super().construct_mapping(node, deep)

    yaml_constructors: ClassVar = {
        **yaml.CSafeLoader.yaml_constructors,
        TAG + "int": construct_int,
        TAG + "merge": yaml.CSafeLoader.construct_yaml_str,  # as a key, which is given once
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
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}. Correct the file.") from None


def parse_yaml(text: str) -> Any:
    """Read the document in ``text``; an empty document is an empty mapping, as in DVC."""
    return yaml.load(text, _Loader) or {}  # noqa: S506 (the loader above is a SafeLoader)

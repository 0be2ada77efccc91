"""Which room may stand on which, and that dvc.yaml lists for each stage just what it imports."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STAGES = [*PIPELINE]
VERBS = [*STAGES, "predict"]
SOURCES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "stages").rglob("*.py"))
MAY_IMPORT = {  # each room also its own files
    "base": set(),
    "rows": {"base"},
    "tables": {"base", "rows"},
    "network": {"base"},
    "model": {"base", "rows", "network"},
    "training": {"base", "rows", "network", "model"},
    "scoring": {"base", "rows", "model"},
    "release": {"base", "rows", "model"},
}
ROOMS = [room for room in MAY_IMPORT if room != "network"]  # which is one file


@cache
def imported_names(path: Path) -> set[str]:
    """What a file imports, and every text in it, which may be a module to be run."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return names


def imported_files(path: Path) -> set[str]:
    """The files of stages/ that a file names in an import, or as a module to be run."""
    names = imported_names(path)
    files = {name.replace(".", "/") + ".py" for name in names if name.startswith("stages.")}
    return files & {*SOURCES}


def needed_files(verb: str) -> set[str]:
    """The verb's file, and all that it imports, directly or not."""
    needed, new = set(), {f"stages/{verb}.py"}
    while new:
        needed |= new
        new = {name for path in new for name in imported_files(ROOT / path)} - needed
    return needed


def room_of(source: str) -> str:
    """The folder of a file in a room; the network's own; nothing for a verb."""
    if source == "stages/network.py":
        return "network"
    return "" if Path(source).parent.name == "stages" else Path(source).parent.name


def listed_code(stage: str) -> set[str]:
    """The code that dvc.yaml lists for a stage."""
    return {name for name in PIPELINE[stage]["deps"] if name.startswith("stages/")}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_every_room_that_it_imports_and_no_other(stage):
    rooms = {f"stages/{room_of(name)}" for name in needed_files(stage) if room_of(name)}
    rooms = {"stages/network.py" if room == "stages/network" else room for room in rooms}
    assert listed_code(stage) == rooms | {"stages/__init__.py", f"stages/{stage}.py"}


def test_a_room_stands_on_the_rooms_below_it_alone():
    for source in SOURCES:
        room = room_of(source)
        allowed = MAY_IMPORT[room] | {room} if room else {*MAY_IMPORT}
        imported = imported_files(ROOT / source) - {source}  # torchrun starts a verb by its name
        assert {room_of(name) for name in imported} <= allowed, source


def test_there_are_no_circles_of_imports():
    names = {source: imported_files(ROOT / source) - {source} for source in SOURCES}
    while names:
        free = [name for name, imported in names.items() if not imported & names.keys()]
        assert free, f"a circle among {sorted(names)}"
        for name in free:
            del names[name]


def test_every_file_is_needed_by_a_verb():
    files = {name for name in SOURCES if not name.endswith("__init__.py")}
    assert set().union(*map(needed_files, VERBS)) == files


def test_an_import_inside_a_function_is_noticed(tmp_path):
    path = tmp_path / "sneaky.py"
    path.write_text("def f():\n    from stages.rows import split\n    import stages.tables.line\n")
    assert imported_files(path) == {"stages/rows/split.py", "stages/tables/line.py"}


@pytest.mark.parametrize("source", SOURCES)
def test_no_file_is_read_as_code(source):
    tree = ast.parse((ROOT / source).read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    attributes = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    imports = {name.split(".")[0] for name in imported_names(ROOT / source)}
    assert not imports & {"pickle", "marshal", "shelve", "dill", "joblib", "runpy"}
    assert not names & {"eval", "exec", "compile", "__import__"}
    assert not attributes & {"np.load", "yaml.unsafe_load", "yaml.full_load"}
    loads = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in loads:
        assert not call.startswith("torch.load(") or "weights_only=True" in call


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "stages/__init__.py"])
def test_no_file_acts_on_import_but_the_packages_own(source):
    definitions = (
        ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign,
    )  # fmt: skip
    docstring, *statements = ast.parse((ROOT / source).read_text()).body
    assert isinstance(docstring, ast.Expr), "a docstring says what the file is for"
    for statement in statements:
        if isinstance(statement, ast.If):
            assert ast.unparse(statement) == "if __name__ == '__main__':\n    run(main)"
        else:
            assert isinstance(statement, definitions), ast.unparse(statement)


def defined_names(source: str) -> set[str]:
    """The names that a file defines at its top level."""
    names = set()
    for node in ast.parse((ROOT / source).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_one_name_is_one_thing_in_all_stages():
    counts = Counter(name for source in SOURCES for name in defined_names(source))
    assert {name for name, count in counts.items() if count > 1} == {"main"}


def test_dvc_yaml_is_short():
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 130


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for(room):
    text = (ROOT / f"stages/{room}/__init__.py").read_text()
    assert 3 <= len(text.splitlines()) <= 6
    assert len(ast.parse(text).body) == 1, "nothing but its docstring"

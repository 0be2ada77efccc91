"""The pipeline as a whole: what it declares, what it reruns, and how it ends."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from stages.base.params import declared_keys
from tests.conftest import ROOT, command, contents, copy_project, without_override
from tests.test_house import PIPELINE, SOURCES, STAGES, listed_code

ALL = {"prepare", "train", "evaluate", "save"}
LEARNING = ALL - {"prepare"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_with_its_declared_files_alone_to_the_same_bytes(finished, tmp_path, stage):
    for name in [*PIPELINE[stage]["deps"], "params.yaml"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (finished / name).is_dir() else shutil.copy
        copy(finished / name, tmp_path / name)
    end = command(tmp_path, "python", "-m", f"stages.{stage}")
    assert end.returncode == 0, end.stderr
    in_git = [*PIPELINE[stage].get("metrics", []), *PIPELINE[stage].get("plots", [])]
    for output in [*PIPELINE[stage]["outs"], *(name for entry in in_git for name in entry)]:
        assert contents(tmp_path / output) == contents(finished / output)


RECORDER = """
import runpy, sys
from pydantic import BaseModel
from stages.base import params

class Recorder:
    def __init__(self, section, name):
        self.section, self.name = section, name
    def __getattr__(self, key):
        value, name = getattr(self.section, key), f"{self.name}{key}"
        if key in ("model_dump", "model_copy"):
            for field in self.section.model_fields_set:
                print("read", f"{self.name}{field}")
            return value
        if isinstance(value, BaseModel):
            return Recorder(value, f"{name}.")
        print("read", name)
        return value

load = params.load_params
params.load_params = lambda: Recorder(load(), "")
runpy.run_module(f"stages.{sys.argv[1]}", run_name="__main__")
"""


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_parameters_that_it_reads(finished, tmp_path, stage):
    folder = shutil.copytree(finished, tmp_path / "copy")
    end = command(folder, "python", "-c", RECORDER, stage)
    assert end.returncode == 0, end.stderr
    read = {line.split()[1] for line in end.stdout.splitlines() if line.startswith("read ")}
    declared = PIPELINE[stage]["params"]
    assert read
    for name in read:
        assert any(name == key or name.startswith(f"{key}.") for key in declared), name
    for key in declared:
        assert any(name == key or name.startswith(f"{key}.") for name in read), key


# Writes each text in its file's place, asks DVC what is not up to date, and puts the old one back.
STALE = """
import json, sys
from pathlib import Path
from dvc.repo import Repo

for name, text in json.load(sys.stdin):
    path = Path(name)
    old = path.read_text()
    path.write_text(text)
    print(json.dumps([*Repo().status()]))
    path.write_text(old)
"""


def stale(folder: Path, changes: list[tuple[str, str]]) -> list[set[str]]:
    """For each changed file, the stages of which DVC says that an input has changed."""
    end = command(folder, "python", "-c", STALE, input=json.dumps(changes))
    assert end.returncode == 0, end.stderr
    return [{*json.loads(line)} for line in end.stdout.splitlines()]


def test_a_parameter_makes_exactly_the_stages_stale_that_read_it(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    sections = {"prepare", "train", "evaluate", "save"}
    names, texts = sorted({*declared_keys()} - sections), []
    for name in names:
        content = yaml.safe_load((folder / "params.yaml").read_text())
        *parents, key = name.split(".")
        section = content[parents[0]] if parents else content
        section[key] = "another value"
        texts.append(yaml.safe_dump(content))
    expected = {name: {name.split(".")[0]} for name in names}
    expected["device"] = expected["train.numerics"] = {"train", "evaluate"}
    found = stale(folder, [("params.yaml", text) for text in texts])
    assert dict(zip(names, found, strict=True)) == expected


def test_a_source_file_makes_exactly_the_stages_stale_that_list_it_or_its_room(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    files = [*SOURCES, "requirements.txt"]
    changes = [(name, (folder / name).read_text() + "# A comment.\n") for name in files]
    expected = {
        name: {stage for stage in STAGES if {name, str(Path(name).parent)} & listed_code(stage)}
        for name in SOURCES
    } | {"requirements.txt": ALL}
    assert dict(zip(files, stale(folder, changes), strict=True)) == expected


@pytest.mark.parametrize("writes_bytecode", [True, False])
def test_byte_code_and_what_editors_leave_make_no_stage_stale(finished, tmp_path, writes_bytecode):
    folder = shutil.copytree(finished, tmp_path / "copy")
    for path in folder.rglob("__pycache__"):
        shutil.rmtree(path)
    environment = {} if writes_bytecode else {"PYTHONDONTWRITEBYTECODE": "1"}
    for stage in STAGES:
        end = command(folder, "python", "-c", f"import stages.{stage}", environment=environment)
        assert end.returncode == 0, end.stderr
    assert bool([*(folder / "stages").rglob("*.pyc")]) == writes_bytecode
    for name in (".files.py.swp", "files.py~", ".#files.py", ".DS_Store", ".files.py.1.draft"):
        (folder / "stages/base" / name).write_text("left")
    assert rerun(folder) == set()


def rerun(folder: Path) -> set[str]:
    """The stages that `dvc repro` runs, called from another folder."""
    end = command(folder.parent, "dvc", "--cd", str(folder), "repro")
    assert end.returncode == 0, end.stderr
    return {line.split("'")[1] for line in end.stdout.splitlines() if line.startswith("Running")}


# A stage that reads a parameter runs; the later ones run if its outputs are other bytes.
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"prepare.noise": 0.06}, ALL),
        (
            {
                "prepare.features": ["x"],
                "prepare.delimiter": ";",
                "prepare.decimal": ",",
                "prepare.missing": "drop",
                "prepare.missing_values": ["NA"],
            },
            {"prepare", "save"},
        ),
        ({"train.lr": 0.01}, LEARNING),
        ({"evaluate.plot_rows": 100}, {"evaluate", "save"}),
        ({"save.require": {"r2": 0.5}}, {"save"}),
    ],
)
def test_a_parameter_reruns_the_stages_that_it_concerns(quick, tmp_path, changes, expected):
    folder = shutil.copytree(quick, tmp_path / "copy")
    content = yaml.safe_load((folder / "params.yaml").read_text())
    for name, value in changes.items():
        section, key = name.split(".")
        assert content[section][key] != value
        content[section][key] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    assert rerun(folder) == expected


def test_a_comment_in_a_source_file_reruns_its_stages_alone(quick, tmp_path):
    folder = shutil.copytree(quick, tmp_path / "copy")
    with (folder / "stages/tables/line.py").open("a") as file:
        file.write("# A comment.\n")
    assert rerun(folder) == {"prepare"}


def test_what_is_no_input_reruns_nothing(quick, tmp_path):
    folder = shutil.copytree(quick, tmp_path / "copy")
    for name in ("params.yaml", "dvc.yaml", "README.md", "pyproject.toml", "data/README.md"):
        with (folder / name).open("a") as file:
            file.write("\n# A comment.\n")
    assert rerun(folder) == set()
    assert list((folder / "stages").rglob("*.pyc")), "byte code lies where users have it"


def test_a_new_table_reruns_prepare_alone(quick, tmp_path):
    folder = shutil.copytree(quick, tmp_path / "copy")
    (folder / "data/raw/new.csv").write_text("x,y\n1,2\n")
    assert rerun(folder) == {"prepare"}


def test_going_back_runs_nothing_again(quick, tmp_path):
    folder = shutil.copytree(quick, tmp_path / "copy")
    params, text = folder / "params.yaml", (folder / "params.yaml").read_text()
    params.write_text(text.replace("epochs: 200", "epochs: 3"))
    assert rerun(folder) == LEARNING
    before = (folder / "dvc.lock").read_text()
    params.write_text(text)
    assert rerun(folder) == set()
    assert (folder / "dvc.lock").read_text() == (quick / "dvc.lock").read_text() != before


def test_the_committed_lock_and_metrics_are_what_a_run_from_nothing_gives(finished):
    if torch.accelerator.is_available():
        pytest.skip("they hold the bits of a CPU, and this machine has an accelerator")
    for name in ("dvc.lock", "metrics/evaluation.json", "metrics/plots/figure.svg"):
        assert (finished / name).read_text() == (ROOT / name).read_text(), (
            "`dvc repro --force`, then commit"
        )


def test_an_experiment_runs_in_a_copy_and_leaves_the_workspace_alone(quick, tmp_path):
    folder = shutil.copytree(quick, tmp_path / "copy")
    before = (folder / "metrics/evaluation.json").read_text()
    end = command(folder, "dvc", "exp", "run", "--temp", "-S", "train.epochs=5")
    assert end.returncode == 0, end.stderr
    assert (folder / "metrics/evaluation.json").read_text() == before


def test_an_experiment_changes_one_line_of_the_parameters(quick, tmp_path):
    folder = shutil.copytree(quick, tmp_path / "copy")
    end = command(folder, "dvc", "exp", "run", "-S", "train.epochs=100")
    assert end.returncode == 0, end.stderr
    old, new = ((path / "params.yaml").read_text().splitlines() for path in (quick, folder))
    assert [pair for pair in zip(old, new, strict=True) if pair[0] != pair[1]] == [
        (line, line.replace("200", "100")) for line in old if line.startswith("  epochs:")
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_checks_all_parameters_before_anything_else(tmp_path, stage):
    folder = copy_project(tmp_path)
    params = folder / "params.yaml"
    params.write_text(
        params.read_text().replace("lr: 0.1 ", "lr: -1 ").replace("onnx: true", "onx: 1")
    )
    names = "data", "models", "metrics"
    before = [contents(folder / name) for name in names]
    end = command(folder, "python", "-m", f"stages.{stage}")
    assert end.returncode == 1
    assert end.stdout == ""
    assert end.stderr == (
        "params.yaml: `save.onnx` is missing. Add it.\n"
        "params.yaml: `save.onx` is not a parameter. Did you mean `save.onnx`?\n"
        "params.yaml: `train.lr` must be greater than 0. Got -1.\n"
    )
    assert [contents(folder / name) for name in names] == before


def test_a_refused_stage_fails_dvc_and_the_old_outputs_come_back(quick, tmp_path):
    folder = shutil.copytree(quick, tmp_path / "copy")
    params, text = folder / "params.yaml", (folder / "params.yaml").read_text()
    before = contents(folder / "models")
    params.write_text(text.replace("lr: 0.1 ", "lr: 1e6 "))
    end = command(folder, "dvc", "repro")
    assert end.returncode != 0
    assert "train: diverged in epoch" in end.stderr
    assert "Traceback" not in end.stderr
    params.write_text(text)
    assert command(folder, "dvc", "checkout").returncode == 0
    assert contents(folder / "models") == before


def test_a_terminal_without_the_signs_gets_other_signs(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    environment = {"PYTHONIOENCODING": "ascii"}
    end = command(folder, "python", "-m", "stages.train", environment=environment)
    assert end.returncode == 0, end.stderr
    assert "learned y = 0.7054\\xb7x + 0.2964" in end.stdout


@pytest.mark.parametrize(
    ("stage", "locked", "named"),
    [
        ("prepare", "data", "data/.prepared.draft"),
        ("train", "models", "models/.trained.draft"),
        ("evaluate", "metrics", "metrics/.predictions.parquet.draft"),
        ("save", "models", "models/.release.draft"),
    ],
)
def test_without_permission_to_write_a_stage_says_so(finished, tmp_path, stage, locked, named):
    folder = shutil.copytree(finished, tmp_path / "copy")
    before = contents(folder / locked)
    (folder / locked).chmod(0o555)
    end = command(folder, "python", "-m", f"stages.{stage}", preexec_fn=without_override)
    (folder / locked).chmod(0o755)
    assert end.returncode == 1
    assert re.sub(r"\.\d+\.draft", ".draft", end.stderr) == (
        f"{named}: Permission denied. Check the permissions and the free space.\n"
    )
    assert contents(folder / locked) == before

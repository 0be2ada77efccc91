import json
import math
from pathlib import Path

import pytest

from stages.base.errors import UserError
from stages.base.files import draft_of, read_json, write_csv, write_json
from stages.base.outputs import _locked, output_folder
from tests.conftest import contents


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path):
    folder = tmp_path / "models/trained"
    folder.mkdir(parents=True)
    (folder / "old").write_text("old")
    with output_folder(folder) as draft:
        (draft / "new").write_text("new")
        assert sorted(path.name for path in folder.iterdir()) == ["old"]
    assert sorted(path.name for path in folder.iterdir()) == ["new"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["trained"]


@pytest.mark.parametrize("error", [UserError, KeyboardInterrupt, OSError])
def test_after_an_error_the_old_folder_is_as_it_was_and_no_draft_is_left(tmp_path, error):
    folder = tmp_path / "trained"
    folder.mkdir()
    (folder / "old").write_text("old")
    with pytest.raises(error), output_folder(folder) as draft:  # noqa: PT012 (the point)
        (draft / "new").write_text("new")
        raise error
    assert (folder / "old").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["trained"]


def test_a_draft_of_a_killed_process_is_deleted_and_one_in_use_is_not(tmp_path):
    leftover, in_use = tmp_path / ".trained.123.draft", tmp_path / ".trained.124.draft"
    for folder in (leftover, in_use):
        folder.mkdir()
        (folder / "half").write_text("half")
    with _locked(in_use), output_folder(tmp_path / "trained") as draft:
        assert list(draft.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"trained", in_use.name}


def test_json_is_sorted_and_holds_no_nan(tmp_path):
    path = tmp_path / "metrics/evaluation.json"
    write_json(path, {"b": 0.1, "a": {"ü": 1}})
    assert path.read_text() == '{\n  "a": {\n    "ü": 1\n  },\n  "b": 0.1\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": math.nan})
    assert json.loads(path.read_text())["b"] == 0.1
    assert [entry.name for entry in path.parent.iterdir()] == ["evaluation.json"]


def test_csv_keeps_every_float(tmp_path):
    path = tmp_path / "history.csv"
    write_csv(path, ["epoch", "loss", "none"], [(1, 0.1 + 0.2, None)])
    assert path.read_bytes() == b"epoch,loss,none\n1,0.30000000000000004,\n"


def test_a_missing_or_damaged_json_file_is_one_sentence(workspace):
    path = Path("evaluation.json")
    with pytest.raises(UserError) as error:
        read_json(path)
    assert str(error.value) == "evaluation.json does not exist. Run `dvc repro`."
    path.write_text("{")
    with pytest.raises(UserError) as error:
        read_json(path)
    assert str(error.value).startswith("evaluation.json is damaged: ")


def test_a_folder_that_a_kill_between_the_renames_has_hidden_comes_back(tmp_path):
    old, folder = tmp_path / ".plots.old", tmp_path / "plots"
    old.mkdir()
    (old / "mine").write_text("mine")
    with pytest.raises(KeyError), output_folder(folder):
        raise KeyError
    assert contents(folder) == {"mine": b"mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["plots"]


def test_a_link_is_replaced_and_its_target_stays(tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "kept").touch()
    (tmp_path / "trained").symlink_to(target)
    with output_folder(tmp_path / "trained") as draft:
        (draft / "new").touch()
    assert (tmp_path / "trained/new").exists()
    assert [path.name for path in target.iterdir()] == ["kept"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "trained"]


def test_a_draft_replaces_those_of_killed_processes_and_no_others(tmp_path):
    others = [tmp_path / ".y[1].csv.draft", tmp_path / ".y1.csv.7.draft", tmp_path / "y[1].csv"]
    for path in (*others, tmp_path / ".y[1].csv.7.draft"):
        path.touch()
    draft = draft_of(tmp_path / "y[1].csv")
    assert draft.parent == tmp_path
    assert not draft.exists()
    assert sorted(tmp_path.iterdir()) == sorted(others)

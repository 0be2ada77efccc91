import json
import math
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import prepare
from stages.base.errors import UserError
from stages.base.files import PREPARED, STATISTICS
from stages.rows.split import Split, SplitWriter, block_rows, read_statistics, split_labels


def labels(sizes, order="random", seed=0):
    return np.concatenate(list(split_labels(sizes, order, seed)))


@pytest.mark.parametrize(("features", "rows"), [(1, 262_144), (10, 65_536), (100, 8_192)])
def test_a_block_has_the_rows_that_the_design_states(features, rows):
    assert block_rows(features + 1) == rows


@given(st.integers(2, 3_000_000))
def test_a_block_has_at_least_one_row_and_at_most_4_mb_of_float32(num_columns):
    rows = block_rows(num_columns)
    assert rows >= 1
    assert rows == 1 or rows * num_columns * 4 <= 4_000_000


@given(
    st.tuples(*3 * [st.integers(0, 100_000)]),
    st.sampled_from(["random", "ordered"]),
    st.integers(0, 9),
)
def test_sizes_are_exact_and_every_row_is_in_one_split(sizes, order, seed):
    counts = np.bincount(labels((*sizes[:2], sizes[2] + 1), order, seed), minlength=3)
    assert counts.tolist() == [sizes[0], sizes[1], sizes[2] + 1]


def test_an_ordered_split_keeps_the_order():
    assert (np.diff(labels((70_000, 10_000, 60_000), "ordered").astype(int)) >= 0).all()


def test_a_random_split_depends_on_the_seed_alone():
    sizes = (700, 100, 200)
    assert labels(sizes, seed=1).tobytes() == labels(sizes, seed=1).tobytes()
    assert labels(sizes, seed=1).tobytes() != labels(sizes, seed=2).tobytes()


def test_every_choice_of_rows_is_equally_likely():
    counts = Counter(labels((2, 1, 1), seed=seed).tobytes() for seed in range(12_000))
    assert len(counts) == 12  # 4! / 2!
    chi_square = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert chi_square < 31.3  # level 0.001, 11 degrees of freedom


def test_a_random_split_draws_evenly_from_all_rows_without_replacement():
    drawn = [(labels((60_000, 0, 140_000), seed=seed)[:65_536] == 0).sum() for seed in range(200)]
    mean, variance = 65_536 * 0.3, 65_536 * 0.3 * 0.7 * (200_000 - 65_536) / 199_999
    assert abs(np.mean(drawn) - mean) < 4 * (variance / 200) ** 0.5
    assert 0.6 < np.var(drawn) / variance < 1.5  # χ² with 199 degrees of freedom, level 0.0001


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("portions", [[1], [100_000, 300_000, 124_289]])
def test_rows_written_in_any_portions_are_read_in_blocks(tmp_path, dtype, portions):
    table = np.random.default_rng(0).standard_normal((sum(portions), 2)).astype(dtype)
    path = tmp_path / "split.parquet"
    writer = SplitWriter(path, ["a", "b"], dtype)
    for portion in np.split(table, np.cumsum(portions)[:-1]):
        writer.write(portion)
    writer.close()
    split = Split(path)
    blocks = [split.read(block) for block in range(split.num_blocks)]
    assert [len(block) for block in blocks[:-1]] == [262_144] * (len(blocks) - 1)
    assert np.concatenate(blocks).tobytes() == table.tobytes()
    assert (split.features, split.target, split.dtype, split.num_rows) == (
        ["a"],
        "b",
        dtype,
        len(table),
    )
    assert pd.read_parquet(path).to_numpy().tobytes() == table.tobytes()


def test_portions_do_not_change_the_files_bytes(tmp_path):
    table = np.random.default_rng(0).standard_normal((500_000, 2)).astype("float32")
    for name, count in [("one", 1), ("many", 77)]:
        writer = SplitWriter(tmp_path / name, ["a", "b"], "float32")
        for portion in np.array_split(table, count):
            writer.write(portion)
        writer.close()
    assert (tmp_path / "one").read_bytes() == (tmp_path / "many").read_bytes()


def test_a_split_without_rows_has_no_blocks(tmp_path):
    writer = SplitWriter(tmp_path / "empty.parquet", ["a", "b"], "float64")
    writer.close()
    split = Split(tmp_path / "empty.parquet")
    assert (split.num_rows, split.num_blocks, split.dtype) == (0, 0, "float64")
    assert pq.read_table(tmp_path / "empty.parquet").num_rows == 0


def test_a_missing_or_damaged_file_is_one_sentence(workspace):
    path = workspace.relative_to(workspace) / "train.parquet"
    with pytest.raises(UserError) as error:
        Split(path)
    assert str(error.value) == (
        "train.parquet does not exist. Run `dvc repro`, or `python -m stages.prepare`."
    )
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(UserError) as error:
        Split(path)
    assert str(error.value).startswith("train.parquet is damaged: Parquet magic bytes not found")
    assert str(error.value).endswith(". Run `dvc repro --force prepare`.")


@pytest.mark.parametrize(
    "table",
    [
        {"x": ["a"], "y": ["b"]},
        {"x": [1.0], "y": [1]},
        {"y": [1.0]},
    ],
)
def test_rows_that_prepare_does_not_write_are_refused(tmp_path, table):
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    with pytest.raises(UserError) as error:
        Split(tmp_path / "t.parquet")
    assert "its columns are not of one floating-point type" in str(error.value)


def test_missing_cells_and_damaged_pages_are_refused_when_read(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": [1.0, None], "y": [1.0, 2.0]}), path)
    with pytest.raises(UserError, match=r"t\.parquet is damaged: "):
        Split(path).read(0)
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(255 - byte for byte in content[4:60])
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=r"t\.parquet is damaged: .*Run `dvc repro --force prepare`"
    ):
        Split(path).read(0)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[" * 5000,
        '{"columns": ["x", "y"]}',
        "NAN",
        "TEXT",
        "OTHER",
    ],
)
def test_statistics_that_prepare_does_not_write_are_refused(workspace, content):
    prepare.main()
    whole = json.loads(STATISTICS.read_text())
    match content:
        case "NAN":
            whole["mean"]["x"] = math.nan
        case "TEXT":
            whole["mean"]["x"] = "1"
        case "OTHER":
            whole["columns"] = ["y", "x"]
    is_edit = content in {"NAN", "TEXT", "OTHER"}
    STATISTICS.write_text(json.dumps(whole) if is_edit else content)
    with pytest.raises(UserError) as error:
        read_statistics(Split(PREPARED / "train.parquet"))
    assert str(error.value).startswith("data/prepared/statistics.json is damaged: it does not ")

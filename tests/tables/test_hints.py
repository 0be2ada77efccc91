import numpy as np
import pandas as pd
import pytest

from stages import prepare

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(20, 5, 200).round(2)
TABLE = pd.DataFrame({"a": NORMAL, "b": NORMAL[::-1].round(), "y": NORMAL + 1})


@pytest.fixture
def hints_of(change, raw, capsys):
    def run(table, **changes):
        table.to_csv(raw("t.csv", ""), index=False)
        change({"prepare.source": "t.csv", "prepare.target": "y"} | changes)
        prepare.main()
        lines = capsys.readouterr().out.splitlines()
        return [line.removeprefix("prepare: hint: ") for line in lines if "hint" in line]

    return run


@pytest.mark.parametrize("marker", [-999, 1e6])
def test_a_number_far_from_all_others_may_mark_a_missing_cell(hints_of, marker):
    table = TABLE.assign(a=TABLE["a"].where(TABLE.index % 20 != 0, marker))
    assert hints_of(table, **{"prepare.split": "ordered"}) == [
        f"`a` is {marker:.9g} in 7 row(s), far from other values: if that marks a missing cell,"
        " list it in `prepare.missing_values`; if it is a total, delete the row"
    ]


def test_a_totals_row_is_far_from_all_others(hints_of):
    table = pd.concat([TABLE.iloc[:0], TABLE.sum().to_frame().T, TABLE])
    assert [hint.split()[0] for hint in hints_of(table, **{"prepare.split": "ordered"})] == [
        "`a`", "`b`", "`y`"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("features", "cure"),
    [(None, "list it in `prepare.exclude`"), (["a", "id"], "remove it from `prepare.features`")],
)
def test_whole_numbers_that_only_rise_may_be_an_identifier(hints_of, features, cure):
    table = TABLE.assign(id=7 + 3 * np.arange(200), time=np.arange(200) / 7)
    assert hints_of(table, **{"prepare.features": features}) == [
        f"`id` counts up from row to row: if it is an identifier, {cure}"
    ]
    assert hints_of(table[["id", "y"]], **{"prepare.features": None}) == []  # all that there is
    assert hints_of(table.sample(frac=1, random_state=0), **{"prepare.features": None}) == []


def test_a_target_over_decades_may_be_better_as_a_logarithm(hints_of):
    table = TABLE.assign(y=10 ** RNG.uniform(-2, 4, 200))
    [hint] = hints_of(table)
    assert hint.startswith("the target `y` spans decades, 0.0")
    assert hint.endswith("the largest values decide the loss; its logarithm may be a better target")
    assert hints_of(TABLE.assign(y=-table["y"])) == []
    assert hints_of(TABLE.assign(y=RNG.exponential(size=200))) == []


def test_there_are_at_most_three_hints(hints_of):
    table = pd.DataFrame({f"id{i}": np.arange(200) for i in range(9)}) + 1
    assert len(hints_of(table.assign(y=TABLE["y"]))) == 3
    assert hints_of(TABLE) == []

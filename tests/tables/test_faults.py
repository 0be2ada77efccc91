import numpy as np

from stages.tables.faults import Fault, Faults, show


def sentences(faults):
    return faults.sentences(["a", "b"], lambda row: f"row {row}")


def test_the_first_three_cells_are_named_and_the_others_counted():
    faults = Faults()
    is_faulty = np.array([[False, True], [True, True], [False, False]])
    faults.add_where(is_faulty, 10, lambda row, column: f"cell {row} {column}")
    faults.add_where(np.ones((5, 2), bool), 13, lambda row, column: "later")
    faults.add([Fault(0, 1, "first")], num_cells=4)
    assert faults.num_cells == 17
    assert sentences(faults) == [
        "row 0, column `b`: first",
        "row 10, column `b`: cell 0 1",
        "row 11, column `a`: cell 1 0",
        "… and 14 more such cells.",
    ]


def test_without_faults_there_is_nothing_to_say():
    faults = Faults()
    faults.add_where(np.zeros((5, 2), bool), 0, lambda row, column: "")
    assert sentences(faults) == []


def test_a_cell_is_shown_on_one_line_and_short():
    assert show("a\n") == '"a\\n"'
    assert show(100 * "x") == f'"{60 * "x"}"…'

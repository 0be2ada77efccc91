import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.prepare import statistics
from stages.rows.split import Split, SplitWriter
from stages.scoring.least_squares import least_squares
from tests.conftest import ROOT

REFERENCE = json.loads((ROOT / "tests/data/reference.json").read_text())


@pytest.fixture
def fit(tmp_path):
    """Estimate from a table whose last column is the target."""

    def of_table(table: pd.DataFrame, dtype="float64", categories=None):
        writer = SplitWriter(tmp_path / "train.parquet", list(table.columns), dtype)
        writer.write(table.to_numpy(dtype))
        writer.close()
        training = Split(tmp_path / "train.parquet")
        sizes = len(table), 0, 0
        described = statistics(training, sizes, categories or {}, fill={}, filled={})
        return least_squares(training, described)

    return of_table


def table_of(name):
    folder = "data/raw" if name == "norris" else "tests/data"
    return pd.read_csv(ROOT / folder / f"{name}.csv")


@pytest.mark.parametrize("name", ["norris", "diabetes", "auto_mpg"])
def test_estimates_and_standard_errors_are_the_reference_results(fit, name):
    table, reference = table_of(name), REFERENCE[name]
    names = ["B0", "B1"] if name == "norris" else ["intercept", *table.columns[:-1]]
    exact = fit(table)
    for kind, values in [
        ("coefficients", exact.coefficients),
        ("standard_errors", exact.std_errors),
    ]:
        expected = [reference[kind][key] for key in names]
        assert values.tolist() == pytest.approx(expected, rel=1e-11)  # the reference's digits
    residuals = (
        exact.predict(torch.tensor(table.to_numpy("float64")[:, :-1]))[:, 0].numpy()
        - table.iloc[:, -1]
    )
    deviation = np.sqrt((residuals**2).sum() / (len(table) - len(exact.kept)))
    assert deviation == pytest.approx(reference["residual_standard_deviation"], rel=1e-11)


def test_several_blocks_give_the_estimate_of_one(fit):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(100.0, 1.0, (600_000, 3)), columns=["a", "b", "t"])
    table["t"] += 2 * table["a"] - 3 * table["b"]
    exact = fit(table)
    design = np.column_stack([np.ones(len(table)), table[["a", "b"]]])
    expected, residual, *_ = np.linalg.lstsq(design, table["t"])
    assert exact.coefficients.tolist() == pytest.approx(expected.tolist(), rel=1e-9)  # lstsq's own
    covariance = np.linalg.inv(design.T @ design) * residual / (len(table) - 3)
    assert exact.std_errors.tolist() == pytest.approx(
        np.sqrt(covariance.diagonal()).tolist(), rel=1e-6
    )


def test_the_number_of_threads_changes_no_bit(fit, use_threads):
    table = pd.DataFrame(np.random.default_rng(1).normal(size=(900_000, 2)), columns=["x", "t"])
    results = set()
    for num_threads in (1, 2, 5):
        use_threads(num_threads)
        exact = fit(table)
        results.add(exact.coefficients.numpy().tobytes() + exact.std_errors.numpy().tobytes())
    assert len(results) == 1


@pytest.mark.parametrize(("dtype", "digits"), [("float32", 5), ("float64", 10)])
def test_a_dependent_column_is_named_and_left_out(fit, dtype, digits):
    a = np.arange(20.0) + 10
    rng = np.random.default_rng(0)
    b = rng.normal(size=20)
    target = 3 * a + b + 1
    exact = fit(pd.DataFrame({"a": a, "b": b, "c": 2 * a - 7 * b, "t": target}), dtype)
    assert exact.kept == [0, 1, 2]
    assert exact.dependent == {"c": ["a", "b"]}
    without = fit(pd.DataFrame({"a": a, "b": b, "t": target}), dtype)
    assert exact.coefficients.tolist() == pytest.approx([*without.coefficients.tolist(), 0.0])
    assert exact.std_errors[:3].tolist() == pytest.approx(without.std_errors.tolist(), rel=1e-3)
    inputs = torch.tensor(np.column_stack([a, b, 2 * a - 7 * b]))
    assert exact.predict(inputs)[:, 0].tolist() == pytest.approx(target.tolist(), rel=10.0**-digits)


def test_a_copy_and_a_constant_column_depend_on_what_determines_them(fit):
    a = np.arange(9.0)
    exact = fit(pd.DataFrame({"a": a, "c": 5.0, "a_copy": 3 * a, "t": 2 * a}))
    assert exact.dependent == {"c": [], "a_copy": ["a"]}
    assert exact.coefficients.tolist() == pytest.approx([0.0, 2.0, 0.0, 0.0], abs=1e-12)


def test_at_most_ten_columns_are_named_that_determine_another(fit):
    inputs = np.random.default_rng(0).normal(size=(50, 12))
    names = [f"c{i}" for i in range(12)]
    table = pd.DataFrame(inputs, columns=names).assign(total=inputs.sum(axis=1), t=inputs[:, 0])
    assert fit(table).dependent == {"total": names[:10]}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    num_numbers=st.integers(0, 4),
    sizes=st.lists(st.integers(2, 4), max_size=2),
    has_copy=st.booleans(),
)
def test_the_estimate_is_numpys_without_reference_categories_and_dependent_columns(
    fit, seed, num_numbers, sizes, has_copy
):
    rng = np.random.default_rng(seed)
    columns = {f"n{i}": rng.normal(rng.normal(), 1.0, 60) for i in range(num_numbers)}
    categories = {f"k{i}": [*"abcd"[:size]] for i, size in enumerate(sizes)}
    for name, found in categories.items():
        codes = rng.permutation(np.arange(60) % len(found))
        columns |= {f"{name}={category}": codes == j for j, category in enumerate(found)}
    design = pd.DataFrame({"": np.ones(60)} | columns).astype("float64")
    design = design.drop(columns=[f"{name}=a" for name in categories])
    if has_copy:
        columns["copy"] = 2 * design.iloc[:, -1] + 1
    table = pd.DataFrame(columns | {"t": rng.normal(size=60)}, index=range(60)).astype("float64")
    if table.shape[1] == 1:
        return  # no column to learn from

    exact = fit(table, categories=categories)
    coefficients, residual, rank, _ = np.linalg.lstsq(design, table["t"])
    covariance = np.linalg.inv(design.T @ design) * residual / (60 - rank)
    assert [["", *table.columns][i] for i in exact.kept] == [*design.columns]
    assert exact.references == [f"{name}=a" for name in categories]
    assert [*exact.dependent] == ["copy"] * has_copy
    for found, expected in (
        (exact.coefficients, coefficients),
        (exact.std_errors, np.sqrt(np.diag(covariance))),
    ):
        assert found[exact.kept].tolist() == pytest.approx([*expected], rel=1e-9, abs=1e-11)


def test_as_many_rows_as_coefficients_have_no_standard_errors(fit):
    exact = fit(pd.DataFrame({"x": [1.0, 2.0], "t": [3.0, 5.0]}))
    assert exact.coefficients.tolist() == pytest.approx([1.0, 2.0], rel=1e-14)
    assert exact.std_errors is None


def test_fewer_rows_than_coefficients_are_dependent_columns(fit):
    exact = fit(pd.DataFrame({"a": [1.0, 2.0], "b": [5.0, 3.0], "t": [3.0, 5.0]}))
    assert exact.dependent == {"b": ["a"]}
    assert exact.std_errors is None


def test_many_columns_are_grouped_so_that_factors_are_smaller_than_their_rows(fit):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(3000, 300))
    table = pd.DataFrame(np.column_stack([inputs, inputs @ np.arange(300) + 5]))
    table.columns = [f"c{i}" for i in range(301)]
    assert fit(table).coefficients.tolist() == pytest.approx([5.0, *range(300)], rel=1e-9, abs=1e-9)

from stages.model.signature import Signature
from stages.release.manifest import MAX_NUMBERS, Manifest, columns, proof
from stages.rows.split import Statistics

SIGNATURE = Signature(
    features=["b", "c=u"],
    target="t",
    categories={"c": ["u"]},
    hidden=[3],
    dtype="float64",
    trained_on="cpu",
    versions={"torch": "2.13.0"},
)
STATISTICS = Statistics(
    columns=["b", "c=u", "t"],
    categories={"c": ["u"]},
    rows={"train": 5, "validation": 0, "test": 0},
    mean={"b": 1.0, "c=u": 0.5, "t": 3.0},
    standard_deviation={"b": 1.0, "c=u": 0.5, "t": 3.0},
    minimum={"b": -1.0, "c=u": 0.0, "t": 2.0},
    maximum={"b": 2.0, "c=u": 1.0, "t": 9.0},
)


def test_a_manifest_states_the_signature_of_its_weights():
    *inputs, target = columns(SIGNATURE, STATISTICS)
    assert [(c.name, c.minimum, c.maximum, c.mean) for c in [*inputs, target]] == [
        ("b", -1.0, 2.0, 1.0),
        ("c=u", 0.0, 1.0, 0.5),
        ("t", 2.0, 9.0, 3.0),
    ]
    manifest = Manifest(
        inputs=inputs,
        target=target,
        categories=SIGNATURE.categories,
        architecture={"hidden": [3], "widths": [2, 3, 1]},
        trained_on="cpu",
        versions=SIGNATURE.versions,
        parameters={},
        scores={},
        data={},
        files={},
        proof=proof(SIGNATURE, STATISTICS, has_onnx=False),
    )
    assert manifest.signature() == SIGNATURE


def test_the_proof_is_on_the_training_rows_where_there_are_no_test_rows():
    untested = proof(SIGNATURE, STATISTICS, has_onnx=True)
    assert (untested.split, untested.rows) == ("train", 5)
    assert untested.difference_at_most == 1e-12
    assert untested.programs == ["numpy", "model.onnx"]
    rows = STATISTICS.rows | {"test": 7}
    tested = proof(SIGNATURE, STATISTICS.model_copy(update={"rows": rows}), has_onnx=False)
    assert (tested.split, tested.rows) == ("test", 7)
    assert (tested.batches, tested.programs) == ([], ["numpy"])


def test_the_bound_allows_for_the_roundings_of_a_long_sum():
    single = SIGNATURE.model_copy(update={"dtype": "float32"})
    for num_hidden, expected in [(64, 1e-6), (6400, 80 * 2**-23)]:  # √6400 roundings
        wide = single.model_copy(update={"hidden": [num_hidden]})
        assert proof(wide, STATISTICS, has_onnx=True).difference_at_most == expected


def test_batches_are_smaller_where_a_layer_is_wide():
    wide = SIGNATURE.model_copy(update={"hidden": [2**16]})
    assert proof(SIGNATURE, STATISTICS, has_onnx=True).batches == [1, 2, 7, 100_000]
    assert proof(wide, STATISTICS, has_onnx=True).batches == [1, 2, 7, MAX_NUMBERS // 2**16]

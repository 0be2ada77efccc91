"""Feed damaged inputs to the stages: each input gives a right result, or one sentence.

Run it in the project's folder: python tests/faults/fuzz.py KIND EXAMPLES
The kinds are params, csv, mixed (categories and quotes), thousands, parquet and safetensors.
"""

import copy
import csv
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2]))

import tests.conftest  # noqa: F401 (portable numerics)
from stages import prepare, train
from stages.base.errors import UserError
from stages.base.files import PREPARED, WEIGHTS
from stages.base.params import load_params
from stages.model.model import Model
from stages.rows.split import Split, read_statistics

ROOT = Path(__file__).parents[2]
SECONDS = 10
MAX_KIBIBYTES = 2 * 2**20
SEED = 1
WORDS = [
    b"", b"\n", b"\r\n", b",", b";", b"\t", b'"', b"'", b"\0", b"\xff", b"\xef\xbb\xbf", b" ", b"#",
    b"nan", b"inf", b"-", b"1e999", b"1e-999", b"0x10", b"1_0", b"01", b"1.5.2", b"NA", b"true",
    b"x", b"y", b"x,y\n", b"x,x\n", "\u0661".encode(), "ü".encode(), b"9" * 400, b",,,,", b'""',
    b":", b"- ", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"!!python/object/apply:os.system [ls]",
    b"<<: ", b"~", b"null", b"|", b">", b"%", b"@", b"`", b"1e-3", b"no", b"0o10", b"2001-01-01",
]  # fmt: skip
VALUES = [
    -1, 0, 1, 2, 3, 0.5, 0.1, 1e-300, 1e300, 1e308, 2**31, 2**63, 10**400, "", ".", ",", "x", "y",
    "line", "adam", "lbfgs", "huber", "mae", "native", "float64", "ordered", "drop", "cuda", "mps",
    [1], [3, 2], [True], ["x"], ["y"], ["x", "x"], "norris.csv", "../x", "/x", "\0", {"r2": 0.9},
]  # fmt: skip
MAX_SIZE = 1000  # rows, epochs and units; larger jobs are not tried
BASES = {
    "params": ROOT / "params.yaml",
    "csv": ROOT / "data/raw/norris.csv",
    "mixed": ROOT / "tests/data/mixed.csv",  # categories, booleans and quotes
    "thousands": ROOT / "tests/data/thousands.csv",  # 1,234.5 in quotes
    "parquet": ROOT / "tests/data/norris.parquet",
    "safetensors": ROOT / "models/trained/weights.safetensors",
}
SETTINGS = {  # keep all rows, in their order
    "dtype: float32": "dtype: float64", "split: random": "split: ordered",
    "validation: 0.1": "validation: 0", "test: 0.2": "test: 0",
}  # fmt: skip
GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]*)?")  # with prepare.thousands
outcomes: Counter[str] = Counter()


def mutated(content: bytes) -> st.SearchStrategy[bytes]:
    """Generate the content with a few places cut, overwritten or filled in."""
    insert = st.sampled_from(WORDS) | st.binary(max_size=8)
    change = st.tuples(st.integers(0, len(content)), st.integers(0, 12), insert)

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        result = bytearray(content)
        for place, num_bytes, word in changes:
            result[place : place + num_bytes] = word
        return bytes(result)

    return st.lists(change, min_size=1, max_size=3).map(apply)


def generated(content: bytes) -> st.SearchStrategy[bytes]:
    """Generate the YAML document with one to four values replaced by values of any kind."""
    document = yaml.safe_load(content)
    places = [
        (section, key)
        for section, values in document.items()
        for key in (values if isinstance(values, dict) else [None])
    ] + [(section, None) for section in document]
    text = st.text(st.characters(codec="utf-8"), max_size=9)
    leaf = (
        st.sampled_from(VALUES) | st.none() | st.booleans() | st.integers() | st.floats()
        | text | st.dates() | st.binary(max_size=3)
    )  # fmt: skip
    name = st.sampled_from(["", "r2", "rmse"]) | st.integers() | text
    value = st.recursive(
        leaf,
        lambda item: st.lists(item, max_size=3) | st.dictionaries(name, item, max_size=3),
        max_leaves=5,
    )

    def replace(values: dict[tuple[str, str | None], object]) -> bytes:
        changed = copy.deepcopy(document)
        for (section, key), new in values.items():
            if key is None:
                changed[section] = new
            elif isinstance(changed[section], dict):
                changed[section][key] = new
        return yaml.safe_dump(changed, allow_unicode=True, encoding="utf-8")

    return st.dictionaries(st.sampled_from(places), value, min_size=1, max_size=4).map(replace)


def parameters(content: bytes) -> None:
    Path("params.yaml").write_bytes(content)
    params = load_params()
    sizes = params.prepare.rows, params.train.epochs, *params.train.hidden
    if max(sizes) > MAX_SIZE or len(sizes) > MAX_SIZE:
        return  # too much work to try
    prepare.main()
    train.main()
    require_finite(Model.load(WEIGHTS))


def table(content: bytes) -> None:
    Path("data/raw/table.csv").write_bytes(content)
    prepare.main()
    prepared = pq.read_table("data/prepared/train.parquet").to_pandas().to_numpy()
    categories = read_statistics(Split(PREPARED / "train.parquet")).categories
    lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
    header, *rows = [line for line in lines if line]
    assert {len(row) for row in rows} == {len(header)}
    names = [name.strip() for name in header]
    features = [place for place, name in enumerate(names) if name != "y"]
    columns: list[list[float]] = []
    for place in [*features, names.index("y")]:
        cells = [row[place].strip(" \t") for row in rows]
        if names[place] in categories:
            assert {*cells} == {*categories[names[place]]}
            columns += [[cell == name for cell in cells] for name in categories[names[place]]]
        else:
            columns.append([number(cell) for cell in cells])
    assert prepared.tobytes() == np.array(columns, float).T.tobytes(), (prepared, columns)


def number(cell: str) -> float:
    """What a strict reader reads; only prepare.thousands can have let a group of digits pass."""
    if GROUPED.fullmatch(cell):
        cell = cell.replace(",", "")
    return float({"true": "1", "false": "0"}.get(cell.lower(), cell))


def binary_table(content: bytes) -> None:
    Path("data/raw/table.parquet").write_bytes(content)
    prepare.main()
    prepared = pq.read_table("data/prepared/train.parquet")
    expected = pq.read_table("data/raw/table.parquet").select(prepared.column_names)
    assert prepared.equals(expected.cast(prepared.schema)), (prepared, expected)


def weights(content: bytes) -> None:
    Path("model.safetensors").write_bytes(content)
    model = Model.load(Path("model.safetensors"))
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    for name, tensor in model.state_dict().items():
        first, last = header[name]["data_offsets"]
        assert tensor.numpy().tobytes() == content[start + first : start + last], name


def require_finite(model: Model) -> None:
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


KINDS = {
    "params": parameters, "csv": table, "mixed": table, "thousands": table, "parquet": binary_table,
    "safetensors": weights,
}  # fmt: skip


def too_long(*_: object) -> None:
    raise AssertionError(f"longer than {SECONDS} s")


def main() -> None:
    kind, examples = sys.argv[1], int(sys.argv[2])
    original = BASES[kind].read_bytes()
    inputs = mutated(original)
    if kind == "params":
        original = original.replace(b"epochs: 200 ", b"epochs: 3 ")
        inputs = mutated(original) | generated(original)
    signal.signal(signal.SIGALRM, too_long)
    warnings.simplefilter("error")  # nothing is printed beside the sentence

    @seed(SEED)
    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[*HealthCheck],
    )  # fmt: skip
    @given(inputs)
    def try_one(content: bytes) -> None:
        signal.alarm(SECONDS)
        try:
            KINDS[kind](content)
            outcomes["right results"] += 1
        except UserError:
            outcomes["sentences"] += 1
        finally:
            signal.alarm(0)

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        shutil.copy(ROOT / "params.yaml", folder)
        Path("data/raw").mkdir(parents=True)
        if kind in {"csv", "mixed", "thousands", "parquet"}:
            source = f"source: table.{BASES[kind].suffix[1:]}"
            text = Path("params.yaml").read_text().replace("source: line", source)
            for old, new in SETTINGS.items():
                assert old in text
                text = text.replace(old, new)
            if kind == "thousands":
                text = text.replace("thousands:  ", "thousands: ','")
            Path("params.yaml").write_text(text)
        sys.stdout = io.StringIO()
        try:
            try_one()
        finally:
            sys.stdout = sys.__stdout__
            os.chdir(ROOT)
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{kind}: {dict(outcomes)}, seed {SEED}, peak {kibibytes / 1024:.0f} MiB")
    sys.exit(kibibytes > MAX_KIBIBYTES)


if __name__ == "__main__":
    main()

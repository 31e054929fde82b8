"""Reading tables: what a cell may say, and what an error names where a file is not what it should be."""

import datetime
import sys
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leyden.errors import DataError, UsageError
from leyden_datamodules._tables import Table, read_table


@pytest.fixture
def table_of(tmp_path: Path) -> Any:
    def read(content: str | bytes, **options: Any) -> Table:
        path = tmp_path / "table.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path, **options)

    return read


def texts(table: Table) -> dict[str, list[str | None]]:
    return {name: table.texts(name).tolist() for name in table.columns}


def test_cells_are_text_without_blanks_or_missing(table_of: Any) -> None:
    table = table_of('\ufeffa, b,c\r\n 1 , "x, y",NA\r\n,None,nan\r\n')
    assert texts(table) == {"a": ["1", None], "b": ["x, y", "None"], "c": [None, None]}
    np.testing.assert_equal(table.numbers("a"), [1.0, np.nan])


def test_further_texts_may_mean_missing(table_of: Any) -> None:
    table = table_of("a,b\n?,-999\n1,2\n", missing=["?", "-999"])
    assert texts(table) == {"a": [None, "1"], "b": [None, "2"]}


def test_a_number_means_missing_however_it_is_written(table_of: Any) -> None:
    table = table_of("a,b\n-999.0,x\n-999,-99.90e1\n-9990,?\n", missing=["-999.0", "?"])
    assert texts(table) == {"a": [None, None, "-9990"], "b": ["x", None, None]}


def test_another_separator(table_of: Any) -> None:
    assert texts(table_of("a;b\n1,5;2\n", separator=";")) == {"a": ["1,5"], "b": ["2"]}


def test_lines_are_those_of_the_file(table_of: Any) -> None:
    table = table_of('a,b\n\n1,"two\nlines"\n2,x\n\n\n3,y\n')
    assert list(table.lines) == [3, 5, 8]
    assert table.where(2) == f"{table.path}, line 8"


@pytest.mark.parametrize("value", ["x", "1_000", "1,5", "inf", "-Infinity", "1e39", "0x10", "True"])
def test_what_is_no_finite_number_is_named(table_of: Any, value: str) -> None:
    table = table_of(f'a,b\n1,2\n3,"{value}"\n4,oops\n')
    with pytest.raises(DataError) as caught:
        table.numbers("b", "Do something.")
    shown = f"{table.path}, line 3: b is '{value}', expected a finite number (1 more row like it). Do something."
    assert str(caught.value) == shown


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b\n", "has a header and no rows"),
        ("a,b\n1,2\n3\n", "line 3: 1 fields, expected 2 as in the header"),
        ("a,b\n1,2,3\n", "line 2: 3 fields, expected 2 as in the header"),
        ("a,b,a\n1,2,3\n", "columns 1 and 3 are both called 'a'"),
        ('a,b\n1,"2\n', "is not CSV: a quotation mark is opened and not closed"),
        (b"a,b\n1,2\nk\xf6ln,3\n", "line 3: the byte 0xf6 is not UTF-8"),
        (b"PK\x03\x04\x14\x00\x06\x00\x08\x00\xff\xfe", "not UTF-8. Expected a CSV file in UTF-8, or a Parquet file"),
    ],
)
def test_bad_csv(table_of: Any, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        table_of(content)
    assert "table.csv" in str(caught.value)


def test_a_column_without_a_name_is_left_out(table_of: Any) -> None:
    with pytest.warns(UserWarning, match=r"table\.csv: column 1 has no name in the header and is left out"):
        table = table_of(",a\n0,1\n1,2\n")
    assert texts(table) == {"a": ["1", "2"]}


@pytest.mark.parametrize(("name", "message"), [("nowhere.csv", "No such file"), ("", "Is a directory")])
def test_no_file(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_missing_columns_are_named_and_guessed(table_of: Any) -> None:
    table = table_of("width,height\n1,2\n")
    with pytest.raises(DataError, match=r"lacks the column to learn: Widht\. Did you mean width\?$"):
        table.require(["Widht"], "to learn")
    with pytest.raises(
        DataError, match=r"lacks 2 of the 3 columns to read: colour, mass\. Its columns: width, height\."
    ):
        table.require(["colour", "width", "mass"], "to read")


# Parquet


def parquet(path: Path, columns: dict[str, Any], **options: Any) -> Table:
    pd.DataFrame(columns).to_parquet(path / "table.parquet", **options)
    return read_table(path / "table.parquet", missing=["?"])


def test_numbers_may_mean_missing_in_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "table.parquet"
    pd.DataFrame({"whole": [1, -999], "real": [-999.0, 0.5], "text": ["-999", "x"]}).to_parquet(path, index=False)
    table = read_table(path, missing=["-999.0"])
    assert texts(table) == {"whole": ["1", None], "real": [None, "0.5"], "text": [None, "x"]}


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    columns: dict[str, Any] = {
        "whole": [1, 2, 3],
        "gaps": pd.array([20, None, 30], dtype="Int64"),
        "real": [0.5, np.nan, 1.25],
        "text": [" x", None, "?"],
        "flag": [True, False, True],
        "kind": pd.Categorical(["a", "b", "a"]),
        "exact": [Decimal("1.50"), None, Decimal("2")],
        "day": [datetime.date(2020, 1, 2)] * 3,
    }
    table = parquet(tmp_path, columns, index=False)
    assert texts(table) == {
        "whole": ["1", "2", "3"],
        "gaps": ["20", None, "30"],
        "real": ["0.5", None, "1.25"],
        "text": ["x", None, None],
        "flag": ["True", "False", "True"],
        "kind": ["a", "b", "a"],
        "exact": ["1.50", None, "2.00"],
        "day": ["2020-01-02"] * 3,
    }
    for name, values in {"whole": [1, 2, 3], "gaps": [20, np.nan, 30], "exact": [1.5, np.nan, 2]}.items():
        np.testing.assert_equal(table.numbers(name), np.array(values, dtype=float))
    assert table.where(1).endswith("table.parquet, row 2")


def test_the_index_of_a_frame_is_a_column_where_it_has_a_name(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="id")).to_parquet(tmp_path / "t.parquet")
    assert texts(read_table(tmp_path / "t.parquet")) == {"id": ["x", "y"], "a": ["1", "2"]}


def test_infinity_in_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    table = parquet(tmp_path, {"a": [1.0, np.nan, -np.inf]})
    with pytest.raises(DataError, match=r"table\.parquet, row 3: a is '-inf', expected a finite number"):
        table.numbers("a")


def test_bad_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=r"table\.parquet: the column a holds ndarray, expected numbers or text"):
        parquet(tmp_path, {"a": [[1], [2, 3]]})
    path = tmp_path / "table.parquet"
    whole = path.read_bytes()
    for content in (b"", b"a,b\n1,2\n", b"\xff" * 16 + whole[16:], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"table\.parquet: is not a Parquet file, or is damaged"):
            read_table(path)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "table.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"pip install 'leyden\[parquet\]'"):
        read_table(tmp_path / "table.parquet")


def test_a_good_file_is_read_without_warnings(table_of: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table_of("a,b\n1,x\n")

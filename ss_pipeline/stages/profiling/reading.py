"""One reader per format, and the reader of each file. Importing this module loads pandas and the other readers once.

Delimited text is read by delimited.py, workbooks by workbooks.py. Files are read in a child process (child.py).
"""

import contextlib
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyreadstat

from ss_pipeline.errors import InputRefusedError
from ss_pipeline.jobs.inputs import InputDataset
from ss_pipeline.stages.profiling.delimited import read_delimited
from ss_pipeline.stages.profiling.headers import name_columns
from ss_pipeline.stages.profiling.sniffing import assumed_encoding, guess_encoding
from ss_pipeline.stages.profiling.tables import (
    Array,
    ProfileLimits,
    RawColumn,
    Table,
    cut_warning,
    no_table,
    object_array,
    refuse_too_many_rows,
)
from ss_pipeline.stages.profiling.workbooks import read_workbook

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:  # the extra `parquet` is not installed; read_parquet says so
    pa = None

_DAMAGED: Final = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    struct.error,
    OSError,
    EOFError,
    pyreadstat.PyreadstatError,
    pyreadstat.ReadstatError,
)
"""What the readers of binary formats raise on damaged files (UnicodeDecodeError is a ValueError)."""


def read_table(path: Path, dataset: InputDataset, *, limits: ProfileLimits) -> Table:
    """Reads a data file by its format.

    Raises:
        InputRefusedError: its message is a predicate (`holds …`, `is …`) without the file's name.
    """
    if pa is not None:
        pa.set_memory_pool(
            pa.system_memory_pool()
        )  # the default one reserves a gigabyte of addresses for a single text
    with python_strings():
        if dataset.format in {"csv", "tsv"}:
            suffix = Path(dataset.original_name).suffix.lower()
            return read_delimited(path.read_bytes(), suffix=suffix, limits=limits)
        if dataset.format == "excel":
            return read_workbook(path, limits=limits)
        if dataset.format == "dta":
            return read_stata(path, limits=limits)
        if dataset.format == "sav":
            return read_spss(path, limits=limits)
        return read_parquet(path, limits=limits)


@contextlib.contextmanager
def python_strings() -> Iterator[None]:
    """Keeps pandas from putting texts into Arrow memory: results are the same with and without pyarrow."""
    with pd.option_context("mode.string_storage", "python"):
        yield


def read_stata(path: Path, *, limits: ProfileLimits) -> Table:
    """Reads a .dta file with its variable and value labels; codes stay codes."""
    try:
        encoding = _old_stata_encoding(path)
        _, meta = pyreadstat.read_dta(path, metadataonly=True, encoding=encoding)
        refuse_too_many_rows(meta.number_rows or 0, limits=limits)
        kept = list(meta.column_names)[: limits.max_columns]
        if encoding is None:
            frame = pd.read_stata(path, columns=kept, convert_categoricals=False)
        else:
            frame, _ = pyreadstat.read_dta(path, usecols=kept, encoding=encoding)
    except _DAMAGED as error:
        raise _damaged("Stata .dta", error) from error
    labels = {name: label or "" for name, label in meta.column_names_to_labels.items()}
    total, codes = len(meta.column_names), meta.variable_value_labels
    return _labelled_table(frame, total=total, labels=labels, codes=codes, limits=limits, guessed=encoding)


def _old_stata_encoding(path: Path) -> str | None:
    """The encoding of a file from before Stata 14, guessed from its labels; None where they are ASCII or UTF-8."""
    with path.open("rb") as file:
        start = file.read(100)
    release = re.search(rb"<release>(\d{3})", start)
    if (int(release.group(1)) if release else start[0]) >= 118:
        return None
    _, meta = pyreadstat.read_dta(path, metadataonly=True, encoding="iso-8859-1")  # one character for each byte
    texts = [*meta.column_labels, *(text for codes in meta.value_labels.values() for text in codes.values())]
    raw = "\n".join(text for text in texts if text).encode("iso-8859-1", "ignore")
    return None if raw.isascii() else guess_encoding(raw)


def read_spss(path: Path, *, limits: ProfileLimits) -> Table:
    """Reads a .sav file with its variable and value labels; user-defined missing values are missing."""
    try:
        _, head = pyreadstat.read_sav(path, metadataonly=True)
        names = list(head.column_names)
        kept = names[: limits.max_columns]
        frame, meta = pyreadstat.read_sav(path, usecols=kept, row_limit=limits.max_rows + 1)
    except _DAMAGED as error:
        raise _damaged("SPSS .sav", error) from error
    labels = {name: label or "" for name, label in meta.column_names_to_labels.items()}
    return _labelled_table(
        frame,
        total=len(names),
        labels=labels,
        codes=meta.variable_value_labels,
        limits=limits,
        encoding=meta.file_encoding,
    )


def read_parquet(path: Path, *, limits: ProfileLimits) -> Table:
    """Reads a .parquet file.

    Raises:
        InputRefusedError: INPUT_FORMAT_NOT_INSTALLED without the optional pyarrow; INPUT_UNREADABLE, …
    """
    if pa is None:
        raise InputRefusedError(
            "is a Parquet file, and reading those is not installed",
            code="INPUT_FORMAT_NOT_INSTALLED",
            todo="Install it with: pip install 'ss-pipeline[parquet]', or hand in the data as CSV.",
        )
    try:
        with pq.ParquetFile(path, memory_map=False) as file:
            refuse_too_many_rows(file.metadata.num_rows, limits=limits)
            names = list(file.schema_arrow.names)
            kept = list(dict.fromkeys(names))[: limits.max_columns]
            content = file.read(columns=kept, use_threads=False)
    except MemoryError:  # pyarrow's own is an ArrowException as well
        raise
    except (*_DAMAGED, pa.ArrowException) as error:
        raise _damaged("Parquet", error) from error
    arrays = [_arrow_values(content.column(index)) for index in range(content.num_columns)]
    return _table(content.column_names, arrays, total=len(names), limits=limits)


def _arrow_values(column: Any) -> Array:
    """An Arrow column as numbers, times or plain objects; nested values as text."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_nested(column.type):
        return object_array([None if value is None else str(value) for value in column.to_pylist()])
    if pa.types.is_timestamp(column.type):
        return np.asarray(column.cast(pa.timestamp("us"), safe=False).to_numpy())
    if column.null_count or not pa.types.is_primitive(column.type):
        return object_array(column.to_pylist())
    return np.asarray(column.to_numpy())


def _labelled_table(
    frame: pd.DataFrame,
    *,
    total: int,
    labels: dict[str, str],
    codes: dict[str, dict[Any, str]],
    limits: ProfileLimits,
    encoding: str | None = None,
    guessed: str | None = None,
) -> Table:
    names = list(frame.columns)
    arrays = [_pandas_values(frame.iloc[:, index]) for index in range(len(names))]
    table = _table(names, arrays, total=total, limits=limits)
    columns = [
        RawColumn(
            name=column.name,
            original_name=column.original_name,
            values=column.values,
            label=labels.get(name, ""),
            value_labels={_code_text(code): str(text) for code, text in codes.get(name, {}).items()},
        )
        for name, column in zip(names, table.columns, strict=True)
    ]
    notes = [assumed_encoding(guessed)] if guessed else []
    return Table(
        columns=columns,
        rows=table.rows,
        columns_total=total,
        encoding=guessed or encoding,
        warnings=[*notes, *table.warnings],
    )


def _table(names: Sequence[str], arrays: list[Array], *, total: int, limits: ProfileLimits) -> Table:
    rows = len(arrays[0]) if arrays else 0
    if not rows:
        raise no_table("holds no rows" if arrays else "holds no columns")
    refuse_too_many_rows(rows, limits=limits)
    naming = name_columns(names)
    columns = [RawColumn(*parts) for parts in zip(naming.names, naming.originals, arrays, strict=True)]
    return Table(
        columns=columns,
        rows=rows,
        columns_total=total,
        warnings=[*naming.warnings, *cut_warning(total, limits=limits)],
    )


def _pandas_values(column: "pd.Series[Any]") -> Array:
    if column.dtype.kind in "biufM" and isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    return column.to_numpy(dtype=object)


def _code_text(code: Any) -> str:
    return str(int(code)) if isinstance(code, (int, float)) and float(code).is_integer() else str(code)


def _damaged(kind: str, error: Exception) -> InputRefusedError:
    return InputRefusedError(
        f"is no {kind} file, or it is damaged ({type(error).__name__})",
        code="INPUT_UNREADABLE",
        todo="Open it in the program it comes from and save it again, or export it as CSV.",
    )

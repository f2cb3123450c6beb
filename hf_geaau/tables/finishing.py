"""What makes the table that is wanted from the rows of a run, or from a table that exists: one road for both."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_geaau.tables.analysis import MAIN_SPEAKERS, main_speaker
from hf_geaau.tables.baseline import is_photo, subtract_baseline
from hf_geaau.tables.formats import to_openface, to_pyfeat
from hf_geaau.tables.rows import all_frames

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FORMATS = ("geaau", "openface", "pyfeat")


@dataclass(frozen=True)
class Finishing:
    """Which faces a table shows, what is subtracted from them, and how it is written.

    Attributes:
        format: One of FORMATS.
        faces: "all", "largest" or "longest", see `main_speaker`.
        baseline: What `subtract_baseline` takes, or None.

    Raises:
        ValueError: If `format` or `faces` is unknown.
    """

    format: str = "geaau"
    faces: str = "all"
    baseline: "str | pd.DataFrame | None" = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"`format` must be one of {', '.join(FORMATS)}, got '{self.format}'.")
        if self.faces not in (choices := ("all", *MAIN_SPEAKERS)):
            raise ValueError(f"`faces` must be one of {', '.join(choices)}, got '{self.faces}'.")

    @property
    def changes_nothing(self) -> bool:
        """Whether the rows of a run are the table."""
        return self.format == "geaau" and self.faces == "all" and self.baseline is None

    @property
    def needs_photo(self) -> bool:
        """Whether the baseline is the path of a neutral photo, which must be replaced by its table."""
        return isinstance(self.baseline, str) and is_photo(self.baseline)

    def select(self, table: "pd.DataFrame", thresholds: Mapping[str, float]) -> "pd.DataFrame":
        """Return the rows of the chosen faces, less the baseline, without those of frames without a face.

        Args:
            table: Whole sources.
            thresholds: Threshold of each action unit.
        """
        faces = table[table["score"].notna()].reset_index(drop=True)
        if self.faces != "all":
            faces = main_speaker(faces, self.faces).reset_index(drop=True)
        return faces if self.baseline is None else subtract_baseline(faces, thresholds, self.baseline)

    def convert(
        self,
        selected: "pd.DataFrame",
        table: "pd.DataFrame",
        *,
        as_sequence: bool | None = None,
        with_source: bool | None = None,
        photos_before: int = 0,
    ) -> "pd.DataFrame":
        """Return the selected rows in the wanted format.

        Args:
            selected: From `select`.
            table: The table before; its frames without a selected face become rows, where the format has such rows.
            as_sequence, with_source: See `to_openface`.
            photos_before: See `to_pyfeat`.
        """
        if self.format == "openface":
            return to_openface(selected, all_frames(table), as_sequence=as_sequence, with_source=with_source)
        if self.format == "pyfeat":
            return to_pyfeat(selected, all_frames(table), photos_before=photos_before)
        return selected

    def blocks(
        self, tables: "Iterable[pd.DataFrame]", thresholds: Mapping[str, float], *, as_sequence: bool, with_source: bool
    ) -> "Iterator[pd.DataFrame]":
        """Yield a finished table in parts.

        Args:
            tables: Parts of a table, each of whole sources.
            thresholds: Threshold of each action unit.
            as_sequence, with_source: See `to_openface`; the same for all parts.
        """
        photos = 0
        for table in tables:
            if self.changes_nothing:
                yield table
                continue
            selected = self.select(table, thresholds)
            yield self.convert(selected, table, as_sequence=as_sequence, with_source=with_source, photos_before=photos)
            photos += table.loc[table["time_s"].isna(), "source"].nunique()


def write_blocks(
    blocks: "Iterable[pd.DataFrame]", target: Path, suffix: str, schema: "pa.Schema | None" = None
) -> None:
    """Write the parts of a table, one after the other, as .csv, .jsonl or .parquet.

    Args:
        blocks: At least one, all with the same columns.
        target: The file.
        suffix: What it will be called.
        schema: Of a .parquet file; None: as pandas infers it from the first part.
    """
    if suffix == ".parquet":
        _write_parquet(blocks, target, schema)
        return
    with target.open("w", encoding="utf-8", newline="") as stream:
        for number, block in enumerate(blocks):
            if suffix == ".csv":
                # A text with a carriage return, which a reader would take as the end of a row, is not quoted else.
                texts = block.select_dtypes(["object", "string"])
                is_odd = texts.map(lambda text: "\r" in str(text)).any(axis=None)
                quoting = csv.QUOTE_NONNUMERIC if is_odd else csv.QUOTE_MINIMAL
                block.to_csv(stream, index=False, header=number == 0, lineterminator="\n", quoting=quoting)
            elif len(block):
                stream.write(block.to_json(orient="records", lines=True, force_ascii=False, double_precision=6))


def _write_parquet(blocks: "Iterable[pd.DataFrame]", target: Path, schema: "pa.Schema | None") -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pandas.api.types import is_numeric_dtype

    writer = None
    try:
        for block in blocks:
            texts = [name for name in block if not is_numeric_dtype(block[name])]
            typed = block.astype(dict.fromkeys(texts, "string"))  # a part may hold gaps alone
            table = pa.Table.from_pandas(typed, schema=schema, preserve_index=False)
            schema = schema or table.schema
            writer = writer or pq.ParquetWriter(target, schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()

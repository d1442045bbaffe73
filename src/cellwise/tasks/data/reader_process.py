"""Run as a program of its own: reads the Parquet file or the sheet that is named, writes it to stdout as Arrow.

A damaged file can make a reader ask for any amount of memory and end the whole process, so it is a process that
nothing is lost with. It imports nothing of cellwise, to start quickly.

    reader_process.py parquet FILE          the table
    reader_process.py sheet FILE [NAME]     the cells of a worksheet, see `_sheet`
"""

import datetime
import os
import sys

REFUSED = 3  # the status if the last line of stderr says why
LEAST_MEMORY, PER_BYTE = 4 * 2**30, 200  # of data, for a file of so many bytes
LARGEST_WHOLE = 2.0**53  # up to here a float holds every whole number


def _limit_memory(path: str) -> None:
    try:
        import resource
    except ImportError:  # Windows has none
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = LEAST_MEMORY + PER_BYTE * os.path.getsize(path)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard < 0 else min(most, hard), hard))


def _parquet(path: str) -> None:
    import polars

    _limit_memory(path)
    announced = polars.scan_parquet(path, glob=False).select(polars.len()).collect().item()
    frame = polars.read_parquet(path, glob=False)
    if frame.height != announced:
        raise ValueError(f"it announces {announced:,} rows and holds {frame.height:,}")
    frame.write_ipc_stream(sys.stdout.buffer)


def _sheet(path: str, name: str | None = None) -> None:
    """Columns of text, one for each of the sheet from A on, in which the first letter of a value is the kind of its
    cell: n number, d date, b true or false, t text. Empty cells are null. Formulas count as the value that was stored
    with them.

    Without a name, the first worksheet that is not hidden. stdout begins with one line: the names of all such
    worksheets and the one that was read, separated by tabs."""
    import polars
    from python_calamine import CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

    _limit_memory(path)
    book = CalamineWorkbook.from_path(path)
    sheets = [each for each in book.sheets_metadata if each.typ == SheetTypeEnum.WorkSheet]
    names = [each.name for each in sheets if each.visible == SheetVisibleEnum.Visible] or [
        each.name for each in sheets
    ]
    if not names:
        raise ValueError("it holds no worksheet")
    if name is not None and name not in [each.name for each in sheets]:
        found = ", ".join(repr(each) for each in names[:10])
        raise ValueError(f"it has no sheet {name!r}; its sheets are {found}")
    chosen = names[0] if name is None else name
    rows = book.get_sheet_by_name(chosen).to_python(skip_empty_area=False)
    width = max((len(row) for row in rows), default=0)
    cells = [[_text(row[i]) if i < len(row) else None for row in rows] for i in range(width)]
    frame = polars.DataFrame([polars.Series(f"{i}", each, polars.String) for i, each in enumerate(cells)])
    line = "\t".join(" ".join(each.split()) for each in (*names, chosen))
    sys.stdout.buffer.write(f"{line}\n".encode())
    sys.stdout.buffer.flush()
    frame.write_ipc_stream(sys.stdout.buffer)


def _text(cell: object) -> str | None:
    if isinstance(cell, str):
        return f"t{cell}" if cell.strip() else None
    if isinstance(cell, bool):
        return f"b{int(cell)}"
    if isinstance(cell, int | float):
        return f"n{int(cell)}" if float(cell).is_integer() and abs(cell) <= LARGEST_WHOLE else f"n{cell!r}"
    if isinstance(cell, datetime.datetime):
        return f"d{cell.isoformat(' ')}"
    if isinstance(cell, datetime.date):
        return f"d{cell.isoformat()}"
    return f"t{cell}"  # a time of day, or how long


if __name__ == "__main__":
    try:
        {"parquet": _parquet, "sheet": _sheet}[sys.argv[1]](*sys.argv[2:])
    except BaseException as error:  # noqa: BLE001 (a panic of polars is no Exception)
        lines = str(error).strip().splitlines()
        sys.stderr.write("\n" + (lines[0] if lines else type(error).__name__))
        sys.exit(REFUSED)

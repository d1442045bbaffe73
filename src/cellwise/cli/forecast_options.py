"""The options that the forecasting commands share, each described once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cellwise.cli.cell_argument import HELP, complete
from cellwise.cli.command import argument, option

__all__ = [
    "Cell", "Cutoffs", "DateFormat", "Decimal", "Dropout", "Encoding", "Epochs", "File", "Frequency", "HiddenSize",
    "Horizon", "Id", "Known", "Layers", "LearningRate", "Levels", "Members", "Overwrite", "Past", "Season", "Seed",
    "Step", "Target", "Time", "Validation", "names_of",
]  # fmt: skip

File = Annotated[
    str,
    argument(help="CSV or Parquet file in long format, or the bundled 'us-births'.", metavar="FILE"),
]
Horizon = Annotated[int, option("--horizon", "-H", help="How many steps to forecast.")]
Cell = Annotated[str, option(help=HELP, metavar="CELL", shell_complete=complete)]
Frequency = Annotated[
    str | None,
    option("--freq", help="Distance of the times: D, h, MS, 30min, W-SUN, ...  [default: read off the data]"),
]
Season = Annotated[int | None, option(help="Steps in a season.  [default: by frequency, 7 for days]")]
Id = Annotated[
    str, option("--id", help="Column that names the series; may be missing if there is one series.")
]
Time = Annotated[str, option("--time", help="Column of the times: dates or whole numbers.")]
Target = Annotated[str, option("--target", help="Column of the values to forecast.")]
Known = Annotated[
    list[str] | None,
    option(help="Covariate known in advance, by column; repeat it or separate with commas. Rows with an empty "
                 "target at the end hold its future.", metavar="COLUMN"),
]  # fmt: skip
Past = Annotated[
    list[str] | None, option(help="Covariate known only up to now, by column.", metavar="COLUMN")
]
DateFormat = Annotated[
    str | None,
    option(help="How dates are written, such as %d/%m/%Y.  [default: read off the data]", metavar="FORMAT"),
]
Decimal = Annotated[
    str | None,
    option(help="Mark before decimals, . or ,  [default: read off the data]", metavar="MARK"),
]
Encoding = Annotated[
    str | None, option(help="Encoding of a text file, such as cp1252.  [default: UTF-8 or UTF-16]")
]
Levels = Annotated[
    list[int] | None, option("--level", help="Band in percent; may be repeated.  [default: 80, 90]")
]
HiddenSize = Annotated[int, option(help="Units of the recurrent layer.")]
Layers = Annotated[int, option("--layers", help="Recurrent layers.")]
Dropout = Annotated[float, option(help="Share of units left out at random in training.")]
Members = Annotated[int, option(help="Networks that are trained side by side and averaged.")]
Epochs = Annotated[int, option(help="At most so many epochs; early stopping may end sooner.")]
LearningRate = Annotated[float, option(help="Highest learning rate.")]
Validation = Annotated[
    int | None,
    option(
        help="Windows of one horizon held out to decide when to stop; 0 for none.  [default: by the data's length]"
    ),
]
Seed = Annotated[int, option(help="Equal seeds give equal results.")]
Cutoffs = Annotated[int, option(help="Test windows at the end of the data, kept from training.")]
Step = Annotated[int | None, option(help="Steps between two cutoffs.  [default: one horizon]")]
Overwrite = Annotated[bool, option("--overwrite", help="Replace the run that is in the folder.")]
Out = Annotated[Path | None, option(help="Run folder to write.")]


def names_of(columns: Sequence[str] | None) -> list[str]:
    """Column names, given once each or with commas between them."""
    return [name.strip() for given in columns or () for name in given.split(",") if name.strip()]

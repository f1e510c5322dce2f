"""The data sets of a recipe: what they are, and how large. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSet:
    """A data set: `inputs` numbers an image, in rows of `columns`; `images` are there for training."""

    what: str
    why: str
    source: str
    inputs: int
    columns: int
    outputs: int
    images: int


DATA = {
    "digits": DataSet("1,797 images of 8×8 pixels, bundled", "trains in seconds", "Alpaydin & Kaynak 1998 (UCI)",
                      64, 8, 10, 1_200),
    "mnist": DataSet("70,000 images of 28×28 pixels, from IDX files", "the book's own data", "LeCun et al. 1998",
                     784, 28, 10, 50_000),
    "point": DataSet("one input of one number", "for chains of single neurons", "Nielsen 2015, ch. 5", 1, 1, 1, 1),
    "adding": DataSet("two marked numbers of a sequence of --length, to be added", "asks for memory",
                      "Hochreiter & Schmidhuber 1997, sec. 5.4", 2, 2, 1, 2_000),
}  # fmt: skip

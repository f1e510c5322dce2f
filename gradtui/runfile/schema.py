"""What stands in a run file: the tables, and the records that need no numpy.

The measures of one recorded step are one little-endian float32 BLOB of shape [layers, measures]; the table
`measures` names its columns, the table `layers` its rows. `blocks` decodes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gradtui.format import listed, plain

APPLICATION_ID = 0x67726164  # "grad", so that `file` and other tools can tell a run from any SQLite database
# 1: no row is thinned, every bucket of the envelope holds as many rows; 2: no findings, no titles of measures;
# 3: nothing about optimizers
SCHEMA_VERSION = 4

# kind of finding as it was called once -> what it is called now
OLD_KINDS = {"still": "not-updating", "too-large": "update-too-large", "too-small": "update-too-small"}
# what files of schema 1 and 2 do not say: the measures that are taken from outputs
OLD_OUTPUTS = ("activation_mean", "activation_std", "saturated", "dead")

Outcome = Literal["finished", "stopped", "failed"]

SCHEMA = """
CREATE TABLE header (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;  -- values are JSON
CREATE TABLE measures (
    position INTEGER PRIMARY KEY, name TEXT, symbol TEXT, unit TEXT, definition TEXT,
    title TEXT, source TEXT           -- source: gradients, parameters, updates or outputs
);
CREATE TABLE layers (
    layer INTEGER PRIMARY KEY,        -- its row in steps.measures; the order of execution
    name TEXT, kind TEXT,
    shapes TEXT,                      -- JSON: parameter name -> shape
    parameters INTEGER,
    input_shape TEXT, output_shape TEXT, -- JSON, without the batch dimension; NULL if never seen
    size TEXT,                        -- what it maps: 784→30, 3→16 5×5; '' if that is not known
    optimizers TEXT,                  -- JSON: numbers of those that have had any of its parameters
    branches TEXT                     -- JSON: numbers of the last layers that it leads to; empty if not known
);
CREATE TABLE optimizers (
    optimizer INTEGER PRIMARY KEY,    -- from 1, in the order in which they were met
    kind TEXT,
    groups TEXT,                      -- JSON: name, tensors, parameters, layers ([first, last], …), settings, first
    course BLOB                       -- float64[points, 1 + groups]: a step, and the rates of all groups from there on
);
CREATE TABLE steps (                  -- the newest stay whole, older ones get ever sparser
    step INTEGER PRIMARY KEY, epoch REAL,
    time REAL,                        -- seconds since the start
    loss REAL, learning_rate REAL,    -- NaN stands as the text 'nan', because SQLite turns a NaN into NULL
    measures BLOB,                    -- float32[layers, measures], little-endian; NULL if only the loss is known
    measured INTEGER, place INTEGER,  -- how many measures it holds, and its number among the rows that hold as many
    optimizer INTEGER                 -- whose step was measured; NULL if of many at once, or if only the loss is known
);
CREATE INDEX steps_place ON steps (measured, place);
CREATE TABLE envelope (               -- all recorded steps, folded: smallest, largest and mean of so many rows each
    first_step INTEGER PRIMARY KEY, last_step INTEGER, rows INTEGER, epoch REAL, time REAL,
    loss_minimum REAL, loss_maximum REAL, loss_mean REAL, minimum BLOB, maximum BLOB, mean BLOB,
    optimizers INTEGER                -- whose steps are in it: bit n for number n, 62 for all from there on; -1: any
);
CREATE TABLE neurons (                -- float32[neurons]: the gradient of the mean cost by each bias
    step INTEGER, layer INTEGER, bias_grad BLOB, PRIMARY KEY (step, layer)
);
CREATE TABLE through_time (           -- float32[time steps]: the gradient of the mean cost by a recurrent state
    step INTEGER, state TEXT, grad_norm BLOB, PRIMARY KEY (step, state)  -- state: h1, c1 (of an LSTM), h2, …
);
CREATE TABLE pictures (               -- uint8[count, rows, columns], 0 for `low` and 255 for `high`
    step INTEGER, name TEXT, layer TEXT, rows INTEGER, columns INTEGER, low REAL, high REAL, pixels BLOB,
    PRIMARY KEY (step, name)
);
CREATE TABLE scalars (                -- older values of a metric get ever sparser too
    scalar INTEGER PRIMARY KEY, step INTEGER, epoch REAL, name TEXT, value REAL,
    place INTEGER                     -- its number among the values of its metric
);
CREATE INDEX scalars_place ON scalars (name, place);
CREATE TABLE events (event INTEGER PRIMARY KEY, time REAL, step INTEGER, kind TEXT, text TEXT);
CREATE TABLE origins (                -- where the first NaN or infinity came from
    step INTEGER, phase TEXT, layer INTEGER, what TEXT  -- phase: forward, backward or optimizer; layer NULL: none
);
CREATE TABLE findings (               -- what the diagnosis said while the run was recorded
    finding INTEGER PRIMARY KEY, kind TEXT,
    layers TEXT,                      -- JSON: names, in order of execution; empty if it is about the whole net
    first_step INTEGER,               -- from which it holds
    last_step INTEGER,                -- until which it held; NULL if it still does
    evidence TEXT, numbers TEXT,      -- numbers: JSON, name -> value
    remedies TEXT,                    -- JSON: ids of `gradtui remedies`
    note INTEGER                      -- 1 for what may well be meant
);
CREATE TABLE schedules (              -- how often each optimizer was measured
    optimizer INTEGER PRIMARY KEY,    -- its number, in the order in which they came; 0: many at once, in one backward
    steps INTEGER, measured INTEGER,  -- its own steps so far, and how many of them were measured
    last_measured INTEGER,            -- the newest of them, numbered as in `steps`; NULL if none was
    last_outputs INTEGER              -- the newest in which outputs were sampled
);
CREATE TABLE heartbeat (
    one INTEGER PRIMARY KEY CHECK (one = 1), time REAL, step INTEGER,
    rows INTEGER,                     -- how many steps were recorded, those that are thinned away since among them
    whole_after INTEGER               -- the newest step that is thinned away; NULL if none is
);
CREATE TABLE ending (one INTEGER PRIMARY KEY CHECK (one = 1), time REAL, outcome TEXT, detail TEXT);
CREATE TABLE commands (command INTEGER PRIMARY KEY, time REAL, name TEXT, taken INTEGER DEFAULT 0);
"""


@dataclass(frozen=True)
class Measure:
    """One column of a step's BLOB, e.g. `Measure("bias_grad_norm", "‖∂C/∂b‖", "cost per unit bias", "…")`.

    Attributes:
        title: a heading of a few words, e.g. "Learning speed".
        source: what it is taken from: "gradients", "parameters", "updates" or "outputs".
    """

    name: str
    symbol: str
    unit: str
    definition: str
    title: str = ""
    source: str = "gradients"


@dataclass(frozen=True)
class Layer:
    """One row of a step's BLOB: a module that owns parameters.

    `shapes` maps the module's own parameter names to their shapes. `input_shape` and `output_shape` leave the
    batch dimension out; None means that no forward pass was seen. `size` says what it maps in a few characters, as
    `layer_size` has it. `optimizers` are the numbers of those that have had any of its parameters, `branches` those of
    the last layers that it leads to: layers of which none is the same, as the heads of an actor and a critic, have
    losses of their own. Both are empty if that is not known.
    """

    name: str
    kind: str
    shapes: dict[str, tuple[int, ...]]
    parameters: int
    input_shape: tuple[int, ...] | None = None
    output_shape: tuple[int, ...] | None = None
    size: str = ""
    optimizers: tuple[int, ...] = ()
    branches: tuple[int, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """How often an optimizer was measured.

    Attributes:
        optimizer: its number; 0 stands for many that step at once, inside one backward.
        steps: its own steps so far.
        measured: how many of them were measured.
        last_measured: the newest of them, by the number of its row; None if none was.
        last_outputs: the newest in which outputs were sampled.
    """

    optimizer: int
    steps: int
    measured: int
    last_measured: int | None = None
    last_outputs: int | None = None


@dataclass(frozen=True)
class Pictures:
    """Small pictures of one kind at one step: bytes [count, rows, columns], 0 for the value `low`, 255 for `high`."""

    step: int
    name: str
    layer: str
    rows: int
    columns: int
    low: float
    high: float
    pixels: bytes

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.pixels) // (self.rows * self.columns)

    @property
    def signed(self) -> bool:
        """Whether values lie on both sides of 0."""
        return self.low < 0 < self.high


@dataclass(frozen=True)
class Origin:
    """Where the first NaN or ∞ came from: a "forward" or "backward" pass or an "optimizer" step, and which layer.

    `layer` is its index: after it in a pass, whose parameters in a step; None before the first.
    """

    step: int
    phase: str
    layer: int | None
    what: str


@dataclass(frozen=True)
class Finding:
    """What the diagnosis says of a run.

    Attributes:
        kind: which finding it is, e.g. "vanishing"; the registry `gradtui.diagnosis.FINDINGS` has them.
        layers: names, in order of execution; empty if it is about the whole net.
        begin: the step from which it holds.
        end: the step until which it held; None if it still does.
        evidence: the numbers that prove it, in words.
        numbers: the same by name.
        remedies: the ids of those that fit, as `gradtui remedies` lists them.
        note: True for what may well be meant, such as a frozen layer.
    """

    kind: str
    layers: tuple[str, ...]
    begin: int
    evidence: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    remedies: tuple[str, ...] = ()
    note: bool = False
    end: int | None = None

    @property
    def cleared(self) -> bool:
        """True if it does not hold any more."""
        return self.end is not None

    def __str__(self) -> str:
        where = f"{listed(self.layers)}: " if self.layers else ""
        when = f"since step {self.begin:,}" if self.end is None else f"steps {self.begin:,} to {self.end:,}"
        return f"{self.kind.upper()}  {where}{self.evidence}, {when}"

    def to_json(self) -> dict[str, Any]:
        """As `json.dumps` takes it; a number that JSON has no word for (NaN, ∞) as a string."""
        facts: dict[str, Any] = plain({**asdict(self), "numbers": dict(self.numbers), "layers": list(self.layers)})
        return facts


@dataclass(frozen=True)
class Header:
    """What was run, where and how. Times are seconds since the epoch (UTC)."""

    name: str
    command: list[str] = field(default_factory=list)
    recipe: dict[str, Any] | None = None
    started: float = 0.0
    host: str = ""
    pid: int = 0
    machine: str = ""
    process_start: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    sampling: str = ""
    total_steps: int | None = None
    total_epochs: float | None = None
    takes_commands: list[str] = field(default_factory=list)
    log: str | None = None
    options: dict[str, Any] = field(default_factory=dict)  # `RecordOptions.to_json`
    thresholds: dict[str, float] = field(default_factory=dict)  # that decided what is a finding


@dataclass(frozen=True)
class Event:
    """Something that happened, in words; `time` is seconds since the start."""

    time: float
    step: int | None
    kind: str
    text: str


def nan_as_text(row: tuple[Any, ...], columns: Sequence[int]) -> tuple[Any, ...]:
    """A row as SQLite can keep it: NaN in these columns stands as the text 'nan'."""
    for column in columns:
        if row[column] != row[column]:
            return tuple("nan" if i in columns and value != value else value for i, value in enumerate(row))
    return row

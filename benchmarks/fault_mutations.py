"""Damages files: in their bytes as disks, copies and kills do, and in their values as a forger does."""

from __future__ import annotations

import gzip
import json
import random
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from fault_files import HOSTILE, Whole, forged_checkpoint

DEEP = "[" * 20_000 + "]" * 20_000
DEEP_OBJECT = '{"a":' * 3_000 + "1" + "}" * 3_000
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
JSONS = (
    "null", "1", "-1", '"x"', "[]", "{}", "[[]]", "[1, 2]", '["a", 1]', '{"a": [1]}', '{"a": "b"}', "[-1]", "[1e400]",
    "NaN", "Infinity", "1e300", "-5", "[true]", "{", "[9007199254740993]", "9" * 5_000, "1e-400", '"\\ud800"',
    '["\\u001b[31m"]', DEEP, DEEP_OBJECT,
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 2, 255, 2**31, -(2**31), 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 0.5, -0.5, 1e300, -1e300, 1e-320,
    float("inf"), float("-inf"), 253_402_300_800.0, 1e18, 123_456_789,
)  # fmt: skip
TEXTS = ("", "nan", "inf", "-inf", "x", "1", "1_000", "९", "0x10", "finished", "bias_grad_norm", "outputs")
Damage = Callable[[random.Random, Whole, Path], None]


def damaged(draws: random.Random, whole: Whole, path: Path) -> str:
    """Write a damaged copy of a file to `path`; what was done to it."""
    in_bytes = draws.random() < (0.5 if whole.kind in FORGERIES else 1.0)
    damage: Damage = draws.choice(BYTES if in_bytes else FORGERIES[whole.kind])
    damage(draws, whole, path)
    return damage.__name__.strip("_")


# -- in the bytes -----------------------------------------------------------------------------------------------------


def _flip_a_bit(draws: random.Random, whole: Whole, path: Path) -> None:
    _flip(draws, whole, path, 1)


def _flip_bits(draws: random.Random, whole: Whole, path: Path) -> None:
    _flip(draws, whole, path, draws.randint(2, 40))


def _flip(draws: random.Random, whole: Whole, path: Path, count: int) -> None:
    content = bytearray(whole.content)
    # the beginning says what the rest is
    span = len(content) if draws.random() < 0.5 else min(len(content), draws.choice((16, 100, 1024)))
    for _ in range(count):
        content[draws.randrange(span)] ^= 1 << draws.randrange(8)
    path.write_bytes(content)


def _overwrite(draws: random.Random, whole: Whole, path: Path) -> None:
    content, length = bytearray(whole.content), min(len(whole.content), draws.choice((1, 4, 16, 100, 512, 4096)))
    start = draws.randrange(len(content) - length + 1)
    same = draws.choice((0, 0xFF, None))
    content[start : start + length] = draws.randbytes(length) if same is None else bytes([same]) * length
    path.write_bytes(content)


def _cut(draws: random.Random, whole: Whole, path: Path) -> None:
    path.write_bytes(whole.content[: draws.randrange(len(whole.content))])


def _lose_a_piece(draws: random.Random, whole: Whole, path: Path) -> None:
    start = draws.randrange(len(whole.content))
    path.write_bytes(whole.content[:start] + whole.content[start + draws.choice((1, 8, 512, 4096)) :])


def _swap_pages(draws: random.Random, whole: Whole, path: Path) -> None:
    size = draws.choice((512, 1024, 4096))
    pages = [whole.content[i : i + size] for i in range(0, len(whole.content), size)]
    one, other = draws.randrange(len(pages)), draws.randrange(len(pages))
    pages[one], pages[other] = pages[other], pages[one] if draws.random() < 0.5 else pages[other]
    path.write_bytes(b"".join(pages))


def _add_rubbish(draws: random.Random, whole: Whole, path: Path) -> None:
    path.write_bytes(whole.content + draws.randbytes(draws.choice((1, 100, 5000))))


def _leave_companions(draws: random.Random, whole: Whole, path: Path) -> None:
    """As of another program, or of a kill: journals that do not belong to the file."""
    path.write_bytes(whole.content)
    start = draws.choice((b"", bytes.fromhex("d9d505f920a163d7"), bytes.fromhex("377f0682002de218")))
    for end in draws.sample(("-wal", "-journal", "-shm"), draws.randint(1, 3)):
        Path(f"{path}{end}").write_bytes(start + draws.randbytes(draws.choice((0, 10, 4096))))


# -- in the values of a run file --------------------------------------------------------------------------------------


def _change_values(draws: random.Random, whole: Whole, path: Path) -> None:
    with _database(whole, path) as connection:
        for _ in range(draws.choice((1, 1, 1, 2, 5))):
            table = draws.choice(_tables(connection))
            column = draws.choice([row[1] for row in connection.execute(f"PRAGMA table_info({table})")])
            where = (
                draws.choice(("", "", f"WHERE rowid = (SELECT max(rowid) FROM {table})")) if table != "header" else ""
            )
            with suppress(sqlite3.IntegrityError):  # not every value fits a primary key
                connection.execute(f"UPDATE OR IGNORE {table} SET {column} = ? {where}", (_value(draws),))


def _change_the_header(draws: random.Random, whole: Whole, path: Path) -> None:
    with _database(whole, path) as connection:
        key = draws.choice([row[0] for row in connection.execute("SELECT key FROM header")])
        value = draws.choice(JSONS) if draws.random() < 0.7 else json.dumps(draws.choice(HOSTILE))
        connection.execute("UPDATE header SET value = ? WHERE key = ?", (value, key))


def _change_json(draws: random.Random, whole: Whole, path: Path) -> None:
    places = (
        ("layers", "shapes"), ("layers", "input_shape"), ("layers", "output_shape"), ("findings", "layers"),
        ("findings", "numbers"), ("findings", "remedies"),
    )  # fmt: skip
    with _database(whole, path) as connection:
        table, column = draws.choice(places)
        connection.execute(f"UPDATE {table} SET {column} = ?", (draws.choice(JSONS),))


def _name_everything(draws: random.Random, whole: Whole, path: Path) -> None:
    name = draws.choice(HOSTILE)
    with _database(whole, path) as connection:
        for table in _tables(connection):
            for _, column, kind, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall():
                if kind == "TEXT" and table != "header" and draws.random() < 0.5:
                    connection.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", (name,))
        for key in ("name", "sampling", "host", "log"):
            connection.execute("UPDATE header SET value = ? WHERE key = ?", (json.dumps(name), key))


def _lose_a_table(draws: random.Random, whole: Whole, path: Path) -> None:
    with _database(whole, path) as connection:
        table = draws.choice(_tables(connection))
        connection.execute(f"{draws.choice(('DROP TABLE', 'DELETE FROM'))} {table}")


def _replace_a_table(draws: random.Random, whole: Whole, path: Path) -> None:
    with _database(whole, path) as connection:
        table = draws.choice(_tables(connection))
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        connection.execute(f"ALTER TABLE {table} RENAME TO gone")
        computed = ", ".join(
            [f"{columns[0]} INTEGER PRIMARY KEY", *(f"{name} AS (hex(zeroblob(1e8)))" for name in columns[1:])]
        )
        selected = ", ".join(f"i AS {name}" for name in columns)
        connection.execute(
            draws.choice(
                (
                    f"CREATE VIEW {table} AS SELECT {selected} FROM ({ENDLESS})",
                    f"CREATE VIEW {table} AS SELECT * FROM {table}",
                    f"CREATE TABLE {table} ({computed})",
                    f"CREATE VIRTUAL TABLE {table} USING fts5({', '.join(columns)})",
                    f"CREATE TABLE {table} (x)",
                )
            )
        )


def _add_a_trigger(draws: random.Random, whole: Whole, path: Path) -> None:
    with _database(whole, path) as connection:
        table = draws.choice(_tables(connection))
        connection.execute(f"CREATE TRIGGER evil AFTER INSERT ON {table} BEGIN DELETE FROM steps; END")


def _add_rows(draws: random.Random, whole: Whole, path: Path) -> None:
    """Many more than any run has."""
    count = draws.choice((1_000, 20_000))
    with _database(whole, path) as connection:
        table = draws.choice(("steps", "layers", "scalars", "events", "measures", "neurons", "findings"))
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        selected = ", ".join(["n.i + 1000", *(f"t.{name}" for name in columns[1:])])
        connection.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {count}) INSERT OR IGNORE INTO"
            f" {table} SELECT {selected} FROM n, (SELECT * FROM {table} LIMIT 1) t"
        )


def _change_the_version(draws: random.Random, whole: Whole, path: Path) -> None:
    with _database(whole, path) as connection:
        connection.execute(f"PRAGMA user_version = {draws.choice((-1, 0, 1, 2, 3, 4, 5, 99, 2**31 - 1))}")
        if draws.random() < 0.2:
            connection.execute(f"PRAGMA application_id = {draws.randrange(2**31)}")


@contextmanager
def _database(whole: Whole, path: Path) -> Iterator[sqlite3.Connection]:
    path.write_bytes(whole.content)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = OFF")
        yield connection


def _tables(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]


def _value(draws: random.Random) -> Any:
    kind = draws.randrange(6)
    if kind == 0:
        return draws.choice((None, b"", b"\0", b"abc", draws.randbytes(draws.choice((4, 16, 64, 1000)))))
    if kind == 1:
        return draws.choice(HOSTILE)
    return draws.choice((JSONS, TEXTS, NUMBERS, NUMBERS)[kind - 2])


# -- in the values of other files -------------------------------------------------------------------------------------


def _forge_json(draws: random.Random, whole: Whole, path: Path) -> None:
    path.write_text(_forged_text(draws, whole.content.decode()), "utf-8", errors="surrogatepass")


def _forge_a_checkpoint(draws: random.Random, whole: Whole, path: Path) -> None:
    size = struct.unpack("<Q", whole.content[:8])[0]
    before = json.loads(whole.content[8 : 8 + size])["__metadata__"]["facts"]
    text = draws.choice(JSONS) if draws.random() < 0.2 else _forged_text(draws, before)
    header = {} if draws.random() < 0.8 else {draws.choice(("pretrain", "crc32")): draws.choice(HOSTILE)}
    path.write_bytes(forged_checkpoint(whole.content, text.encode("utf-8", "replace").decode(), header))


def _forge_an_index(draws: random.Random, whole: Whole, path: Path) -> None:
    """The header of the safetensors format: shapes, types and places of tensors."""
    size = struct.unpack("<Q", whole.content[:8])[0]
    text = _forged_text(draws, whole.content[8 : 8 + size].decode()).encode("utf-8", "replace")
    path.write_bytes(
        struct.pack("<Q", draws.choice((len(text), len(text), 2**63, 0))) + text + whole.content[8 + size :]
    )


def _forged_text(draws: random.Random, text: str) -> str:
    """A JSON text with some values replaced."""
    tree = json.loads(text)
    for _ in range(draws.choice((1, 1, 2, 4))):
        places: list[tuple[Any, Any]] = []
        _collect(tree, places)
        if not places:
            break
        inside, key = draws.choice(places)
        inside[key] = draws.choice(("\0json", *HOSTILE, *NUMBERS, None, True, [], {}, [1], {"a": 1}, "relu", "tensor"))
    return json.dumps(tree).replace('"\\u0000json"', draws.choice(JSONS))


def _collect(tree: Any, places: list[tuple[Any, Any]]) -> None:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        places.append((tree, key))
        _collect(tree[key], places)


def _forge_idx(draws: random.Random, whole: Whole, path: Path) -> None:
    """A header of its own, over the same values, zeros that pack well, or none."""
    count = draws.choice((0, 1, 2, 3, 8, 9, 255))
    sides = (0, 1, 5, 28, 2**16, 60_000, 2**31, 2**32 - 1)
    head = bytes([0, 0, draws.choice((8, 9, 0xB, 0xC, 0xD, 0xE, 7)), count])
    head += b"".join(struct.pack(">I", draws.choice(sides)) for _ in range(count))
    content = head + draws.choice((b"", whole.content, bytes(draws.choice((100, 10_000_000)))))
    if draws.random() < 0.5:
        content = gzip.compress(content, 1)
    path.write_bytes(content)


BYTES: tuple[Damage, ...] = (
    _flip_a_bit, _flip_a_bit, _flip_bits, _overwrite, _cut, _lose_a_piece, _swap_pages, _add_rubbish, _leave_companions,
)  # fmt: skip
_CHECKPOINT: tuple[Damage, ...] = (_forge_a_checkpoint, _forge_a_checkpoint, _forge_an_index)
FORGERIES: dict[str, tuple[Damage, ...]] = {
    "run": (
        _change_values, _change_values, _change_values, _change_the_header, _change_the_header, _change_json,
        _name_everything, _lose_a_table, _replace_a_table, _add_a_trigger, _add_rows, _change_the_version,
    ),
    "plan": (_forge_json,),
    "stack": _CHECKPOINT, "net": _CHECKPOINT, "state": _CHECKPOINT,
    "idx": (_forge_idx,),
}  # fmt: skip

"""The table of a sweep: one row an attack, in a SQLite file that survives a kill at any moment."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak import __version__
from tinyleak.report import write_arrays, write_atomically
from tinyleak.sweep.request import RESULT_COLUMNS, Request

PATIENCE = 60.0  # seconds to wait while another process reads or writes the file


class Table:
    """The finished attacks of one or more sweeps.

    A row is written in one transaction, and is on the disk before `record` returns: SQLite keeps
    its rollback journal until then and syncs both, so that a process killed at any moment leaves
    whole rows only. A row is keyed by its settings, a checksum of its images and the version that
    computed it. A grid that differs from the one before adds its own rows and leaves the others,
    and those that the two share are not run again. What each sweep was asked for is kept too, in
    the table `sweeps`.

    Only one process writes: the one that hands out the attacks. Reconstructions that are kept lie
    beside the file, in the directory `images_path`.
    """

    def __init__(self, path: str | Path, columns: tuple[str, ...]) -> None:
        """Open the file, or create it; `columns` are the names of `Request.columns`.

        Raises:
            ValueError: the file holds something else, or columns of another version.
            OSError: it cannot be opened.
        """
        self.path = Path(path)
        self._settings = columns
        self._columns = ("id", *columns, *RESULT_COLUMNS)
        with self._explained():
            self._database = sqlite3.connect(self.path, timeout=PATIENCE)
        try:
            self._create()
        except BaseException:
            self._database.close()
            raise

    def _create(self) -> None:
        names = ", ".join(f'"{name}"' for name in self._columns[1:])
        execute = self._database.execute
        with self._explained():
            execute("PRAGMA synchronous = FULL")
            with self._database:
                execute(f'CREATE TABLE IF NOT EXISTS attacks ("id" TEXT PRIMARY KEY, {names})')
                execute(
                    "CREATE TABLE IF NOT EXISTS sweeps (started TEXT, versions TEXT, request TEXT)"
                )
            found = {row[1] for row in execute("PRAGMA table_info(attacks)")}
        if found != set(self._columns):
            differing = ", ".join(sorted(found ^ set(self._columns)))
            raise ValueError(
                f"{self.path} is a table of another version of tinyleak (columns that differ: "
                f"{differing}); choose another --table"
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the errors of SQLite into those that the rest of tinyleak raises."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(
                f"the table {self.path} cannot be used ({error}); choose another --table"
            ) from error
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{self.path} is not a table of tinyleak ({error}); choose another --table"
            ) from error

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()

    @property
    def images_path(self) -> Path:
        """The directory of the reconstructions: a file `<id>.npz` for each that is kept."""
        return files_of_table(self.path)[-1]

    def begin(self, request: Mapping[str, Any]) -> None:
        """Note that a sweep begins, and what it was asked for, in plain numbers and names."""
        versions = {"tinyleak": __version__, "numpy": np.__version__}
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self._explained(), self._database:
            self._database.execute(
                "INSERT INTO sweeps VALUES (?, ?, ?)",
                (started, json.dumps(versions), json.dumps(request)),
            )

    def finished(self, *, with_failed: bool = True, images: bool = False) -> set[str]:
        """Return the ids of the attacks that need not be run again.

        Those whose row is an error are among them if `with_failed`; if `images`, only those of the
        others whose reconstruction is kept.
        """
        with self._explained():
            rows = list(self._database.execute("SELECT id, error IS NOT NULL FROM attacks"))
        kept = {path.stem for path in self.images_path.glob("*.npz")} if images else None
        done = {id for id, failed in rows if not failed and (kept is None or id in kept)}
        return done | {id for id, failed in rows if failed and with_failed}

    def record(self, request: Request, result: Mapping[str, Any]) -> None:
        """Write an attack's row. An existing row stays, unless it is that of a failed attack.

        Reconstructions are written first, so that every row has its images. An OSError if the file,
        or the images, cannot be written.
        """
        if "arrays" in result:
            self.images_path.mkdir(exist_ok=True)
            write_arrays(self.images_path / f"{request.id}.npz", **result["arrays"])
        row = {"id": request.id, **request.columns}
        row.update({name: result[name] for name in RESULT_COLUMNS})
        places = ", ".join(f":{name}" for name in self._columns)
        updates = ", ".join(f'"{name}" = excluded."{name}"' for name in RESULT_COLUMNS)
        with self._explained(), self._database:
            self._database.execute(
                f"INSERT INTO attacks VALUES ({places}) "
                f"ON CONFLICT (id) DO UPDATE SET {updates} WHERE error IS NOT NULL",
                row,
            )

    def rows(self) -> list[dict[str, Any]]:
        """Return every row by column, in the order of the settings. NaN has become None."""
        order = ", ".join(f'"{name}"' for name in self._settings)
        names = ", ".join(f'"{name}"' for name in self._columns)
        with self._explained():
            found = self._database.execute(f"SELECT {names} FROM attacks ORDER BY {order}")
            return [dict(zip(self._columns, row, strict=True)) for row in found]

    def export_csv(self, path: str | Path) -> None:
        """Write every row as CSV, the names of the columns first.

        Raises:
            ValueError: it is one of the table's own files.
            OSError: the file cannot be written.
        """
        if Path(path).resolve() in [own.resolve() for own in files_of_table(self.path)]:
            raise ValueError(f"{path} is the table itself; choose another file for the CSV")
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(self.rows())
        write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def files_of_table(path: Path) -> list[Path]:
    """Return what a table consists of: its file, SQLite's journal, the directory of its images."""
    return [path, *(path.with_name(f"{path.name}{more}") for more in ("-journal", ".images"))]


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each defence and attacker, in the order in which they first come."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["defense"], row["attacker"]), []).append(row)
    width = max([len("defence"), *(len(defense) for defense, _ in groups)])
    lines = [f"{'defence':<{width}}  attacker  attacks  recovered  errors  median MSE"]
    for (defense, attacker), group in groups.items():
        errors = sum(row["error"] is not None for row in group)
        recovered = sum(bool(row["succeeded"]) for row in group)
        found = [row["mse"] for row in group if row["mse"] is not None]
        median = f"{statistics.median(found):.1e}" if found else "-"
        lines.append(
            f"{defense:<{width}}  {attacker:<8}  {len(group):>7}  {recovered:>9}  {errors:>6}  "
            f"{median:>10}"
        )
    return "\n".join(lines)

"""Follow a ledger and say where each budget stands.

Nothing here keeps books of its own: spend is what the append-only ledger says, so it survives a
crash as the ledger does (an unfinished last line is dropped, and that is said).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import datetime, tzinfo
from pathlib import Path

from carbon.budget import Action, Budget, BudgetStatus, SpendTally, strictest
from carbon.entries import LedgerEntry, parse_line
from carbon.errors import BasisError, BudgetError, LedgerError
from carbon.intensity.protocol import Basis
from carbon.ledger import unfinished


class BudgetKeeper:
    """Follows a ledger and says where each budget stands. One per process or thread.

    Args:
        ledger: the file; it is only read, and may not exist yet.
        budgets: the limits, at most one for each kind of period.
        timezone: where days and months begin; never guessed from the machine.
        clock: the present (aware).
        session: the session that a session budget is for.
        basis: the intensity basis that is counted; the ledger's only one where not given.

    Attributes:
        dropped: what was said about an unfinished last line; empty if there was none.

    Raises:
        BudgetError: if two budgets are for one kind of period, or a session budget has no session.
    """

    def __init__(
        self,
        ledger: Path,
        budgets: Iterable[Budget],
        *,
        timezone: tzinfo,
        clock: Callable[[], datetime],
        session: str | None = None,
        basis: Basis | None = None,
    ) -> None:
        self._tally = SpendTally(budgets, timezone=timezone)
        self.budgets = self._tally.budgets
        if session is None and any(budget.period == "session" for budget in self.budgets):
            raise BudgetError("A session budget needs the session's name.")
        self.dropped: list[str] = []
        self._path = ledger
        self._clock = clock
        self._session = session
        self._basis = basis
        self._offset = 0
        self._lines = 0
        self._open_end = False
        self._inode: int | None = None
        self._found_basis: Basis | None = None

    def status(self) -> tuple[BudgetStatus, ...]:
        """Every budget as the ledger stands now.

        Raises:
            LedgerError: if the ledger is damaged beyond its last line.
            BasisError: if it mixes bases and none was chosen.
        """
        return self.would(0.0)

    def would(self, g_co2e: float) -> tuple[BudgetStatus, ...]:
        """Every budget, with the action that work of this cost would meet if started now.

        Args:
            g_co2e: expected gross emissions of the work.

        Raises:
            BudgetError: if the cost is negative or not finite.
            LedgerError: as :meth:`status`.
            BasisError: as :meth:`status`.
        """
        self._read_on()
        return self._tally.status(self._clock(), session=self._session, cost_g_co2e=g_co2e)

    def action(self, g_co2e: float = 0.0) -> Action:
        """The strictest action over all budgets."""
        return strictest(self.would(g_co2e))

    def _read_on(self) -> None:
        """Count the lines that were added since last time."""
        try:
            with self._path.open("rb") as file:
                self._restart_if_replaced(os.fstat(file.fileno()))
                file.seek(self._offset)
                for raw in file:
                    if not self._take(raw):
                        return
        except FileNotFoundError:
            return
        except OSError as error:
            raise LedgerError(f"The ledger {self._path} cannot be read: {error}.") from error

    def _restart_if_replaced(self, status: os.stat_result) -> None:
        if status.st_ino != self._inode or status.st_size < self._offset:
            self._inode = status.st_ino
            self._offset = self._lines = 0
            self._open_end = False
            self._tally.clear()
            self._found_basis = None

    def _take(self, raw: bytes) -> bool:
        """Count one line; False for an unfinished one, which is looked at again next time."""
        if self._open_end and raw == b"\n":
            # The line end that a crash had kept from the line before.
            self._offset += 1
            self._open_end = False
            return True
        left = unfinished(self._path, raw)
        if left is not None:
            if left.message not in self.dropped:
                self.dropped.append(left.message)
            return False
        self._book(parse_line(self._path, self._lines + 1, raw))
        self._offset += len(raw)
        self._lines += 1
        self._open_end = not raw.endswith(b"\n")
        return True

    def _book(self, entry: LedgerEntry) -> None:
        known = entry.g_co2e if self._counts(entry) else None
        self._tally.book(entry.time, known, session=entry.session)

    def _counts(self, entry: LedgerEntry) -> bool:
        """Whether the entry is on the budgets' basis; the ledger's first one where none is said.

        Emissions that came without an intensity are on no basis that anyone knows.
        """
        basis = entry.intensity_basis
        if self._basis is not None or basis is None:
            return basis is not None and basis == self._basis
        self._found_basis = self._found_basis or basis
        if basis != self._found_basis:
            raise BasisError(
                f"The ledger {self._path} mixes {self._found_basis} and {basis}; say which of "
                "them the budgets count. Entries on the other are then reported as unknown."
            )
        return True

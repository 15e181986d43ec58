"""So much of something that all tenants have together, of which none may have more than its share. Pure."""

from __future__ import annotations

from casemate.errors import TooManyRequests
from casemate.service_limits import TURN_RETRY_MIN_S


class Shares:
    """Counts what is held by whom."""

    def __init__(self, most: int, share_max: int, what: str) -> None:
        self._most = most
        self._share_max = share_max
        self._what = what
        self._held: dict[str, int] = {}
        self._total = 0

    def held_by(self, tenant: str) -> int:
        """How much a tenant has now."""
        return self._held.get(tenant, 0)

    def take(self, tenant: str, amount: int = 1) -> None:
        """Have so much more. Raises TooManyRequests where that would be more than a share, or than there is."""
        held = self.held_by(tenant) + amount
        if held > self._share_max:
            raise TooManyRequests(
                f"{self._what} of this tenant: no more than {self._share_max} at a time", retry_after_s=TURN_RETRY_MIN_S
            )
        if self._total + amount > self._most:
            raise TooManyRequests(
                f"{self._what} of all tenants: no more than can be held", retry_after_s=TURN_RETRY_MIN_S
            )
        self._held[tenant] = held
        self._total += amount

    def give_back(self, tenant: str, amount: int = 1) -> None:
        """Have so much less."""
        self._total -= amount
        left = self._held[tenant] - amount
        if left:
            self._held[tenant] = left
        else:
            del self._held[tenant]

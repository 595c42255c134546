"""Quotas: limits on the total use of a resource, divided fairly between clients."""

import asyncio
import functools
import ipaddress
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from cylstm.serve.bodies import RequestError

T = TypeVar("T")


@functools.lru_cache(4096)
def client_of(address: str | None) -> str:
    """Return the client of an address: the /64 network for IPv6, which a single subscriber controls."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))
    return str(ip)


class Quota:
    """A limit on the total amount of a resource that clients use.

    A client may use all of it while there is room. Otherwise a client below the largest user takes capacity
    from it: the newest reservations of that user are evicted. Other requests fail. An amount above the limit
    is allowed while nothing else is reserved.

    Parameters
    ----------
    limit : int
    message : str
        Error message for requests that do not fit.

    Examples
    --------
    >>> quota = Quota(3, "server: too much")
    >>> [quota.reservation("a").resize(1) for _ in range(4)]
    [True, True, True, False]
    >>> [quota.reservation("b").resize(1) for _ in range(2)]  # with the second, "b" would use more than "a"
    [True, False]
    """

    def __init__(self, limit: int, message: str) -> None:
        self.limit, self.message, self.used = limit, message, 0
        self.clients: dict[str, _Client] = {}

    def reservation(self, client: str, on_evict: Callable[[], Any] = lambda: None) -> "Reservation":
        """Create an empty reservation of a client; `on_evict` is called if another client takes it."""
        return Reservation(self, client, on_evict)

    def make_room(self, client: str, extra: int) -> bool:
        """Evict reservations of larger users to make room for a client; return whether there is room."""
        if self.used == 0:
            return True
        user = self.clients.get(client)
        amount = (user.used if user else 0) + extra
        while self.used + extra > self.limit:
            largest = max(self.clients.values(), key=lambda one: one.used)
            if largest is user or amount >= largest.used:
                return False
            next(reversed(largest.reservations)).evict()
        return True


class _Client:
    """The reservations of one client."""

    def __init__(self) -> None:
        self.used = 0
        self.reservations: dict[Reservation, None] = {}  # in order of creation


class Reservation:
    """An amount of a quota that is reserved for a client, such as for one request."""

    def __init__(self, quota: Quota, client: str, on_evict: Callable[[], Any]) -> None:
        self._quota, self._client, self.on_evict = quota, client, on_evict
        self.amount, self.is_evicted = 0, False

    @property
    def error(self) -> RequestError:
        """The error for a request that does not fit or was evicted."""
        return RequestError(503, self._quota.message)

    def resize(self, amount: int) -> bool:
        """Change the reserved amount if there is room; return whether it was changed."""
        extra = amount - self.amount
        if self.is_evicted or (extra > 0 and not self._has_room(extra)):
            return False
        clients = self._quota.clients
        client = clients.setdefault(self._client, _Client())
        client.used += extra
        self._quota.used += extra
        self.amount = amount
        if amount:
            client.reservations[self] = None
        else:
            client.reservations.pop(self, None)
            if not client.reservations:
                del clients[self._client]
        return True

    def _has_room(self, extra: int) -> bool:
        quota = self._quota
        alone = quota.used == self.amount
        return alone or quota.used + extra <= quota.limit or quota.make_room(self._client, extra)

    def claim(self, amount: int) -> None:
        """Change the reserved amount.

        Raises
        ------
        RequestError
            With status 503, if there is no room.
        """
        if not self.resize(amount):
            raise self.error

    def release(self) -> None:
        """Release the reserved amount."""
        if self.amount:
            self.resize(0)

    def evict(self) -> None:
        """Release the reserved amount for another client."""
        self.release()
        self.is_evicted = True
        self.on_evict()


async def evictable(work: Coroutine[Any, Any, T], *reservations: Reservation) -> T:
    """Await a coroutine, which is cancelled if one of its reservations is evicted.

    Raises
    ------
    RequestError
        With status 503, if a reservation was evicted.
    """
    task = asyncio.ensure_future(work)
    for reservation in reservations:
        reservation.on_evict = task.cancel
    try:
        return await task
    except asyncio.CancelledError:
        for reservation in reservations:
            if reservation.is_evicted:
                raise reservation.error from None
        task.cancel()
        raise
    finally:
        for reservation in reservations:
            reservation.on_evict = _do_nothing
        del task  # its exception refers to this frame: the cycle would keep bodies and answers in memory


def _do_nothing() -> None:
    """Ignore an eviction after the work is done."""

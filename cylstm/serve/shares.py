"""Bounds on what all clients hold together, shared between them once there is no more room."""

import asyncio
import functools
import ipaddress
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from cylstm.serve.bodies import Refusal

T = TypeVar("T")


@functools.lru_cache(4096)
def client_of(address: str | None) -> str:
    """The client that an address stands for: with IPv6 its /64 network, which is what one subscriber has."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))
    return str(ip)


class Shares:
    """An amount of something that clients hold together at most.

    While there is room, anyone may have all of it. When there is none, a client that would still hold less
    than the one that holds most takes it from that one, whose newest holdings are evicted; others are
    refused. What is larger than the whole bound has room while nobody else holds anything.

    Parameters
    ----------
    limit : int
    words : str
        Why a request was refused.

    Examples
    --------
    >>> shares = Shares(3, "server: too much")
    >>> [shares.holding("a").resize(1) for _ in range(4)]
    [True, True, True, False]
    >>> [shares.holding("b").resize(1) for _ in range(2)]  # the second would be more than "a" has left
    [True, False]
    """

    def __init__(self, limit: int, words: str) -> None:
        self.limit, self.words, self.held = limit, words, 0
        self.clients: dict[str, _Client] = {}

    def holding(self, client: str, evict: Callable[[], Any] = lambda: None) -> "Holding":
        """Nothing yet, of a client; `evict` is called when another one takes it."""
        return Holding(self, client, evict)

    def make_room(self, client: str, extra: int) -> bool:
        """Whether there is room for more of a client's, perhaps taken from another one's."""
        if self.held == 0:
            return True
        own = self.clients.get(client)
        amount = (own.held if own else 0) + extra
        while self.held + extra > self.limit:
            top = max(self.clients.values(), key=lambda one: one.held)
            if top is own or amount >= top.held:
                return False
            next(reversed(top.holdings)).take_away()
        return True


class _Client:
    """What one client holds."""

    def __init__(self) -> None:
        self.held = 0
        self.holdings: dict[Holding, None] = {}  # in the order in which they were begun


class Holding:
    """A part of a client's share, as of one request."""

    def __init__(self, shares: Shares, client: str, evict: Callable[[], Any]) -> None:
        self._shares, self._client, self.evict = shares, client, evict
        self.amount, self.evicted = 0, False

    @property
    def refusal(self) -> Refusal:
        """For a request that found no room, or lost it."""
        return Refusal(503, self._shares.words)

    def resize(self, amount: int) -> bool:
        """Hold that much instead, if there is room; whether there is."""
        extra = amount - self.amount
        if self.evicted or (extra > 0 and not self._has_room(extra)):
            return False
        clients = self._shares.clients
        client = clients.setdefault(self._client, _Client())
        client.held += extra
        self._shares.held += extra
        self.amount = amount
        if amount:
            client.holdings[self] = None
        else:
            client.holdings.pop(self, None)
            if not client.holdings:
                del clients[self._client]
        return True

    def _has_room(self, extra: int) -> bool:
        shares = self._shares
        alone = shares.held == self.amount
        return alone or shares.held + extra <= shares.limit or shares.make_room(self._client, extra)

    def claim(self, amount: int) -> None:
        """Hold that much instead.

        Raises
        ------
        Refusal
            With status 503, if there is no room.
        """
        if not self.resize(amount):
            raise self.refusal

    def release(self) -> None:
        """Hold nothing."""
        if self.amount:
            self.resize(0)

    def take_away(self) -> None:
        """Hold nothing, for another client needs it."""
        self.release()
        self.evicted = True
        self.evict()


async def evictable(work: Coroutine[Any, Any, T], *holdings: Holding) -> T:
    """The result of work that is given up when one of its holdings is evicted.

    Raises
    ------
    Refusal
        With status 503, if one was.
    """
    task = asyncio.ensure_future(work)
    for holding in holdings:
        holding.evict = task.cancel
    try:
        return await task
    except asyncio.CancelledError:
        for holding in holdings:
            if holding.evicted:
                raise holding.refusal from None
        task.cancel()
        raise
    finally:
        for holding in holdings:
            holding.evict = _nothing
        del task  # whose error refers to this frame: a cycle, which would keep bodies and answers in memory


def _nothing() -> None:
    """Nobody has to be told."""

"""Resource limits of a server."""

from dataclasses import dataclass

from cylstm import _checks

BODIES = 64  # bodies of maximum size that a process holds at a time


@dataclass(frozen=True)
class Limits:
    """Limits on memory, waiting times and concurrency of a server.

    When a shared limit is reached, it is divided fairly between clients (IPv4 addresses, IPv6 /64 networks):
    a client below the largest user takes capacity from it, and others get an error. Requests for /healthz and
    /metrics are not limited.

    Parameters
    ----------
    max_body : int
        Maximum bytes of a request body or a stream message. A process holds up to 64 times as many bytes of
        bodies and responses; further requests get status 503.
    max_steps : int
        Maximum time steps of a sequence or a stream message.
    max_queue : int
        Maximum number of complete requests and messages that are queued or processed; further ones get
        status 503.
    max_streams : int
        Maximum number of open streams; further ones are closed with code 1013.
    timeout : float
        Seconds within which a request head, body or message must be complete (else status 408, or the
        connection is closed), and its result available (else 504). A client must also read some of a
        response in this time, and each `max_body` bytes of it.
    idle_timeout : float
        Seconds without a message after which a stream is closed.
    origins : tuple of str
        Origins, such as "https://example.com", whose pages may open streams from a browser; "*" for all.
        Pages of the same host always may.

    Raises
    ------
    ValueError, TypeError
        If a number is not positive, a count is not an int, or an origin is invalid.

    Examples
    --------
    >>> Limits(max_queue=64, origins=("https://example.com",)).max_bytes
    268435456
    """

    max_body: int = 4 * 2**20
    max_steps: int = 10_000
    max_queue: int = 256
    max_streams: int = 1000
    timeout: float = 30.0
    idle_timeout: float = 300.0
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("max_body", "max_steps", "max_queue", "max_streams"):
            _checks.positive(name, getattr(self, name))
        for name in ("timeout", "idle_timeout"):
            _checks.above(name, getattr(self, name), 0)
        if isinstance(self.origins, str):
            raise TypeError(f"origins: expected a tuple of str, got {self.origins!r}")
        for origin in self.origins:
            scheme, separator, host = origin.partition("://")
            if origin != "*" and not (scheme and separator and host and "/" not in host):
                raise ValueError(f'origins: expected "*" or an origin, "https://example.com", got {origin!r}')
        object.__setattr__(self, "origins", tuple(self.origins))

    @property
    def max_bytes(self) -> int:
        """Maximum bytes of all request bodies in progress and of unread responses."""
        return BODIES * max(self.max_body, 2**16)

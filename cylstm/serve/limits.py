"""What a server grants its clients."""

from dataclasses import dataclass

from cylstm import _checks

BODIES = 64  # of the largest size, that a process holds at a time


@dataclass(frozen=True)
class Limits:
    """Bounds that keep memory and waiting times of a server finite.

    When one that counts is reached, clients (IPv4 addresses, IPv6 /64 networks) share it: a client that
    has less than the one with most gets room from that one, and others are refused. Requests for /healthz
    and /metrics count for none.

    Parameters
    ----------
    max_body : int
        Bytes of a request's body, or of a message of a stream. A process holds 64 times as many of all
        bodies and answers; a request beyond that is refused with status 503.
    max_steps : int
        Time steps of a sequence, or of a message of a stream.
    max_queue : int
        Requests and messages that wait or are computed at a time, whose bodies are complete; further ones
        are refused with status 503.
    max_streams : int
        Open streams; further ones are closed with code 1013.
    timeout : float
        Seconds in which a head, a body or a message has to be complete (else 408, or the connection ends),
        in which its result has to be there (else 504), in which a client has to read some of an answer, and
        each `max_body` bytes of it.
    idle_timeout : float
        Seconds without a message after which a stream is closed.
    origins : tuple of str
        Origins such as "https://example.com" whose pages may open streams from a browser; "*" for all.
        Those of the server's own host may anyway.

    Raises
    ------
    ValueError, TypeError
        If a number is not positive, or no int where it counts something, or an origin is none.

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
        """Check each."""
        for name in ("max_body", "max_steps", "max_queue", "max_streams"):
            _checks.positive(name, getattr(self, name))
        for name in ("timeout", "idle_timeout"):
            _checks.above(name, getattr(self, name), 0)
        if isinstance(self.origins, str):
            raise TypeError(f"origins: expected a tuple of str, got {self.origins!r}")
        for origin in self.origins:
            scheme, separator, host = origin.partition("://")
            if origin != "*" and not (scheme and separator and host and "/" not in host):
                raise ValueError(f'origins: expected "*" or such as "https://example.com", got {origin!r}')
        object.__setattr__(self, "origins", tuple(self.origins))

    @property
    def max_bytes(self) -> int:
        """Bytes of all bodies that are read, wait or are computed, and of answers that are not read yet."""
        return BODIES * max(self.max_body, 2**16)

"""What a server grants its clients."""

from dataclasses import dataclass

from cylstm import _checks


@dataclass(frozen=True)
class Limits:
    """Bounds that keep memory and waiting times of a server finite.

    Parameters
    ----------
    max_body : int
        Bytes of a request's body, or of a message of a stream.
    max_steps : int
        Time steps of a sequence, or of a message of a stream.
    max_queue : int
        Requests that are read, wait or are computed at a time; further ones are refused with status 503.
    max_streams : int
        Open streams; further ones are closed with code 1013.
    timeout : float
        Seconds in which a body has to come (else 408), in which its result has to be there (else 504), and
        in which a client has to read a part of it.
    idle_timeout : float
        Seconds without a message after which a stream is closed.

    Raises
    ------
    ValueError, TypeError
        If one is not a positive number, or no int where it counts something.
    """

    max_body: int = 4 * 2**20
    max_steps: int = 10_000
    max_queue: int = 256
    max_streams: int = 1000
    timeout: float = 30.0
    idle_timeout: float = 300.0

    def __post_init__(self) -> None:
        """Check each."""
        for name in ("max_body", "max_steps", "max_queue", "max_streams"):
            _checks.positive(name, getattr(self, name))
        for name in ("timeout", "idle_timeout"):
            _checks.above(name, getattr(self, name), 0)

"""Memory that a call allocates."""

import tracemalloc


def peak_of(call):
    """Bytes that call() had allocated at its worst moment, NumPy's arrays included."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()

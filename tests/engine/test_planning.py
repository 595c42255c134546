import numpy as np
import pytest

from cylstm._engine.planning import Arena, Plan


def test_cuts_are_aligned_apart_and_of_the_shapes_asked_for():
    views = Arena().cut({"a": (3, 5), "b": (0, 4), "c": (7,)}, "float32")
    assert {name: view.shape for name, view in views.items()} == {"a": (3, 5), "b": (0, 4), "c": (7,)}
    assert all(view.ctypes.data % 64 == 0 for view in views.values())
    assert not np.shares_memory(views["a"], views["c"])


def test_a_stream_of_shapes_keeps_the_largest_block_only(rng):
    arena = Arena()
    arena.cut({"a": (100, 100)}, "float64")
    for _ in range(1000):
        arena.cut({"a": tuple(rng.integers(0, 100, 2))}, "float64")
    assert arena.allocations == 1


def test_too_much_memory_is_an_error_that_says_how_much():
    with pytest.raises(MemoryError, match=r"cannot allocate .* GiB of buffers"):
        Arena().cut({"a": (2**20, 2**20, 2**19)}, "float64")


@pytest.mark.parametrize("D", [1, 2])
def test_inference_keeps_less_than_training(D):
    def size(training):
        plan = Plan(N=200, B=4, I=3, H=8, L=3, D=D, P=8, G=4, S=2, training=training)
        return sum(np.prod(shape) for shape in plan.shapes().values())

    assert size(training=False) < size(training=True) / 2

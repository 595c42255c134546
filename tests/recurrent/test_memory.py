"""Nothing is allocated after warm-up, and a stream of shapes does not grow."""

import gc
import weakref

import numpy as np
import pytest
from memory import peak_of

import cylstm
from cylstm.layers.base import describe

T, B, I, H = 160, 16, 24, 32
ONE_STEP = B * H * 4  # bytes: the smallest array that could grow with the work


@pytest.fixture(params=[cylstm.LSTM, cylstm.GRU, cylstm.RNN])
def training(request):
    recurrent = request.param(I, H // 2, 2, bidirectional=True, dropout=0.1, seed=0)
    model = cylstm.Sequential(recurrent, cylstm.LSTM(H, H, 2, seed=0), cylstm.Linear(H, H, seed=1)).train()
    loss, adam = cylstm.losses.MSE(), cylstm.optim.Adam()
    x, target = np.ones((T, B, I), np.float32), np.ones((T, B, H), np.float32)
    out = np.empty((T, B, H), np.float32)

    def step():
        y, _ = model(x, out=out)
        _, dy = loss(y, target)
        model.zero_grad()
        model.backward(dy, need_dx=False)
        cylstm.optim.clip_grad_norm(model, 1.0)
        adam.step(model)

    return model, step


def test_a_training_step_allocates_no_buffers(training):
    model, step = training
    step()
    # What remains are the small arrays of the states, which are results, of 4 layers forward and back, and
    # Python's own objects: 52 kB at most, on Python 3.10. A plane of one number a step would be 328 kB.
    assert peak_of(step) < 4 * 4 * ONE_STEP + 40_000 < T * ONE_STEP / 4
    assert [part.arena.allocations for part in describe(model).training_workspace.workspaces] == [1, 1, 1]


def test_inference_allocates_its_result_only():
    layer = cylstm.LSTM(I, H, 2, seed=0)
    x, out = np.ones((T, B, I), np.float32), np.empty((T, B, H), np.float32)
    layer(x, out=out)
    assert peak_of(lambda: layer(x, out=out)) < 2 * 2 * ONE_STEP + 8_000
    assert describe(layer).spare_workspaces[0].arena.allocations == 1


def test_a_stream_of_shapes_keeps_the_memory_of_the_largest(rng):
    layer = cylstm.LSTM(3, 8, seed=0)
    layer(np.zeros((60, 20, 3)))
    layer.train()(np.zeros((60, 20, 3)))
    kept = describe(layer).training_workspace
    for T, B in rng.integers(0, 60, (300, 2)):
        x = np.zeros((T, B % 20, 3))
        y, _ = layer(x)
        layer.backward(y)
    assert describe(layer).training_workspace is kept
    assert kept.arena.allocations == 1
    assert peak_of(lambda: [layer(np.zeros((T, 5, 3))) for T in range(50)]) < 300_000


def test_training_keeps_one_plane_for_each_gate_and_state():
    """(4 gates + h + c) T.B.H numbers a layer, and x and dy: what the design of the buffers promises."""
    T, B, H = 800, 16, 128  # so many rows that scratch for the gradients of 256 of them is little
    layer = cylstm.LSTM(H, H, seed=0).train()
    layer(np.zeros((T, B, H)))
    planes = describe(layer).training_workspace.arena._block.nbytes / (T * B * H * 4)
    assert planes < 4 + 2 + 2 + 0.5


def test_dropped_model_is_freed_without_garbage_collection():
    """Megabytes of parameters and buffers must not wait for it."""
    gc.collect()
    gc.disable()
    try:
        model = cylstm.Sequential(cylstm.LSTM(I, H, 2, seed=0), cylstm.Linear(H, H, seed=1)).train()
        y, _ = model(np.ones((T, B, I)))
        model.backward(y)
        model.eval()(np.ones((T, B, I)))
        gone = [
            weakref.ref(describe(model).store),
            *(weakref.ref(describe(layer).store) for layer in model.layers),
        ]
        del model
        assert [reference() for reference in gone] == [None] * 3
    finally:
        gc.enable()

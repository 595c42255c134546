"""Losses over the steps of a batch, value and gradient in one pass; the softmax of rows.

Arrays are (T, B, ...) in any order in memory. Of sequence b the steps from begin[b] to before end[b] count:
there dy is written, elsewhere nothing is read or written.
"""
from libc.string cimport memset

from cylstm._engine._blas cimport real
from cylstm._engine._kernels cimport kernels_of


cdef extern from "cylstm/softmax.h" nogil:
    int cyl_detect_isa()
    unsigned cyl_flush_subnormals()
    void cyl_restore_subnormals(unsigned kept)
    ctypedef double (*cyl_softmax_function_f32)(float *, const float *, Py_ssize_t, float) noexcept nogil
    ctypedef double (*cyl_softmax_function_f64)(double *, const double *, Py_ssize_t, double) noexcept nogil

cdef extern from "cylstm/elementwise.h" nogil:
    ctypedef double (*cyl_elementwise_function_f32)(
        float *, const float *, const float *, const float *,
        Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, float) noexcept nogil
    ctypedef double (*cyl_elementwise_function_f64)(
        double *, const double *, const double *, const double *,
        Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, double) noexcept nogil

cdef extern from "kernels/kernels.h" nogil:
    ctypedef struct cyl_kernels:
        const cyl_softmax_function_f32 *softmax_f32
        const cyl_softmax_function_f64 *softmax_f64
        const cyl_elementwise_function_f32 (*elementwise_f32)[3]
        const cyl_elementwise_function_f64 (*elementwise_f64)[3]

KINDS = ("square", "absolute", "huber", "pinball", "logistic")  # in the order of cyl_elementwise


def elementwise(str kind, real[:, :, :, :] dy, const real[:, :, :, :] y, const real[:, :, :, :] target,
                const real[:, :] parameter, const Py_ssize_t[::1] begin, const Py_ssize_t[::1] end,
                double scale, int isa):
    """Sum of a loss of y and target (T,B,W,Q), its parameter being (W,Q); dy <- scale times its slope."""
    cdef Py_ssize_t T = y.shape[0], B = y.shape[1], W = y.shape[2], Q = y.shape[3], t, b, q
    cdef Py_ssize_t ld_y = y.strides[2] // sizeof(real), ld_target = target.strides[2] // sizeof(real)
    cdef Py_ssize_t ld_p = parameter.strides[0] // sizeof(real)
    cdef int row = KINDS.index(kind)
    cdef const cyl_kernels *kernels = <const cyl_kernels *>kernels_of(isa)
    cdef double value = 0
    same(T, B, dy.shape[0], dy.shape[1])
    same(T, B, target.shape[0], target.shape[1])
    same(W, Q, dy.shape[2], dy.shape[3])
    same(W, Q, target.shape[2], target.shape[3])
    same(W, Q, parameter.shape[0], parameter.shape[1])
    steps_within(T, B, begin, end)
    if W > 1 and dy.strides[2] != y.strides[2] or not 0 <= isa <= cyl_detect_isa():
        raise ValueError("losses: expected dy laid out as y is, and an instruction set that is here")
    with nogil:
        for t in range(T):
            for b in range(B):
                if begin[b] <= t < end[b]:
                    for q in range(Q):
                        if real is float:
                            value += kernels.elementwise_f32[row][isa](
                                &dy[t, b, 0, q], &y[t, b, 0, q], &target[t, b, 0, q], &parameter[0, q],
                                W, ld_y, ld_target, ld_p, scale)
                        else:
                            value += kernels.elementwise_f64[row][isa](
                                &dy[t, b, 0, q], &y[t, b, 0, q], &target[t, b, 0, q], &parameter[0, q],
                                W, ld_y, ld_target, ld_p, scale)
    return value


cdef double total_weight(const long long[:, :] labels, const Py_ssize_t[::1] begin,
                         const Py_ssize_t[::1] end, const double[::1] weight, bint ignores,
                         long long skip) except -1:
    """Sum of the weights of all labels that count; all labels are checked."""
    cdef Py_ssize_t T = labels.shape[0], B = labels.shape[1], V = weight.shape[0], t, b
    cdef long long label
    cdef double total = 0
    for t in range(T):
        for b in range(B):
            label = labels[t, b]
            if begin[b] <= t < end[b] and not (ignores and label == skip):
                if not 0 <= label < V:
                    raise ValueError(f"target: expected labels from 0 to {V - 1}, got {label}")
                total += weight[label]
    return total


def cross_entropy(real[:, :, :] dy, const real[:, :, :] y, const long long[:, :] labels,
                  const Py_ssize_t[::1] begin, const Py_ssize_t[::1] end, const double[::1] weight, ignored,
                  double smoothing, int isa):
    """Mean of the cross-entropy of softmax(y) over labels, and the sum of their weights; dy <- its gradient.

    A row has the loss -sum_v a_v log p_v, with a_v = weight_v ((1 - smoothing) [v = label] + smoothing / V).
    If the weights sum to 0, value and gradient are those of the sum, which has the smoothing part only; where
    there is none, dy is not written.
    """
    cdef Py_ssize_t T = y.shape[0], B = y.shape[1], V = y.shape[2], t, b, v
    cdef bint ignores = ignored is not None
    cdef long long skip = ignored if ignores else 0, label
    cdef double value = 0, even = smoothing / V, sum_of_even = 0, own, log_sum, total, share, of_classes
    cdef double divisor
    cdef unsigned mode
    same(T, B, dy.shape[0], dy.shape[1])
    same(T, B, labels.shape[0], labels.shape[1])
    steps_within(T, B, begin, end)
    if V > 1:
        same(sizeof(real), sizeof(real), dy.strides[2], y.strides[2])
    if dy.shape[2] != V or weight.shape[0] != V or not 0 <= isa <= cyl_detect_isa():
        raise ValueError("cross_entropy: dy or weight does not fit y, or the instruction set is not here")
    total = total_weight(labels, begin, end, weight, ignores, skip)
    for v in range(V):
        sum_of_even += even * weight[v]
    if total == 0 and sum_of_even == 0:
        return 0.0, 0.0
    divisor = total if total else 1.0
    share = even / divisor
    with nogil:
        mode = cyl_flush_subnormals()
        for t in range(T):
            for b in range(B):
                if not begin[b] <= t < end[b]:
                    continue
                label = labels[t, b]
                if (ignores and label == skip) or not 0 <= label < V:  # in case another thread writes to them
                    memset(&dy[t, b, 0], 0, V * sizeof(real))
                    continue
                own = (1 - smoothing) * weight[label]
                log_sum = softmax(isa, V, &dy[t, b, 0], &y[t, b, 0], <real>((own + sum_of_even) / divisor))
                value += own * (log_sum - y[t, b, label])
                dy[t, b, label] -= <real>(own / divisor)
                if even:
                    of_classes = 0
                    for v in range(V):
                        of_classes += weight[v] * (log_sum - y[t, b, v])
                        dy[t, b, v] -= <real>(share * weight[v])
                    value += even * of_classes
        cyl_restore_subnormals(mode)
    return value / divisor, total


def softmax_rows(real[:, ::1] out, const real[:, ::1] x, int isa):
    """out (N,V) <- softmax of every row of x, with the kernels of one instruction set; out may be x."""
    cdef Py_ssize_t N = x.shape[0], V = x.shape[1], row
    cdef unsigned mode
    if out.shape[0] != N or out.shape[1] != V or not 0 <= isa <= cyl_detect_isa():
        raise ValueError("softmax_rows: out and x differ in shape, or the instruction set is not available")
    with nogil:
        mode = cyl_flush_subnormals()
        for row in range(N if V else 0):
            softmax(isa, V, &out[row, 0], &x[row, 0], <real>1)
        cyl_restore_subnormals(mode)


cdef inline double softmax(int isa, Py_ssize_t n, real *out, const real *x, real scale) noexcept nogil:
    if real is float:
        return (<const cyl_kernels *>kernels_of(isa)).softmax_f32[isa](out, x, n, scale)
    else:
        return (<const cyl_kernels *>kernels_of(isa)).softmax_f64[isa](out, x, n, scale)


cdef int same(Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t got_rows, Py_ssize_t got_columns) except -1:
    if got_rows != rows or got_columns != columns:
        raise ValueError(f"losses: expected sizes {rows}, {columns}, got {got_rows}, {got_columns}")
    return 0


cdef int steps_within(
    Py_ssize_t T, Py_ssize_t B, const Py_ssize_t[::1] begin, const Py_ssize_t[::1] end
) except -1:
    cdef Py_ssize_t b
    same(B, B, begin.shape[0], end.shape[0])
    for b in range(B):
        if begin[b] < 0 or end[b] > T:
            raise ValueError(f"losses: expected steps from 0 to {T}, got {begin[b]} to {end[b]}")
    return 0

"""The dense layer y = x W^T + b over rows: N rows, I inputs, O outputs, all row-major."""
from libc.string cimport memcpy

from cylstm._engine._blas cimport NO, YES, add_column_sums, gemm, real, require


def forward(real[:, ::1] y, const real[:, ::1] x, const real[:, ::1] w, const real[::1] b):
    """y (N,O) <- x (N,I) W^T + b; b may be empty (no bias)."""
    cdef Py_ssize_t N = x.shape[0], I = x.shape[1], O = w.shape[0], row
    if y.shape[0] != N or y.shape[1] != O or w.shape[1] != I or b.shape[0] not in (0, O):
        raise ValueError("dense forward: shapes of y, x, w and b do not fit together")
    require(max(N, I, O))
    if N == 0:
        return
    with nogil:
        if b.shape[0]:
            for row in range(N):
                memcpy(&y[row, 0], &b[0], O * sizeof(real))
        # y = b + W x for every row
        # y (N, O) += x (N, I) . W^T (I, O)
        gemm[real](NO, YES, N, O, I, &x[0, 0], I, &w[0, 0], I, 1 if b.shape[0] else 0, &y[0, 0], O)


def backward(real[:, ::1] dw, real[::1] db, real[:, ::1] dx, const real[:, ::1] dy,
             const real[:, ::1] x, const real[:, ::1] w):
    """dw += dy^T x, db += column sums of dy, dx <- dy W; db and dx may be empty (not needed)."""
    cdef Py_ssize_t N = x.shape[0], I = x.shape[1], O = w.shape[0]
    if (dy.shape[0] != N or dy.shape[1] != O or w.shape[1] != I or dw.shape[0] != O
            or dw.shape[1] != I or db.shape[0] not in (0, O) or dx.shape[0] not in (0, N)
            or (dx.shape[0] and dx.shape[1] != I)):
        raise ValueError("dense backward: shapes of dw, db, dx, dy, x and w do not fit together")
    require(max(N, I, O))
    if N == 0:
        return
    with nogil:
        # dL/dW = sum over rows of dy x^T
        # dw (O, I) += dy^T (O, N) . x (N, I)
        gemm[real](YES, NO, O, I, N, &dy[0, 0], O, &x[0, 0], I, 1, &dw[0, 0], I)
        if db.shape[0]:
            add_column_sums[real](N, O, &dy[0, 0], O, &db[0])
        if dx.shape[0]:
            # dL/dx = W^T dy for every row
            # dx (N, I) = dy (N, O) . W (O, I)
            gemm[real](NO, NO, N, I, O, &dy[0, 0], O, &w[0, 0], I, 0, &dx[0, 0], I)

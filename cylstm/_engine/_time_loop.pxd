# One layer's pass in one direction, and the loops over its steps: see _time_loop.pyx.

from cylstm._engine._blas cimport real

# Everything one pass needs; the pointers are to float or double, as `LayerPass` says. P is the width of h: H,
# or that of the projection. What an option needs is NULL without it.
cdef struct Pass:
    int cell, isa
    bint trains
    double clip             # of gates; infinity: none
    double zoneout_h, zoneout_c
    Py_ssize_t T, B, N, I, H, P
    const Py_ssize_t *rows  # (T)        descending
    const void *w_ih        # (G.H, I)
    const void *w_hh        # (G.H, P)
    const void *b_ih        # (G.H)
    const void *b_hh        # (G.H)
    const void *cell_parameters         # (K, H)     cell parameters (peepholes, norms), or NULL
    const void *w_hr        # (P, H)     projection
    const void *x           # (N, I)
    void *gates             # (N, G.H)   forward: the gates; backward: dL/d(what x's product is added to)
    void *extra             # (N, E.H)   or (B, E.H) in inference, or NULL: the cell has none
    void *h                 # (B+N, P)
    void *c                 # (B+N, H)   or (2, B, H) in inference, or NULL
    void *m                 # (N, H)     h before its projection; (B, H) in inference
    void *h_masked          # (N, P)     h_{t-1} as the products read it
    const void *mask_h      # (B, P)     recurrent dropout
    const void *zone_h      # (N, P)     zoneout in training; without it, the mean over masks
    const void *zone_c      # (N, H)
    void *dy                # (N, P)     dL/dy; with a projection then dL/d(its result); dx may overwrite it
    void *dh                # (B, P)     in: dL/d(last h); out: dL/dh_0
    void *dc                # (B, H)     likewise, or NULL
    void *dextra            # (B, H)     scratch, or NULL
    void *dm                # (B, H)     scratch of the projection
    void *dh_masked         # (B, P)     scratch of recurrent dropout
    void *dh_retained           # (B, P)     scratch of zoneout
    void *dc_retained           # (B, H)     likewise
    void *dh_steps          # (N, P)     out: dL/dh_t of every step, or NULL: not needed
    void *dx                # (N, I)     or NULL: not needed
    void *dw_ih             # gradients are added to
    void *dw_hh
    void *d_cell_parameters
    void *dw_hr
    void *sums              # (G.H)      scratch
    void *db_ih             # or NULL: no bias
    void *db_hh

cdef void forward(const Pass *p, real _) noexcept nogil
cdef void backward(const Pass *p, real _) noexcept nogil

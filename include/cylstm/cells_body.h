/* Arguments of a cell's functions for one real type; see cells.h. */
typedef struct {
    ptrdiff_t B, H; /* rows, units */
    ptrdiff_t gate,
        plane; /* distances: of gates, and planes of extra; of the gates' biases, and rows of cell_parameters */
    ptrdiff_t ld_gates, ld_extra, ld_h, ld_c; /* distances of rows; ld_h of h_prev too, ld_c of c_prev */
    CYL_REAL clip;                            /* bound of every gate's pre-activation; infinity: none */
    CYL_REAL *gates;                          /* (B, G H) in: products of x and h_prev; out: the gates */
    CYL_REAL *extra;                 /* (B, E H) the extra planes of the cell, or NULL; in or out as its products say */
    CYL_REAL *h;                     /* (B, H) out */
    CYL_REAL *c;                     /* (B, H) out, or NULL */
    const CYL_REAL *h_prev;          /* (B, H) in; not for a cell that may be projected, whose h is of another width */
    const CYL_REAL *c_prev;          /* (B, H) in, or NULL */
    const CYL_REAL *b_ih;            /* (G H) in */
    const CYL_REAL *b_hh;            /* (G H) in */
    const CYL_REAL *cell_parameters; /* (K, H) in: parameters that no product reads, or NULL */
} CYL_TYPED(cyl_forward);

typedef struct {
    ptrdiff_t B, H, gate, plane, ld_gates, ld_extra, ld_h, ld_c; /* as above */
    ptrdiff_t ld_d;                                              /* distance of rows of dh, dc and dextra */
    CYL_REAL clip;
    CYL_REAL *gates;                 /* (B, G H) in: the gates; out: dL/d(what the product of x is added to) */
    CYL_REAL *extra;                 /* (B, E H) in: as forward left it; out: dL/d(a product put there) */
    CYL_REAL *dh;                    /* (B, H) in: dL/dh_t; out: the part of dL/dh_{t-1} that passes no product */
    CYL_REAL *dc;                    /* (B, H) in: dL/dc_t from step t+1; out: dL/dc_{t-1}; or NULL */
    CYL_REAL *dextra;                /* (B, H) in: dL/d(extra) from a product that reads it; then scratch; or NULL */
    const CYL_REAL *h_prev;          /* (B, H) in, as above */
    const CYL_REAL *c_prev;          /* (B, H) in, or NULL */
    const CYL_REAL *cell_parameters; /* (K, H) in, or NULL */
    CYL_REAL *d_cell_parameters;     /* (K, H) added to, or NULL */
} CYL_TYPED(cyl_backward);

typedef void (*CYL_TYPED(cyl_forward_step))(const CYL_TYPED(cyl_forward) *);
typedef void (*CYL_TYPED(cyl_backward_step))(const CYL_TYPED(cyl_backward) *);

/* The functions of a cell by stage and instruction set. */
typedef struct {
    CYL_TYPED(cyl_forward_step) forward[CYL_MAX_STAGES][CYL_ISA_COUNT];
    CYL_TYPED(cyl_backward_step) backward[CYL_MAX_STAGES][CYL_ISA_COUNT];
} CYL_TYPED(cyl_cell);

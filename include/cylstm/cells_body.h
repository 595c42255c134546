/* Arguments of a cell's two functions for one real type; see cells.h. */
typedef struct {
    ptrdiff_t B, H;
    CYL_REAL *gates;        /* (B, G H) in: x W_ih^T + h_prev W_hh^T; out: the gates */
    CYL_REAL *h;            /* (B, H) out */
    CYL_REAL *c;            /* (B, H) out */
    const CYL_REAL *c_prev; /* (B, H) in */
    const CYL_REAL *bias;   /* (G H) in: b_ih + b_hh */
} CYL_TYPED(cyl_forward);

typedef struct {
    ptrdiff_t B, H;
    CYL_REAL *gates;        /* (B, G H) in: the gates; out: dL/d(pre-activations) */
    CYL_REAL *dc;           /* (B, H) in: dL/dc_t from step t+1; out: dL/dc_{t-1} */
    const CYL_REAL *dh;     /* (B, H) in: dL/dh_t, all of it */
    const CYL_REAL *c;      /* (B, H) in */
    const CYL_REAL *c_prev; /* (B, H) in */
} CYL_TYPED(cyl_backward);

typedef struct {
    void (*forward[CYL_ISA_COUNT])(const CYL_TYPED(cyl_forward) *);
    void (*backward[CYL_ISA_COUNT])(const CYL_TYPED(cyl_backward) *);
} CYL_TYPED(cyl_cell);

/* Runs every kernel over guarded buffers; built by test_c_headers.py with sanitizers, as C99 and as C++. */
#include "cylstm/cells.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* A plane of n reals with a guard cell on each side, filled with small numbers. */
#define GUARD 12345.0
static double *plane64(size_t n) {
    double *p = (double *)malloc((n + 2) * sizeof(double));
    size_t j;
    for (j = 0; j < n; j++) p[j + 1] = 0.1 * (double)((j * 7) % 13) - 0.6;
    p[0] = p[n + 1] = GUARD;
    return p + 1;
}
static float *plane32(size_t n) {
    float *p = (float *)malloc((n + 2) * sizeof(float));
    size_t j;
    for (j = 0; j < n; j++) p[j + 1] = 0.1f * (float)((j * 7) % 13) - 0.6f;
    p[0] = p[n + 1] = (float)GUARD;
    return p + 1;
}
static int faults = 0;
#define CHECK_AND_FREE(p, n)                                     \
    do {                                                         \
        if ((p)[-1] != GUARD || (p)[n] != GUARD) faults++;       \
        for (size_t j_ = 0; j_ < (n); j_++) faults += !isfinite((p)[j_]); \
        free((p) - 1);                                           \
    } while (0)

#define RUN(real, type, plane)                                                                \
    static void run_##type(int cell, int isa, size_t B, size_t H, size_t overrun) {           \
        real *gates = plane(B * 4 * H), *h = plane(B * H), *c = plane(B * H);                 \
        real *c_prev = plane(B * H), *bias = plane(4 * H), *dh = plane(B * H), *dc = plane(B * H); \
        cyl_forward_##type f;                                                                 \
        cyl_backward_##type b;                                                                \
        f.B = b.B = (ptrdiff_t)B;                                                             \
        f.H = b.H = (ptrdiff_t)(H + overrun);                                                 \
        f.gates = b.gates = gates;                                                            \
        f.h = h;                                                                              \
        f.c = c;                                                                              \
        f.c_prev = c_prev;                                                                    \
        f.bias = bias;                                                                        \
        b.dc = dc;                                                                            \
        b.dh = dh;                                                                            \
        b.c = c;                                                                              \
        b.c_prev = c_prev;                                                                    \
        cyl_cells_##type[cell].forward[isa](&f);                                              \
        cyl_cells_##type[cell].backward[isa](&b);                                             \
        CHECK_AND_FREE(gates, B * 4 * H);                                                     \
        CHECK_AND_FREE(h, B * H);                                                             \
        CHECK_AND_FREE(c, B * H);                                                             \
        CHECK_AND_FREE(c_prev, B * H);                                                        \
        CHECK_AND_FREE(bias, 4 * H);                                                          \
        CHECK_AND_FREE(dh, B * H);                                                            \
        CHECK_AND_FREE(dc, B * H);                                                            \
    }
RUN(float, f32, plane32)
RUN(double, f64, plane64)

/* With an argument, every kernel is told of one unit more than there is: a planted defect. */
int main(int argc, char **argv) {
    const size_t widths[] = {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33};
    const size_t overrun = argc > 1 ? 1 : 0;
    int cell, isa;
    size_t w, B;
    (void)argv;
    for (isa = 0; isa <= cyl_detect_isa(); isa++) {
        for (w = 0; w < sizeof widths / sizeof *widths; w++) {
            for (B = 0; B < 4; B++) {
                for (cell = 0; cell < CYL_CELL_COUNT; cell++) {
                    run_f32(cell, isa, B, widths[w], overrun);
                    run_f64(cell, isa, B, widths[w], overrun);
                }
            }
            {
                double *x = plane64(widths[w]), *y = plane64(widths[w]);
                float *u = plane32(widths[w]), *v = plane32(widths[w]);
                int a;
                for (a = 0; a < CYL_ACTIVATION_COUNT; a++) {
                    cyl_activations_f64[a][isa](y, x, (ptrdiff_t)(widths[w] + overrun));
                    cyl_activations_f32[a][isa](v, u, (ptrdiff_t)(widths[w] + overrun));
                }
                CHECK_AND_FREE(x, widths[w]);
                CHECK_AND_FREE(y, widths[w]);
                CHECK_AND_FREE(u, widths[w]);
                CHECK_AND_FREE(v, widths[w]);
            }
        }
    }
    printf("%d faults\n", faults);
    return faults != 0;
}

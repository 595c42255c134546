/* Runs every kernel over guarded buffers; built by test_c_headers.py with sanitizers, as C99 and as C++. */
#include "cylstm/cells.h"
#include "cylstm/elementwise.h"
#include "cylstm/softmax.h"

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
#define CHECK_AND_FREE(p, n)                                              \
    do {                                                                  \
        if ((p)[-1] != GUARD || (p)[n] != GUARD) faults++;                \
        for (size_t j_ = 0; j_ < (n); j_++) faults += !isfinite((p)[j_]); \
        free((p) - 1);                                                    \
    } while (0)

#define W(planes) ((ptrdiff_t)(planes) * units)
#define RUN(real, type, plane)                                                                                         \
    static void run_##type(int cell, int isa, size_t B, size_t H, size_t overrun, real clip) {                         \
        const size_t G = (size_t)cyl_cell_shapes[cell].gates;                                                          \
        const size_t E = (size_t)cyl_cell_shapes[cell].extra, K = (size_t)cyl_cell_shapes[cell].cell_parameters;       \
        real *gates = plane(B * G * H), *extra = plane(B * E * H), *h = plane(B * H);                                  \
        real *cell_parameters = plane(K * H), *d_cell_parameters = plane(K * H);                                       \
        real *c = plane(B * H), *h_prev = plane(B * H), *c_prev = plane(B * H);                                        \
        real *b_ih = plane(G * H), *b_hh = plane(G * H);                                                               \
        real *dh = plane(B * H), *dc = plane(B * H), *dextra = plane(B * H);                                           \
        const ptrdiff_t rows = (ptrdiff_t)B, units = (ptrdiff_t)(H + overrun);                                         \
        const cyl_forward_##type f = {rows, units, units, units, W(G), W(E), units, units, clip, gates, extra, h, c,   \
            h_prev, c_prev, b_ih, b_hh, K ? cell_parameters : NULL};                                                   \
        const cyl_backward_##type b = {rows, units, units, units, W(G), W(E), units, units, units, clip, gates, extra, \
            dh, dc, dextra, h_prev, c_prev, K ? cell_parameters : NULL, K ? d_cell_parameters : NULL};                 \
        int stage;                                                                                                     \
        for (stage = 0; stage < cyl_cell_shapes[cell].stages; stage++) cyl_cells_##type[cell].forward[stage][isa](&f); \
        for (stage--; stage >= 0; stage--) cyl_cells_##type[cell].backward[stage][isa](&b);                            \
        CHECK_AND_FREE(gates, B * G * H);                                                                              \
        CHECK_AND_FREE(extra, B * E * H);                                                                              \
        CHECK_AND_FREE(cell_parameters, K * H);                                                                        \
        CHECK_AND_FREE(d_cell_parameters, K * H);                                                                      \
        CHECK_AND_FREE(h, B * H);                                                                                      \
        CHECK_AND_FREE(c, B * H);                                                                                      \
        CHECK_AND_FREE(h_prev, B * H);                                                                                 \
        CHECK_AND_FREE(c_prev, B * H);                                                                                 \
        CHECK_AND_FREE(b_ih, G * H);                                                                                   \
        CHECK_AND_FREE(b_hh, G * H);                                                                                   \
        CHECK_AND_FREE(dh, B * H);                                                                                     \
        CHECK_AND_FREE(dc, B * H);                                                                                     \
        CHECK_AND_FREE(dextra, B * H);                                                                                 \
    }
RUN(float, f32, plane32)
RUN(double, f64, plane64)

/* Planted defects. "overrun": kernels are told of one number more than there is. "misaligned": one gets an address between two. */
int main(int argc, char **argv) {
    const char *planted = argc > 1 ? argv[1] : "";
    const size_t widths[] = {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33};
    const size_t overrun = !strcmp(planted, "overrun");
    int cell, isa;
    size_t w, B;
    if (!strcmp(planted, "misaligned")) {
        char *numbers = (char *)plane32(9);
        cyl_activations_f32[CYL_TANH][CYL_SCALAR]((float *)(void *)(numbers + 1), (float *)(void *)numbers, 8);
    }
    for (isa = 0; isa <= cyl_detect_isa(); isa++) {
        for (w = 0; w < sizeof widths / sizeof *widths; w++) {
            for (B = 0; B < 4; B++) {
                for (cell = 0; cell < CYL_CELL_COUNT; cell++) {
                    run_f32(cell, isa, B, widths[w], overrun, (float)INFINITY);
                    run_f64(cell, isa, B, widths[w], overrun, 0.3);
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
                faults += !isfinite(cyl_softmax_f64[isa](y, x, (ptrdiff_t)(widths[w] + overrun), 2));
                faults += !isfinite(cyl_softmax_f32[isa](v, u, (ptrdiff_t)(widths[w] + overrun), 2));
                for (a = 0; a < CYL_ELEMENTWISE_COUNT; a++) {
                    const ptrdiff_t n = (ptrdiff_t)(widths[w] + overrun);
                    faults += !isfinite(cyl_elementwise_f64[a][isa](y, x, x, x, n, 1, 1, 0, 2));
                    faults += !isfinite(cyl_elementwise_f32[a][isa](v, u, u, u, n, 1, 1, 0, 2));
                    faults += !isfinite(cyl_elementwise_f64[a][isa](y, x, x, x, (n + 1) / 2, 2, 1, 1, 2));
                    faults += !isfinite(cyl_elementwise_f32[a][isa](v, u, u, u, (n + 1) / 2, 2, 1, 1, 2));
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

/* The packed pass over buffers of just the size that it may touch, alone and by several threads.
 * Built by test_c_headers.py with sanitizers for addresses and for threads; REAL and its name are given there.
 */
#include "cylstm/dense.h"
#include "cylstm/pass.h"
#include "thread_pool.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define PASTE2(a, b) a##_##b
#define PASTE(a, b) PASTE2(a, b)
#define TYPED(name) PASTE(name, TYPE)

static unsigned seed = 1;
static REAL draw(void) {
    seed = seed * 1664525u + 1013904223u;
    return (REAL)((double)(seed >> 8) / (1 << 23) - 1) * (REAL)0.5;
}

/* Memory of n numbers and not one more; kept in a list to be compared and freed. */
static REAL *kept[64];
static size_t sizes[64];
static int count;
static REAL *numbers(ptrdiff_t n) {
    REAL *p = (REAL *)malloc((size_t)n * sizeof(REAL) + (n == 0));
    for (ptrdiff_t j = 0; j < n; j++) p[j] = draw();
    kept[count] = p;
    sizes[count++] = (size_t)n;
    return p;
}
/* The same, (rows, width) with zeros beyond `used` columns. */
static REAL *padded(ptrdiff_t rows, ptrdiff_t width, ptrdiff_t used) {
    REAL *p = numbers(rows * width);
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t j = used; j < width; j++) p[r * width + j] = 0;
    return p;
}

static REAL *packed_rows(ptrdiff_t G, ptrdiff_t units, ptrdiff_t K, ptrdiff_t panel) {
    const ptrdiff_t panels = cyl_tiles(units, panel);
    REAL *w = numbers(G * units * K), *out = numbers(panels * G * K * panel);
    for (ptrdiff_t g = 0; g < G; g++)
        TYPED(cyl_pack_rows)(out + g * K * panel, G * K * panel, panel, w + g * units * K, units, K);
    return out;
}
static REAL *packed_columns(ptrdiff_t G, ptrdiff_t K, ptrdiff_t columns, ptrdiff_t K_padded, ptrdiff_t panel) {
    const ptrdiff_t panels = cyl_tiles(columns, panel);
    REAL *w = numbers(G * K * columns), *out = numbers(panels * G * K_padded * panel);
    for (ptrdiff_t g = 0; g < G; g++)
        TYPED(cyl_pack_columns)(
            out + g * K_padded * panel, G * K_padded * panel, panel, w + g * K * columns, K, columns, K_padded);
    return out;
}

typedef struct {
    int cell, isa, projects, options, trains;
    ptrdiff_t T, B, I, H;
    int again; /* whether backward computes the states again */
} problem;

static cyl_pass planned(const problem *q, const ptrdiff_t *rows) {
    const cyl_cell_shape *cell = &cyl_cell_shapes[q->cell];
    const ptrdiff_t panel = cyl_panel(q->isa, sizeof(REAL)), G = cell->gates;
    const ptrdiff_t T = q->T, B = q->B, I = q->I, H = q->H, P = q->projects ? (H + 1) / 2 : H;
    const ptrdiff_t Hp = cyl_tiles(H, panel) * panel, Pp = cyl_tiles(P, panel) * panel;
    cyl_pass p;
    memset(&p, 0, sizeof p);
    for (ptrdiff_t t = 0; t < T; t++) p.N += rows[t];
    const ptrdiff_t N = p.N, once = q->trains ? N : B;
    p.cell = q->cell, p.trains = q->trains, p.rows = rows;
    p.T = T, p.B = B, p.I = I, p.H = H, p.P = P, p.Hp = Hp, p.Pp = Pp;
    p.clip = q->options ? 0.4 : INFINITY;
    p.ld_gates = G * Hp + 32;
    p.rows_of_gates = q->trains ? N : B > CYL_ROWS_AHEAD ? B : CYL_ROWS_AHEAD;
    p.w_ih = packed_rows(G, H, I, panel);
    p.w_hh = packed_rows(G, H, P, panel);
    p.b_ih = padded(G, Hp, H), p.b_hh = padded(G, Hp, H);
    p.x = numbers(N * I);
    p.gates = numbers(p.rows_of_gates * p.ld_gates);
    p.h = padded(B + N, Pp, P);
    if (cell->states == 2) p.c = padded(q->trains && !q->again ? B + N : 2 * B, Hp, H);
    if (q->again) {
        p.h_checkpoint = padded(B, Hp, H), p.c_checkpoints = padded(cyl_tiles(T, CYL_SEGMENT) * B, Hp, H);
        p.h_recomputed = padded(2 * CYL_SEGMENT * B, Hp, H), p.c_recomputed = padded(2 * CYL_SEGMENT * B, Hp, H);
    }
    p.ld_extra = cell->extra * Hp;
    if (cell->extra) p.extra = padded(once, p.ld_extra, 0);
    if (cell->cell_parameters) p.cell_parameters = padded(cell->cell_parameters, Hp, H);
    if (q->projects) p.w_hr = packed_rows(1, P, H, panel), p.m = padded(once, Hp, H);
    if (q->options) {
        p.mask_h = numbers(B * P), p.h_masked = padded(N, Pp, P);
        p.zoneout_h = 0.2, p.zone_h = numbers(N * P);
        if (cell->states == 2) p.zoneout_c = 0.3, p.zone_c = numbers(N * H);
    }
    if (!q->trains) return p;
    p.w_hh_t = packed_columns(G, H, P, Hp, panel);
    p.w_ih_t = packed_columns(G, H, I, Hp, panel);
    p.dy = numbers(N * P);
    p.dh = padded(B, Pp, P);
    if (cell->states == 2) p.dc = padded(B, Hp, H);
    if (cell->extra) p.dextra = padded(B, Hp, H);
    if (cell->cell_parameters) p.d_cell_parameters = padded(cell->cell_parameters, Hp, H);
    if (q->projects) p.w_hr_t = packed_columns(1, P, H, P, panel), p.dm = padded(B, Hp, H), p.dw_hr = numbers(P * H);
    if (q->options) p.dh_masked = padded(B, Pp, P), p.dh_retained = numbers(B * P), p.dc_retained = numbers(B * H);
    if (!q->again) p.dx = numbers(N * I); /* without it parts meet once less */
    p.dw_ih = numbers(G * H * I), p.dw_hh = numbers(G * H * P);
    p.db_ih = numbers(G * H), p.db_hh = numbers(G * H);
    p.strips = numbers(cyl_strips(q->cell, cyl_tile(q->isa), H, P));
    return p;
}

typedef struct {
    cyl_pass_function function;
    const cyl_pass *p;
    cyl_part parts[CYL_MAX_PARTS];
    cyl_barrier_slot barrier_slots[2 * CYL_MAX_PARTS];
} job;
static void run_part(void *argument, int index) {
    job *j = (job *)argument;
    j->function(j->p, &j->parts[index]);
}

/* Forward and back by at most `threads`; the divisions are those of large calls, whatever the sizes. */
static int members_seen;
static void run(const problem *q, const ptrdiff_t *rows, int threads) {
    const cyl_pass_functions *functions = &TYPED(cyl_passes);
    const ptrdiff_t panel = cyl_panel(q->isa, sizeof(REAL)), tile = cyl_tile(q->isa);
    cyl_pass p = planned(q, rows);
    for (int back = 0; back <= q->trains; back++) {
        job j;
        j.p = &p;
        j.function = back ? functions->backward[q->isa] : functions->forward[q->isa];
        int n = cyl_divide(&p, threads, panel, tile, sizeof(REAL), back, j.parts, j.barrier_slots);
        const int taken = cyl_acquire_pool(n);
        if (taken < n) n = cyl_divide(&p, taken, panel, tile, sizeof(REAL), back, j.parts, j.barrier_slots);
        if (n > members_seen) members_seen = n;
        if (taken == 1) {
            run_part(&j, 0);
        } else {
            cyl_run_in_pool(run_part, &j, n);
            cyl_release_pool();
        }
    }
}

/* Whether several threads leave the bits that one leaves; scratch, which is last, is not looked at. */
static int differ(const problem *q, int threads) {
    REAL *alone[64];
    ptrdiff_t rows[64];
    int wrong = 0, before, looked;
    for (ptrdiff_t t = 0; t < q->T; t++) rows[t] = 1 + (q->B - 1) * (q->T - t) / q->T;
    seed = 7;
    count = 0;
    run(q, rows, 1);
    before = count;
    memcpy(alone, kept, sizeof alone);
    seed = 7;
    count = 0;
    run(q, rows, threads);
    looked = q->trains ? count - 1 : 0;
    for (int k = 0; k < looked; k++) wrong += memcmp(alone[k], kept[k], sizes[k] * sizeof(REAL)) != 0;
    for (int k = 0; k < before; k++) free(alone[k]), free(kept[k]);
    return wrong;
}

static int dense(int isa, ptrdiff_t rows, ptrdiff_t I, ptrdiff_t O) {
    const ptrdiff_t panel = cyl_panel(isa, sizeof(REAL));
    count = 0;
    REAL *w = packed_rows(1, O, I, panel), *x = numbers(rows * I), *y = numbers(rows * O), *b = numbers(O);
    const REAL *plain = kept[0];
    int wrong = 0;
    TYPED(cyl_dense)[isa](y, x, w, b, rows, I, O, I, 0, O);
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t o = 0; o < O; o++) {
            double sum = (double)b[o];
            for (ptrdiff_t i = 0; i < I; i++) sum += (double)x[r * I + i] * (double)plain[o * I + i];
            wrong += !(fabs(sum - (double)y[r * O + o]) < 1e-4);
        }
    for (int k = 0; k < count; k++) free(kept[k]);
    return wrong;
}

typedef struct {
    int isa, count;
    const cyl_dense_gradients *gradients;
    cyl_barrier_slot barrier_slots[CYL_MAX_PARTS];
} dense_job;
static void run_dense_part(void *argument, int index) {
    dense_job *j = (dense_job *)argument;
    TYPED(cyl_dense_back)[j->isa](j->gradients, index, j->count, j->count > 1 ? j->barrier_slots : NULL);
}

/* Back through the dense layer, dx in the place of x, by `threads`, however little there is to do. */
static int dense_back(int isa, ptrdiff_t rows, ptrdiff_t I, ptrdiff_t O, int threads) {
    const ptrdiff_t panel = cyl_panel(isa, sizeof(REAL));
    count = 0;
    REAL *w_t = packed_columns(1, O, I, O, panel), *x = numbers(rows * I), *dy = numbers(rows * O);
    REAL *dw = numbers(O * I), *db = numbers(O), *before = numbers(rows * I + O * I + O);
    const REAL *w = kept[0], *x0 = before, *dw0 = before + rows * I, *db0 = dw0 + O * I;
    memcpy(before, x, (size_t)(rows * I) * sizeof(REAL));
    memcpy(before + rows * I, dw, (size_t)(O * I) * sizeof(REAL));
    memcpy(before + rows * I + O * I, db, (size_t)O * sizeof(REAL));
    REAL *strips = numbers(threads * cyl_dense_strips(O, cyl_tile(isa), sizeof(REAL)));
    const cyl_dense_gradients gradients = {rows, I, O, x, dy, w_t, dw, db, x, strips};
    dense_job j;
    memset(&j, 0, sizeof j);
    j.isa = isa, j.gradients = &gradients, j.count = cyl_acquire_pool(threads);
    if (j.count == 1) {
        run_dense_part(&j, 0);
    } else {
        cyl_run_in_pool(run_dense_part, &j, j.count);
        cyl_release_pool();
    }
    int wrong = 0;
    for (ptrdiff_t o = 0; o < O; o++)
        for (ptrdiff_t i = -1; i < I; i++) { /* -1: db */
            double sum = (double)(i < 0 ? db0[o] : dw0[o * I + i]);
            for (ptrdiff_t r = 0; r < rows; r++) sum += (double)dy[r * O + o] * (i < 0 ? 1 : (double)x0[r * I + i]);
            wrong += !(fabs(sum - (double)(i < 0 ? db[o] : dw[o * I + i])) < 1e-4);
        }
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t i = 0; i < I; i++) {
            double sum = 0;
            for (ptrdiff_t o = 0; o < O; o++) sum += (double)dy[r * O + o] * (double)w[o * I + i];
            wrong += !(fabs(sum - (double)x[r * I + i]) < 1e-4);
        }
    for (int k = 0; k < count; k++) free(kept[k]);
    return wrong;
}

/* How many problems go wrong; `alone`: only small ones, of one thread, for a processor that is emulated. */
static int sweep(int alone) {
    const ptrdiff_t small[][3] = {{1, 1, 1}, {3, 2, 5}, {17, 7, 33}, {2, 40, 16}};
    int faults = 0;
    for (int isa = 0; isa <= cyl_detect_isa(); isa++)
        for (int cell = 0; cell < CYL_CELL_COUNT; cell++)
            for (int k = 0; k < 8; k++) {
                const int two = cyl_cell_shapes[cell].states == 2;
                problem q = {
                    cell, isa, two && k % 2, k / 4, 1, 4, small[k % 4][0], small[k % 4][1], small[k % 4][2], 0};
                const int follows = two && !cyl_cell_shapes[cell].extra && k % 2 == 0;
                faults += differ(&q, 1);
                q.trains = 0, q.options = 0;
                faults += differ(&q, 1);
                problem spans = q;
                spans.trains = spans.again = 1, spans.T = 2 * CYL_SEGMENT + k;
                if (follows && k < 4) faults += differ(&spans, 1);
                if (k > 2 || isa < cyl_detect_isa() || alone) continue;
                problem large = {cell, isa, two && k == 1, 0, 1, 60, k == 2 ? 30 : 5, 20, 90, 0};
                faults += differ(&large, 3);
                large.again = follows;
                if (follows) faults += differ(&large, 3);
                large.again = large.trains = 0;
                faults += differ(&large, 1);
            }
    for (int isa = 0; isa <= cyl_detect_isa(); isa++)
        for (ptrdiff_t n = 1; n < 40; n += 3) {
            faults += dense(isa, n, (n * 7) % 13 + 1, n * 3);
            faults += dense_back(isa, n * 15, (n * 7) % 41 + 1, n * 3, alone ? 1 : (int)n % 4 + 1);
        }
    return faults + (members_seen < 3 && !alone);
}

/* Nothing or "alone": the sweep. A planted defect: "overrun", a step more than there is memory for; "race", two parts
 * have the same units. */
int main(int argc, char **argv) {
    const char *planted = argc > 1 ? argv[1] : "";
    const int alone = !strcmp(planted, "alone"), faults = alone || !*planted ? sweep(alone) : 0;
    if (!strcmp(planted, "overrun")) {
        problem q = {CYL_LSTM, cyl_detect_isa(), 0, 0, 1, 4, 3, 5, 9, 0};
        ptrdiff_t rows[4] = {3, 3, 2, 1};
        cyl_part part;
        cyl_barrier_slot barrier_slots[2];
        count = 0;
        cyl_pass p = planned(&q, rows);
        cyl_divide(&p, 1, cyl_panel(q.isa, sizeof(REAL)), cyl_tile(q.isa), sizeof(REAL), 0, &part, barrier_slots);
        p.N++, p.T++;
        ptrdiff_t more[5] = {3, 3, 2, 1, 1};
        p.rows = more;
        TYPED(cyl_passes).forward[q.isa](&p, &part);
    }
    if (!strcmp(planted, "race")) {
        problem q = {CYL_LSTM, cyl_detect_isa(), 0, 0, 1, 12, 5, 20, 90, 0};
        ptrdiff_t rows[12];
        job j;
        for (int t = 0; t < 12; t++) rows[t] = 5;
        q.T = 12;
        count = 0;
        cyl_pass p = planned(&q, rows);
        cyl_divide(&p, 1, cyl_panel(q.isa, sizeof(REAL)), cyl_tile(q.isa), sizeof(REAL), 0, j.parts, j.barrier_slots);
        j.p = &p, j.function = TYPED(cyl_passes).forward[q.isa];
        j.parts[1] = j.parts[0];
        if (cyl_acquire_pool(2) == 2) {
            cyl_run_in_pool(run_part, &j, 2);
            cyl_release_pool();
        }
    }
    printf("%d faults\n", faults);
    return faults != 0;
}

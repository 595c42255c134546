/* Packing and running the layers of a model for one real type; see cylstm.h. */

/* w (blocks units, K) in panels. */
static inline void CYL_TYPED(cyl_pack_blocks)(
    void *out, const void *w, ptrdiff_t panel, ptrdiff_t blocks, ptrdiff_t units, ptrdiff_t K) {
    for (ptrdiff_t g = 0; g < blocks; g++)
        CYL_TYPED(cyl_pack_rows)(
            (CYL_REAL *)out + g * K * panel, blocks * K * panel, panel, (const CYL_REAL *)w + g * units * K, units, K);
}

/* planes (count, H), NULL for zeros, padded to Hp. */
static inline void
CYL_TYPED(cyl_pad_planes)(void *out, const void *planes, ptrdiff_t count, ptrdiff_t H, ptrdiff_t Hp) {
    memset(out, 0, (size_t)(count * Hp) * sizeof(CYL_REAL));
    for (ptrdiff_t k = 0; k < count && planes; k++)
        memcpy((CYL_REAL *)out + k * Hp, (const CYL_REAL *)planes + k * H, (size_t)H * sizeof(CYL_REAL));
}

static inline void CYL_TYPED(cyl_pack_stack)(const cyl_model *m, const cyl_layer *layer, const cyl_ready *ready) {
    const cyl_cell_shape *cell = &cyl_cell_shapes[layer->cell];
    const ptrdiff_t panel = cyl_panel(m->isa, sizeof(CYL_REAL)), G = cell->gates, H = layer->H;
    const ptrdiff_t Hp = (ptrdiff_t)cyl_padded(m, H);
    for (int d = 0; d < layer->directions; d++) {
        CYL_TYPED(cyl_pack_blocks)(ready->w_ih[d], cyl_parameter(m, layer, CYL_W_IH, d), panel, G, H, layer->I);
        CYL_TYPED(cyl_pack_blocks)(ready->w_hh[d], cyl_parameter(m, layer, CYL_W_HH, d), panel, G, H, layer->P);
        if (ready->w_hr[d])
            CYL_TYPED(cyl_pack_blocks)(ready->w_hr[d], cyl_parameter(m, layer, CYL_W_HR, d), panel, 1, layer->P, H);
        CYL_TYPED(cyl_pad_planes)(ready->b_ih[d], cyl_parameter(m, layer, CYL_B_IH, d), G, H, Hp);
        CYL_TYPED(cyl_pad_planes)(ready->b_hh[d], cyl_parameter(m, layer, CYL_B_HH, d), G, H, Hp);
        CYL_REAL *cell_parameters = (CYL_REAL *)ready->cell_parameters[d];
        for (int k = 0; cell->parameters[k].name; k++) {
            const int planes = cell->parameters[k].planes;
            CYL_TYPED(
                cyl_pad_planes)(cell_parameters, cyl_parameter(m, layer, CYL_CELL_PARAMETER + k, d), planes, H, Hp);
            cell_parameters += planes * Hp;
        }
    }
}

static inline void CYL_TYPED(cyl_pack_model)(const cyl_runner *r) {
    const cyl_model *m = r->model;
    for (int k = 0; k < m->layers; k++) {
        const cyl_layer *layer = &m->layer[k];
        if (layer->kind == CYL_LAYER_RECURRENT) CYL_TYPED(cyl_pack_stack)(m, layer, &r->ready[k]);
        if (layer->kind == CYL_LAYER_LINEAR)
            CYL_TYPED(cyl_pack_blocks)(r->ready[k].w_ih[0], cyl_parameter(m, layer, CYL_WEIGHT, 0),
                cyl_panel(m->isa, sizeof(CYL_REAL)), 1, layer->O, layer->I);
    }
}

/* Rows of a state with zeros in their padding, (B, width) to (B, ld), and back. */
static inline void
CYL_TYPED(cyl_put_state)(CYL_REAL *out, ptrdiff_t ld, const void *state, ptrdiff_t B, ptrdiff_t width) {
    for (ptrdiff_t b = 0; b < B; b++) {
        memcpy(out + b * ld, (const CYL_REAL *)state + b * width, (size_t)width * sizeof(CYL_REAL));
        memset(out + b * ld + width, 0, (size_t)(ld - width) * sizeof(CYL_REAL));
    }
}
static inline void
CYL_TYPED(cyl_get_state)(void *state, const CYL_REAL *rows, ptrdiff_t ld, ptrdiff_t B, ptrdiff_t width) {
    for (ptrdiff_t b = 0; b < B; b++)
        memcpy((CYL_REAL *)state + b * width, rows + b * ld, (size_t)width * sizeof(CYL_REAL));
}

/* What a layer's pass in a direction is, without x. */
static inline cyl_pass CYL_TYPED(cyl_pass_of)(
    const cyl_runner *r, const cyl_layer *layer, const cyl_ready *ready, int d, ptrdiff_t T) {
    const cyl_cell_shape *cell = &cyl_cell_shapes[layer->cell];
    cyl_pass p;
    memset(&p, 0, sizeof p);
    p.cell = layer->cell;
    p.clip = layer->clip, p.zoneout_h = layer->zoneout_h, p.zoneout_c = layer->zoneout_c;
    p.T = T, p.B = r->B, p.N = T * r->B, p.I = layer->I, p.H = layer->H, p.P = layer->P;
    p.Hp = (ptrdiff_t)cyl_padded(r->model, p.H), p.Pp = (ptrdiff_t)cyl_padded(r->model, p.P);
    p.ld_gates = cell->gates * p.Hp + CYL_GAP, p.ld_extra = cell->extra * p.Hp;
    p.rows_of_gates = p.B > CYL_ROWS_AHEAD ? p.B : CYL_ROWS_AHEAD;
    p.rows = r->rows;
    p.w_ih = ready->w_ih[d], p.w_hh = ready->w_hh[d], p.w_hr = ready->w_hr[d];
    p.b_ih = ready->b_ih[d], p.b_hh = ready->b_hh[d], p.cell_parameters = ready->cell_parameters[d];
    p.gates = r->gates, p.h = r->h;
    p.extra = cell->extra ? r->extra : NULL;
    p.c = cell->states == 2 ? r->c : NULL;
    p.m = ready->w_hr[d] ? r->m : NULL;
    return p;
}

/* y (T, B, D P) in the columns of a direction from x (T, B, I), carrying its states on. */
static inline void
CYL_TYPED(cyl_run_direction)(const cyl_runner *r, const cyl_layer *layer, const cyl_ready *ready, int d,
    CYL_REAL *y, const CYL_REAL *x, ptrdiff_t T) {
    cyl_pass p = CYL_TYPED(cyl_pass_of)(r, layer, ready, d, T);
    const ptrdiff_t B = p.B, panel = cyl_panel(r->model->isa, sizeof(CYL_REAL));
    const int back = d || layer->reverse;
    cyl_part part;
    cyl_barrier_slot barrier_slots[2];
    p.x = x;
    if (back) {
        p.x = r->reversed;
        for (ptrdiff_t t = 0; t < T; t++)
            memcpy(
                (CYL_REAL *)r->reversed + t * B * p.I, x + (T - 1 - t) * B * p.I, (size_t)(B * p.I) * sizeof(CYL_REAL));
    }
    CYL_TYPED(cyl_put_state)((CYL_REAL *)p.h, p.Pp, ready->h[d], B, p.P);
    if (p.c) CYL_TYPED(cyl_put_state)((CYL_REAL *)p.c, p.Hp, ready->c[d], B, p.H);
    cyl_divide(&p, 1, panel, cyl_tile(r->model->isa), sizeof(CYL_REAL), 0, &part, barrier_slots);
    CYL_TYPED(cyl_passes).forward[r->model->isa](&p, &part);
    const CYL_REAL *h = (const CYL_REAL *)p.h + B * p.Pp;
    CYL_TYPED(cyl_get_state)(ready->h[d], h + (T - 1) * B * p.Pp, p.Pp, B, p.P);
    if (p.c) CYL_TYPED(cyl_get_state)(ready->c[d], (const CYL_REAL *)p.c + T % 2 * B * p.Hp, p.Hp, B, p.H);
    for (ptrdiff_t t = 0; t < T; t++)
        for (ptrdiff_t b = 0; b < B; b++)
            memcpy(y + (t * B + b) * layer->O + d * p.P, h + ((back ? T - 1 - t : t) * B + b) * p.Pp,
                (size_t)p.P * sizeof(CYL_REAL));
}

/* NumPy's sum of a row, whose order makes its bits: halves, blocks of at most 128, eight sums side by side. */
static inline CYL_REAL CYL_TYPED(cyl_pairwise_sum)(const CYL_REAL *a, ptrdiff_t n) {
    CYL_REAL sum = 0, lanes[8];
    ptrdiff_t k = 0;
    if (n > 128) {
        const ptrdiff_t half = n / 2 - n / 2 % 8;
        return CYL_TYPED(cyl_pairwise_sum)(a, half) + CYL_TYPED(cyl_pairwise_sum)(a + half, n - half);
    }
    if (n >= 8) {
        for (; k < 8; k++) lanes[k] = a[k];
        for (; k + 8 <= n; k += 8)
            for (ptrdiff_t j = 0; j < 8; j++) lanes[j] += a[k + j];
        sum = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
    }
    for (; k < n; k++) sum += a[k];
    return sum;
}

/* y (rows, F) = gain (x - mean) / sqrt(variance + eps) + bias; loop by loop, as NumPy does, for its bits. */
static inline void CYL_TYPED(cyl_normalise)(CYL_REAL *y, const CYL_REAL *x, const CYL_REAL *gain, const CYL_REAL *bias,
    ptrdiff_t rows, ptrdiff_t F, double eps) {
    for (ptrdiff_t n = 0; n < rows; n++, y += F, x += F) {
        const CYL_REAL mean = CYL_TYPED(cyl_pairwise_sum)(x, F) / (CYL_REAL)F;
        for (ptrdiff_t j = 0; j < F; j++) y[j] = (x[j] - mean) * (x[j] - mean);
        const CYL_REAL variance = CYL_TYPED(cyl_pairwise_sum)(y, F) / (CYL_REAL)F;
        const CYL_REAL scale = (CYL_REAL)sqrt((double)(variance + (CYL_REAL)eps));
        for (ptrdiff_t j = 0; j < F; j++) y[j] = (x[j] - mean) / scale;
        for (ptrdiff_t j = 0; j < F; j++) y[j] *= gain[j];
        for (ptrdiff_t j = 0; j < F; j++) y[j] += bias[j];
    }
}

/* y (B, F) of one step from x (T, B, F): the last step, its first half and the second one of the first step, the mean,
 * or the largest numbers, NaN if there is one. */
static inline void
CYL_TYPED(cyl_pool)(cyl_layer_kind how, CYL_REAL *y, const CYL_REAL *x, ptrdiff_t T, ptrdiff_t B, ptrdiff_t F) {
    const CYL_REAL steps = (CYL_REAL)T;
    const ptrdiff_t n = B * F;
    if (how == CYL_LAYER_POOL_LAST || how == CYL_LAYER_POOL_ENDS) {
        memcpy(y, x + (T - 1) * n, (size_t)n * sizeof(CYL_REAL));
        for (ptrdiff_t j = F / 2; j < n && how == CYL_LAYER_POOL_ENDS; j += F)
            memcpy(y + j, x + j, (size_t)(F / 2) * sizeof(CYL_REAL));
        return;
    }
    for (ptrdiff_t j = 0; j < n; j++) y[j] = how == CYL_LAYER_POOL_MEAN ? 0 : x[j];
    for (ptrdiff_t t = 0; t < T; t++, x += n)
        for (ptrdiff_t j = 0; j < n; j++) {
            if (how == CYL_LAYER_POOL_MEAN) y[j] += x[j];
            else if (!(x[j] <= y[j]) && !(y[j] != y[j])) y[j] = x[j];
        }
    for (ptrdiff_t j = 0; j < n && how == CYL_LAYER_POOL_MEAN; j++) y[j] /= steps;
}

/* The layer's y from its x; steps of both may differ from T behind a layer that pools. */
static inline void CYL_TYPED(cyl_run_layer)(cyl_runner *r, int k, void *to, const void *from, ptrdiff_t T) {
    const cyl_model *m = r->model;
    const cyl_layer *layer = &m->layer[k];
    const ptrdiff_t N = T * r->B, I = layer->I, O = layer->O;
    const CYL_REAL *x = (const CYL_REAL *)from, *weight = (const CYL_REAL *)cyl_parameter(m, layer, CYL_WEIGHT, 0);
    const CYL_REAL *bias = (const CYL_REAL *)cyl_parameter(m, layer, CYL_BIAS, 0);
    CYL_REAL *y = (CYL_REAL *)to;
    switch (layer->kind) {
    case CYL_LAYER_RECURRENT:
        for (int d = 0; d < layer->directions; d++) CYL_TYPED(cyl_run_direction)(r, layer, &r->ready[k], d, y, x, T);
        break;
    case CYL_LAYER_LINEAR:
        CYL_TYPED(cyl_dense)[m->isa](y, x, (const CYL_REAL *)r->ready[k].w_ih[0], bias, N, I, O, I, 0, O);
        break;
    case CYL_LAYER_EMBEDDING:
        for (ptrdiff_t n = 0; n < N * I; n++)
            memcpy(y + n * (O / I), weight + ((const int64_t *)from)[n] * (O / I), (size_t)(O / I) * sizeof(CYL_REAL));
        break;
    case CYL_LAYER_NORM: CYL_TYPED(cyl_normalise)(y, x, weight, bias, N, I, layer->eps); break;
    case CYL_LAYER_POOL_LAST:
    case CYL_LAYER_POOL_MEAN:
    case CYL_LAYER_POOL_MAX:
    case CYL_LAYER_POOL_ENDS: CYL_TYPED(cyl_pool)(layer->kind, y, x, T, r->B, I); break;
    case CYL_LAYER_RESIDUAL:
        memcpy(r->residual[layer->nested], x, (size_t)(N * I) * sizeof(CYL_REAL));
        memcpy(y, x, (size_t)(N * I) * sizeof(CYL_REAL));
        break;
    case CYL_LAYER_DROPOUT: memcpy(y, x, (size_t)(N * I) * sizeof(CYL_REAL)); break;
    case CYL_LAYER_RESIDUAL_END:
        for (ptrdiff_t n = 0; n < N * I; n++) y[n] = ((const CYL_REAL *)r->residual[layer->nested])[n] + x[n];
        break;
    }
}

static inline void CYL_TYPED(cyl_run_model)(cyl_runner *r, void *y, const void *x, ptrdiff_t T) {
    const cyl_model *m = r->model;
    for (int k = 0; k < m->layers; k++) {
        void *to = k + 1 == m->layers ? y : r->turn[k % 2];
        CYL_TYPED(cyl_run_layer)(r, k, to, x, T);
        if (m->layer[k].kind >= CYL_LAYER_POOL_LAST && m->layer[k].kind <= CYL_LAYER_POOL_ENDS) T = 1;
        x = to;
    }
}

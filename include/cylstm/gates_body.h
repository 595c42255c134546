/* Clipped gates for one real type; see gates.h. */
typedef struct {
    CYL_REAL clip;
    CYL_REAL sigmoid_low, sigmoid_high, tanh_high; /* the values that the clip gives */
} CYL_TYPED(cyl_bound);

CYL_INLINE CYL_TYPED(cyl_bound) CYL_TYPED(cyl_bound_of)(CYL_REAL clip) {
    CYL_TYPED(cyl_bound) bound;
    bound.clip = clip;
    bound.sigmoid_low = CYL_TYPED(cyl_sigmoid)(-clip);
    bound.sigmoid_high = CYL_TYPED(cyl_sigmoid)(clip);
    bound.tanh_high = CYL_TYPED(cyl_tanh)(clip);
    return bound;
}

/* Whether there is a clip: one that is not infinite. */
CYL_INLINE int CYL_TYPED(cyl_clips)(CYL_REAL clip) { return clip - clip == 0; }

/* `clips` is a constant where these are used: a kernel is built with and without. */
CYL_INLINE CYL_REAL CYL_TYPED(cyl_sigmoid_gate)(CYL_REAL z, CYL_REAL clip, const int clips) {
    return CYL_TYPED(cyl_sigmoid)(clips ? CYL_TYPED(cyl_clamp)(z, -clip, clip) : z);
}

CYL_INLINE CYL_REAL CYL_TYPED(cyl_tanh_gate)(CYL_REAL z, CYL_REAL clip, const int clips) {
    return CYL_TYPED(cyl_tanh)(clips ? CYL_TYPED(cyl_clamp)(z, -clip, clip) : z);
}

/* Comparisons are written so that a NaN passes through. */
CYL_INLINE CYL_REAL CYL_TYPED(cyl_sigmoid_slope)(CYL_REAL y, CYL_TYPED(cyl_bound) bound, const int clips) {
    const CYL_REAL slope = y * (1 - y);
    if (!clips) return slope;
    return y >= bound.sigmoid_high ? (CYL_REAL)0 : (y <= bound.sigmoid_low ? (CYL_REAL)0 : slope);
}

CYL_INLINE CYL_REAL CYL_TYPED(cyl_tanh_slope)(CYL_REAL y, CYL_TYPED(cyl_bound) bound, const int clips) {
    const CYL_REAL slope = 1 - y * y;
    if (!clips) return slope;
    return y >= bound.tanh_high ? (CYL_REAL)0 : (y <= -bound.tanh_high ? (CYL_REAL)0 : slope);
}

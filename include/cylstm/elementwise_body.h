/* Losses of one number for one real type, value and slope; see elementwise.h. */
#define CYL_C(x) ((CYL_REAL)(x))

CYL_INLINE CYL_REAL CYL_TYPED(cyl_square)(CYL_REAL y, CYL_REAL z, CYL_REAL p, CYL_REAL *slope) {
    const CYL_REAL d = y - z;
    (void)p;
    *slope = 2 * d;
    return d * d;
}

CYL_INLINE CYL_REAL CYL_TYPED(cyl_absolute)(CYL_REAL y, CYL_REAL z, CYL_REAL p, CYL_REAL *slope) {
    const CYL_REAL d = y - z;
    (void)p;
    *slope = CYL_C(d > 0) - CYL_C(d < 0);
    return d < 0 ? -d : d;
}

CYL_INLINE CYL_REAL CYL_TYPED(cyl_huber)(CYL_REAL y, CYL_REAL z, CYL_REAL p, CYL_REAL *slope) {
    const CYL_REAL d = y - z, held = CYL_TYPED(cyl_clamp)(d, -p, p);
    *slope = held;
    return held * (d - held / 2);
}

CYL_INLINE CYL_REAL CYL_TYPED(cyl_pinball)(CYL_REAL y, CYL_REAL z, CYL_REAL p, CYL_REAL *slope) {
    const CYL_REAL d = y - z;
    *slope = CYL_C(d > 0) - p * CYL_C(d != 0);
    return *slope * d;
}

/* log(1 + e), 0 <= e <= 1, as 2 atanh(s) with s = e / (2 + e) <= 1/3: truncation below 2^-26 (2^-55) relative. */
CYL_INLINE CYL_REAL CYL_TYPED(cyl_log1p)(CYL_REAL e) {
    const CYL_REAL s = e / (2 + e), z = s * s;
#if CYL_REAL_BITS == 64
    CYL_REAL q = CYL_C(1.0 / 31.0);
    q = q * z + CYL_C(1.0 / 29.0);
    q = q * z + CYL_C(1.0 / 27.0);
    q = q * z + CYL_C(1.0 / 25.0);
    q = q * z + CYL_C(1.0 / 23.0);
    q = q * z + CYL_C(1.0 / 21.0);
    q = q * z + CYL_C(1.0 / 19.0);
    q = q * z + CYL_C(1.0 / 17.0);
    q = q * z + CYL_C(1.0 / 15.0);
    q = q * z + CYL_C(1.0 / 13.0);
#else
    CYL_REAL q = CYL_C(1.0 / 13.0);
#endif
    q = q * z + CYL_C(1.0 / 11.0);
    q = q * z + CYL_C(1.0 / 9.0);
    q = q * z + CYL_C(1.0 / 7.0);
    q = q * z + CYL_C(1.0 / 5.0);
    q = q * z + CYL_C(1.0 / 3.0);
    return 2 * (s + s * z * q);
}

/* With e = exp(-|y|), sigmoid(y) is 1 / (1 + e) or e / (1 + e); all terms are positive, so nothing cancels. */
CYL_INLINE CYL_REAL CYL_TYPED(cyl_logistic)(CYL_REAL y, CYL_REAL z, CYL_REAL p, CYL_REAL *slope) {
    const CYL_REAL e = CYL_TYPED(cyl_exp)(y > 0 ? -y : y), rest = CYL_TYPED(cyl_log1p)(e);
    const CYL_REAL yes = p * z, no = 1 - z;
    *slope = (no * (y > 0 ? 1 : e) - yes * (y > 0 ? e : 1)) / (1 + e);
    return yes * ((y > 0 ? 0 : -y) + rest) + no * ((y > 0 ? y : 0) + rest);
}

#undef CYL_C

/* Scalar exp, tanh and sigmoid for one real type; see activations.h. */

#if CYL_REAL_BITS == 32
#define CYL_BITS uint32_t
#define CYL_MANTISSA 23
#define CYL_BIAS 127u
#define CYL_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer */
#define CYL_LN2_HI 0.693359375f
#define CYL_LN2_LO -2.12194440e-4f
#define CYL_LOG2E 1.44269504088896340736f
#define CYL_EXP_MIN -104.0f /* below: rounds to 0 */
#define CYL_EXP_MAX 89.0f   /* above: overflows to infinity */
#define CYL_SATURATED 20.0f /* 1 + exp(-20) rounds to 1, tanh(10) too */
#else
#define CYL_BITS uint64_t
#define CYL_MANTISSA 52
#define CYL_BIAS 1023u
#define CYL_MAGIC 6755399441055744.0 /* 1.5 * 2^52 */
#define CYL_LN2_HI 6.93145751953125e-1
#define CYL_LN2_LO 1.42860682030941723212e-6
#define CYL_LOG2E 1.44269504088896340736
#define CYL_EXP_MIN -746.0
#define CYL_EXP_MAX 710.0
#define CYL_SATURATED 40.0
#endif
#define CYL_C(x) ((CYL_REAL)(x))

CYL_INLINE CYL_BITS CYL_TYPED(cyl_to_bits)(CYL_REAL x) {
    CYL_BITS b;
    memcpy(&b, &x, sizeof b);
    return b;
}

CYL_INLINE CYL_REAL CYL_TYPED(cyl_from_bits)(CYL_BITS b) {
    CYL_REAL x;
    memcpy(&x, &b, sizeof x);
    return x;
}

/* 2^n from t = n + CYL_MAGIC, whose low mantissa bits hold the integer n; n normal. */
CYL_INLINE CYL_REAL CYL_TYPED(cyl_exp2_of_magic)(CYL_REAL t) {
    return CYL_TYPED(cyl_from_bits)((CYL_BITS)(CYL_TYPED(cyl_to_bits)(t) + CYL_BIAS) << CYL_MANTISSA);
}

/* expm1(r), |r| <= ln2/2, by its Taylor polynomial: truncation below 2^-26 (2^-56) relative. */
CYL_INLINE CYL_REAL CYL_TYPED(cyl_expm1_poly)(CYL_REAL r) {
#if CYL_REAL_BITS == 64
    CYL_REAL q = CYL_C(1.0 / 6227020800.0);
    q = q * r + CYL_C(1.0 / 479001600.0);
    q = q * r + CYL_C(1.0 / 39916800.0);
    q = q * r + CYL_C(1.0 / 3628800.0);
    q = q * r + CYL_C(1.0 / 362880.0);
    q = q * r + CYL_C(1.0 / 40320.0);
    q = q * r + CYL_C(1.0 / 5040.0);
#else
    CYL_REAL q = CYL_C(1.0 / 5040.0);
#endif
    q = q * r + CYL_C(1.0 / 720.0);
    q = q * r + CYL_C(1.0 / 120.0);
    q = q * r + CYL_C(1.0 / 24.0);
    q = q * r + CYL_C(1.0 / 6.0);
    q = q * r + CYL_C(1.0 / 2.0);
    return r + r * r * q;
}

/* x = n ln2 + r; returns t = n + CYL_MAGIC. A NaN in x stays in r. */
CYL_INLINE CYL_REAL CYL_TYPED(cyl_reduce)(CYL_REAL x, CYL_REAL *r) {
    const CYL_REAL t = x * CYL_LOG2E + CYL_MAGIC;
    const CYL_REAL n = t - CYL_MAGIC;
    *r = (x - n * CYL_LN2_HI) - n * CYL_LN2_LO;
    return t;
}

/* Comparisons are written so that a NaN passes through unclamped. */
CYL_INLINE CYL_REAL CYL_TYPED(cyl_clamp)(CYL_REAL x, CYL_REAL lo, CYL_REAL hi) {
    x = lo > x ? lo : x;
    return hi < x ? hi : x;
}

CYL_INLINE CYL_REAL CYL_TYPED(cyl_exp)(CYL_REAL x) {
    CYL_REAL r;
    const CYL_REAL t = CYL_TYPED(cyl_reduce)(CYL_TYPED(cyl_clamp)(x, CYL_EXP_MIN, CYL_EXP_MAX), &r);
    /* 2^n as a product of two, so that overflow and gradual underflow happen in the arithmetic. */
    const CYL_REAL n = t - CYL_MAGIC;
    const CYL_REAL half = n * CYL_C(0.5) + CYL_MAGIC;
    const CYL_REAL rest = (n - (half - CYL_MAGIC)) + CYL_MAGIC;
    const CYL_REAL e = CYL_C(1) + CYL_TYPED(cyl_expm1_poly)(r);
    return e * CYL_TYPED(cyl_exp2_of_magic)(half) * CYL_TYPED(cyl_exp2_of_magic)(rest);
}

CYL_INLINE CYL_REAL CYL_TYPED(cyl_sigmoid)(CYL_REAL x) {
    /* At EXP_MAX the power of two is infinite, and the result the 0 that its subnormal value may be. */
    CYL_REAL r;
    const CYL_REAL t = CYL_TYPED(cyl_reduce)(CYL_TYPED(cyl_clamp)(-x, -CYL_SATURATED, CYL_EXP_MAX), &r);
    const CYL_REAL e = CYL_TYPED(cyl_exp2_of_magic)(t) * (CYL_C(1) + CYL_TYPED(cyl_expm1_poly)(r));
    return CYL_C(1) / (CYL_C(1) + e);
}

CYL_INLINE CYL_REAL CYL_TYPED(cyl_tanh)(CYL_REAL x) {
    const CYL_BITS sign = CYL_TYPED(cyl_to_bits)(x) & ((CYL_BITS)1 << (CYL_REAL_BITS - 1));
    const CYL_REAL abs_x = CYL_TYPED(cyl_from_bits)(CYL_TYPED(cyl_to_bits)(x) ^ sign);
    const CYL_REAL y = CYL_C(-2) * abs_x;
    CYL_REAL r;
    const CYL_REAL t = CYL_TYPED(cyl_reduce)(-CYL_SATURATED > y ? -CYL_SATURATED : y, &r);
    const CYL_REAL scale = CYL_TYPED(cyl_exp2_of_magic)(t);
    const CYL_REAL m = scale * CYL_TYPED(cyl_expm1_poly)(r) + (scale - CYL_C(1));
    return CYL_TYPED(cyl_from_bits)(CYL_TYPED(cyl_to_bits)((CYL_C(0) - m) / (CYL_C(2) + m)) | sign);
}

#undef CYL_BITS
#undef CYL_MANTISSA
#undef CYL_BIAS
#undef CYL_MAGIC
#undef CYL_LN2_HI
#undef CYL_LN2_LO
#undef CYL_LOG2E
#undef CYL_EXP_MIN
#undef CYL_EXP_MAX
#undef CYL_SATURATED
#undef CYL_C

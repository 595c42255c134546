/* Includes CYL_BODY once for float and once for double; see instantiate.h. */
#define CYL_REAL float
#define CYL_REAL_BITS 32
#define CYL_SUFFIX f32
#include CYL_BODY
#undef CYL_REAL
#undef CYL_REAL_BITS
#undef CYL_SUFFIX

#define CYL_REAL double
#define CYL_REAL_BITS 64
#define CYL_SUFFIX f64
#include CYL_BODY
#undef CYL_REAL
#undef CYL_REAL_BITS
#undef CYL_SUFFIX

/* Included before all else: from here on the compiler is one of which the headers know nothing, as MSVC is. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#undef __GNUC__
#undef __clang__
#undef __x86_64__
#undef __aarch64__
#undef __unix__
#undef __APPLE__
#pragma GCC poison __attribute__ __asm__ __builtin_prefetch __builtin_cpu_init __builtin_cpu_supports
#pragma GCC poison __atomic_load_n __atomic_store_n __atomic_exchange_n

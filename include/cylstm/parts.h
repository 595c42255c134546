/* Division of the work of a call into parts, one per thread, and barriers between threads. */
#ifndef CYLSTM_PARTS_H
#define CYLSTM_PARTS_H

#include "platform.h"

#define CYL_MAX_PARTS 64
#define CYL_MIN_FLOP 3e6   /* a smaller call ends before another thread is awake */
#define CYL_SEPARATION 128 /* bytes between data of different threads: processors prefetch pairs of cache lines */

/* The counter of a thread in a barrier, on its own cache lines. */
typedef struct {
    unsigned count;
    char rest[124];
} cyl_barrier_slot;

#if defined(__x86_64__)
static inline void cyl_pause(void) { _mm_pause(); }
#elif defined(__aarch64__)
static inline void cyl_pause(void) { __asm__ volatile("yield"); }
#else
static inline void cyl_pause(void) {}
#endif

#if defined(__unix__) || defined(__APPLE__)
#include <sched.h>
static inline void cyl_yield(void) { sched_yield(); }
#elif defined(_WIN32)
#ifdef __cplusplus
extern "C"
#endif
    __declspec(dllimport) int __stdcall SwitchToThread(void); /* of windows.h */
static inline void cyl_yield(void) { SwitchToThread(); }
#else
static inline void cyl_yield(void) {}
#endif

#if CYL_PACKED
/* Barrier: wait for all parts; their earlier writes are visible afterwards. */
static inline void cyl_barrier_wait(cyl_barrier_slot *all, int index, int count, unsigned *met) {
    const unsigned now = ++*met;
    __atomic_store_n(&all[index].count, now, __ATOMIC_RELEASE);
    for (int k = 0; k < count; k++)
        for (unsigned turns = 1; (int)(__atomic_load_n(&all[k].count, __ATOMIC_ACQUIRE) - now) < 0; turns++) {
            cyl_pause();
            if (turns % 1024 == 0) cyl_yield(); /* there may be more threads than CPUs */
        }
}
#endif

/* Number of tiles for n rows. */
static inline ptrdiff_t cyl_tiles(ptrdiff_t n, ptrdiff_t tile) { return (n + tile - 1) / tile; }

/* Start of slice k of n. */
static inline ptrdiff_t cyl_slice_start(ptrdiff_t pieces, int k, int n) { return pieces * k / n; }

/* The same for pieces in groups. */
static inline ptrdiff_t cyl_group_slice_start(ptrdiff_t pieces, ptrdiff_t group, int k, int n) {
    const ptrdiff_t first = cyl_slice_start(cyl_tiles(pieces, group), k, n) * group;
    return first < pieces ? first : pieces;
}

#endif

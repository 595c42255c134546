/* How the work of a call is divided into parts, one for each thread, and where the threads meet. */
#ifndef CYLSTM_PARTS_H
#define CYLSTM_PARTS_H

#include "platform.h"

#define CYL_MOST_PARTS 64
#define CYL_LEAST_FLOP 3e6 /* less is done before another thread is awake */
#define CYL_APART 128 /* bytes: what threads write is kept in different ones, for processors fetch lines in pairs */

/* Where the threads of a call meet: each has its count on a line of its own. */
typedef struct {
    unsigned count;
    char rest[124];
} cyl_meeting;

#if defined(__x86_64__)
static inline void cyl_pause(void) { _mm_pause(); }
#elif defined(__aarch64__)
static inline void cyl_pause(void) { __asm__ volatile("yield"); }
#else
static inline void cyl_pause(void) {}
#endif

#if defined(__unix__) || defined(__APPLE__)
#include <sched.h>
static inline void cyl_give_way(void) { sched_yield(); }
#elif defined(_WIN32)
#ifdef __cplusplus
extern "C"
#endif
    __declspec(dllimport) int __stdcall SwitchToThread(void); /* of windows.h */
static inline void cyl_give_way(void) { SwitchToThread(); }
#else
static inline void cyl_give_way(void) {}
#endif

#if CYL_PACKED
/* Wait until all parts have come here; what each wrote before, all may read after. */
static inline void cyl_wait_for(cyl_meeting *all, int index, int count, unsigned *met) {
    const unsigned now = ++*met;
    __atomic_store_n(&all[index].count, now, __ATOMIC_RELEASE);
    for (int k = 0; k < count; k++)
        for (unsigned turns = 1; (int)(__atomic_load_n(&all[k].count, __ATOMIC_ACQUIRE) - now) < 0; turns++) {
            cyl_pause();
            if (turns % 1024 == 0) cyl_give_way(); /* more threads than CPUs */
        }
}
#endif

/* Tiles that hold n rows. */
static inline ptrdiff_t cyl_tiles(ptrdiff_t n, ptrdiff_t tile) { return (n + tile - 1) / tile; }

/* Where share k of n begins. */
static inline ptrdiff_t cyl_share(ptrdiff_t pieces, int k, int n) { return pieces * k / n; }

/* The same for pieces in groups. */
static inline ptrdiff_t cyl_share_of(ptrdiff_t pieces, ptrdiff_t group, int k, int n) {
    const ptrdiff_t first = cyl_share(cyl_tiles(pieces, group), k, n) * group;
    return first < pieces ? first : pieces;
}

#endif

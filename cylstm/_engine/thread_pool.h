/* The thread pool, which runs one job at a time. Workers spin for a moment after a job, then sleep.
 *
 * A caller that finds the pool busy runs its job alone, so any number of threads may call. A forked child starts
 * without workers and creates its own. Workers block all signals. Without thread support, the caller runs every job
 * alone.
 *
 * Each worker has its own job counter. Only the workers needed for a job are woken, and the caller waits for them only.
 */
#ifndef CYLSTM_THREAD_POOL_H
#define CYLSTM_THREAD_POOL_H

typedef void (*cyl_job)(void *argument, int index);

#include "system_threads.h"

#if CYL_SYSTEM_THREADS
#include "cylstm/parts.h"

#define CYL_SPIN_NS 200000

typedef struct {
    unsigned called, done; /* numbers of jobs submitted and completed */
    int asleep;
    cyl_condition wake;
    char rest[128];
} cyl_worker;

static struct {
    cyl_lock lock; /* protects sleeping and waking */
    int busy, workers, prepared;
    cyl_job function;
    void *argument;
    cyl_worker worker[CYL_MAX_PARTS]; /* index 0 is the caller */
} cyl_thread_pool = {.lock = CYL_UNLOCKED};

/* Wait for a job after number `seen`: first spinning, then sleeping. */
static unsigned cyl_await_job(cyl_worker *me, unsigned seen) {
    const long long until = cyl_now() + CYL_SPIN_NS;
    for (unsigned turns = 1; __atomic_load_n(&me->called, __ATOMIC_ACQUIRE) == seen; turns++) {
        cyl_pause();
        if (turns % 64 || cyl_now() < until) continue;
        cyl_acquire_lock(&cyl_thread_pool.lock);
        __atomic_store_n(&me->asleep, 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&me->called, __ATOMIC_SEQ_CST) == seen) cyl_wait_on(&me->wake, &cyl_thread_pool.lock);
        __atomic_store_n(&me->asleep, 0, __ATOMIC_SEQ_CST);
        cyl_release_lock(&cyl_thread_pool.lock);
    }
    return seen + 1;
}

CYL_THREAD cyl_work(void *place) {
    cyl_worker *me = (cyl_worker *)place;
    for (unsigned seen = me->done;;) {
        seen = cyl_await_job(me, seen);
        cyl_thread_pool.function(cyl_thread_pool.argument, (int)(me - cyl_thread_pool.worker));
        __atomic_store_n(&me->done, seen, __ATOMIC_RELEASE);
    }
    return 0;
}

/* Reset the pool in a forked child, which does not have the workers. */
static void cyl_reset_pool(void) {
    cyl_init_lock(&cyl_thread_pool.lock);
    cyl_thread_pool.busy = cyl_thread_pool.workers = 0;
}

/* Start another worker; return whether it was started. */
static int cyl_spawn_worker(void) {
    cyl_worker *worker = &cyl_thread_pool.worker[cyl_thread_pool.workers + 1];
    worker->called = worker->done = 0;
    worker->asleep = 0;
    cyl_init_condition(&worker->wake);
    const int started = cyl_start_thread(cyl_work, worker);
    cyl_thread_pool.workers += started;
    return started;
}

/* Acquire the pool for at most `members` threads including the caller; return their number, 1 if it is busy. */
static int cyl_acquire_pool(int members) {
    if (members > CYL_MAX_PARTS) members = CYL_MAX_PARTS;
    if (members <= 1 || __atomic_exchange_n(&cyl_thread_pool.busy, 1, __ATOMIC_ACQUIRE)) return 1;
    if (!cyl_thread_pool.prepared) cyl_thread_pool.prepared = cyl_call_in_children(cyl_reset_pool);
    while (cyl_thread_pool.prepared && cyl_thread_pool.workers + 1 < members && cyl_spawn_worker()) {}
    if (cyl_thread_pool.workers + 1 < members) members = cyl_thread_pool.workers + 1; /* no more threads available */
    if (members == 1) __atomic_store_n(&cyl_thread_pool.busy, 0, __ATOMIC_RELEASE);
    return members;
}

static void cyl_release_pool(void) { __atomic_store_n(&cyl_thread_pool.busy, 0, __ATOMIC_RELEASE); }

/* Run function(argument, index) for every index < members on the acquired pool; the caller has index 0. */
static void cyl_run_in_pool(cyl_job function, void *argument, int members) {
    cyl_thread_pool.function = function;
    cyl_thread_pool.argument = argument;
    for (int k = 1; k < members; k++) {
        cyl_worker *worker = &cyl_thread_pool.worker[k];
        __atomic_store_n(&worker->called, worker->called + 1, __ATOMIC_SEQ_CST);
        if (!__atomic_load_n(&worker->asleep, __ATOMIC_SEQ_CST)) continue;
        cyl_acquire_lock(&cyl_thread_pool.lock);
        cyl_signal(&worker->wake);
        cyl_release_lock(&cyl_thread_pool.lock);
    }
    function(argument, 0);
    for (int k = 1; k < members; k++) {
        cyl_worker *worker = &cyl_thread_pool.worker[k];
        for (unsigned turns = 1; __atomic_load_n(&worker->done, __ATOMIC_ACQUIRE) != worker->called; turns++) {
            cyl_pause();
            if (turns % 1024 == 0) cyl_yield();
        }
    }
}
#else
static int cyl_acquire_pool(int members) {
    (void)members;
    return 1;
}
static void cyl_release_pool(void) {}
static void cyl_run_in_pool(cyl_job function, void *argument, int members) {
    (void)members;
    function(argument, 0);
}
#endif
#endif

/* The thread team: workers that spin for a moment after a job, then sleep; one job at a time.
 *
 * A caller that finds the team at work does its job alone, so any number of threads may call, and no more CPUs work
 * than callers and members together. A forked child starts without workers and makes its own. Workers take no
 * signals. Where there are no threads every job is done by the caller alone.
 *
 * Each worker has its own post: it reads the job only after it was called to it, and the caller waits for those that
 * it called; the others sleep on.
 */
#ifndef CYLSTM_TEAM_H
#define CYLSTM_TEAM_H

typedef void (*cyl_job)(void *argument, int index);

#include "system_threads.h"

#if CYL_SYSTEM_THREADS
#include "cylstm/parts.h"

#define CYL_SPIN_NS 200000

typedef struct {
    unsigned called, done; /* jobs, counted up */
    int asleep;
    cyl_bell wake;
    char rest[128];
} cyl_worker;

static struct {
    cyl_lock lock; /* of sleeping and waking */
    int busy, workers, prepared;
    cyl_job function;
    void *argument;
    cyl_worker worker[CYL_MOST_PARTS]; /* from 1 on: 0 is the caller */
} cyl_team = {.lock = CYL_UNLOCKED};

/* Until there is a call after `seen`: first spinning, then asleep. */
static unsigned cyl_await_call(cyl_worker *me, unsigned seen) {
    const long long until = cyl_now() + CYL_SPIN_NS;
    for (unsigned turns = 1; __atomic_load_n(&me->called, __ATOMIC_ACQUIRE) == seen; turns++) {
        cyl_pause();
        if (turns % 64 || cyl_now() < until) continue;
        cyl_take_lock(&cyl_team.lock);
        __atomic_store_n(&me->asleep, 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&me->called, __ATOMIC_SEQ_CST) == seen) cyl_sleep_by(&me->wake, &cyl_team.lock);
        __atomic_store_n(&me->asleep, 0, __ATOMIC_SEQ_CST);
        cyl_leave_lock(&cyl_team.lock);
    }
    return seen + 1;
}

CYL_THREAD cyl_work(void *place) {
    cyl_worker *me = (cyl_worker *)place;
    for (unsigned seen = me->done;;) {
        seen = cyl_await_call(me, seen);
        cyl_team.function(cyl_team.argument, (int)(me - cyl_team.worker));
        __atomic_store_n(&me->done, seen, __ATOMIC_RELEASE);
    }
    return 0;
}

/* In a forked child: the workers are the parent's. */
static void cyl_forget_team(void) {
    cyl_unlocked(&cyl_team.lock);
    cyl_team.busy = cyl_team.workers = 0;
}

/* One worker more; whether it could be started. */
static int cyl_hire(void) {
    cyl_worker *worker = &cyl_team.worker[cyl_team.workers + 1];
    worker->called = worker->done = 0;
    worker->asleep = 0;
    cyl_make_bell(&worker->wake);
    const int started = cyl_start_thread(cyl_work, worker);
    cyl_team.workers += started;
    return started;
}

/* Take the team, for at most `members` threads with the caller; returns how many there are: 1 if it is at work. */
static int cyl_take_team(int members) {
    if (members > CYL_MOST_PARTS) members = CYL_MOST_PARTS;
    if (members <= 1 || __atomic_exchange_n(&cyl_team.busy, 1, __ATOMIC_ACQUIRE)) return 1;
    if (!cyl_team.prepared) cyl_team.prepared = cyl_call_in_children(cyl_forget_team);
    while (cyl_team.prepared && cyl_team.workers + 1 < members && cyl_hire()) {}
    if (cyl_team.workers + 1 < members) members = cyl_team.workers + 1; /* no more threads to be had */
    if (members == 1) __atomic_store_n(&cyl_team.busy, 0, __ATOMIC_RELEASE);
    return members;
}

static void cyl_leave_team(void) { __atomic_store_n(&cyl_team.busy, 0, __ATOMIC_RELEASE); }

/* Run function(argument, index) for every index below members, of a team that was taken; the caller is 0. */
static void cyl_run_team(cyl_job function, void *argument, int members) {
    cyl_team.function = function;
    cyl_team.argument = argument;
    for (int k = 1; k < members; k++) {
        cyl_worker *worker = &cyl_team.worker[k];
        __atomic_store_n(&worker->called, worker->called + 1, __ATOMIC_SEQ_CST);
        if (!__atomic_load_n(&worker->asleep, __ATOMIC_SEQ_CST)) continue;
        cyl_take_lock(&cyl_team.lock);
        cyl_ring(&worker->wake);
        cyl_leave_lock(&cyl_team.lock);
    }
    function(argument, 0);
    for (int k = 1; k < members; k++) {
        cyl_worker *worker = &cyl_team.worker[k];
        for (unsigned turns = 1; __atomic_load_n(&worker->done, __ATOMIC_ACQUIRE) != worker->called; turns++) {
            cyl_pause();
            if (turns % 1024 == 0) cyl_give_way();
        }
    }
}
#else
static int cyl_take_team(int members) {
    (void)members;
    return 1;
}
static void cyl_leave_team(void) {}
static void cyl_run_team(cyl_job function, void *argument, int members) {
    (void)members;
    function(argument, 0);
}
#endif
#endif

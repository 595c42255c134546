/* The thread team: workers that spin for a moment after a job, then sleep; one job at a time.
 *
 * A caller that finds the team at work does its job alone, so any number of threads may call, and no more CPUs work
 * than callers and members together. A forked child starts without workers and makes its own. Workers take no signals.
 * Without POSIX threads every job is done by the caller alone.
 */
#ifndef CYLSTM_TEAM_H
#define CYLSTM_TEAM_H

typedef void (*cyl_job)(void *argument, int index);

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "cylstm/pass.h"

#define CYL_SPIN_NS 200000

typedef struct {
    unsigned done; /* the last job that this worker finished */
    char rest[124];
} cyl_worker;

static struct {
    pthread_mutex_t lock; /* of sleeping and waking */
    pthread_cond_t wake;
    int busy, workers, sleeping, prepared;
    unsigned job; /* counts jobs up */
    int members;  /* of the job: workers 1 .. members - 1 take part */
    cyl_job function;
    void *argument;
    cyl_worker worker[CYL_MOST_PARTS];
} cyl_team = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0, 0, 0, 0, 0, 0, {{0, {0}}}};

static inline long long cyl_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Until there is a job after `seen`: first spinning, then asleep. */
static void cyl_await_job(unsigned seen) {
    const long long until = cyl_now() + CYL_SPIN_NS;
    for (unsigned turns = 1; __atomic_load_n(&cyl_team.job, __ATOMIC_ACQUIRE) == seen; turns++) {
        cyl_pause();
        if (turns % 64 || cyl_now() < until) continue;
        pthread_mutex_lock(&cyl_team.lock);
        __atomic_add_fetch(&cyl_team.sleeping, 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&cyl_team.job, __ATOMIC_SEQ_CST) == seen)
            pthread_cond_wait(&cyl_team.wake, &cyl_team.lock);
        __atomic_sub_fetch(&cyl_team.sleeping, 1, __ATOMIC_SEQ_CST);
        pthread_mutex_unlock(&cyl_team.lock);
    }
}

static void *cyl_work(void *place) {
    const int index = (int)((cyl_worker *)place - cyl_team.worker);
    unsigned seen = cyl_team.worker[index].done;
    for (;;) {
        cyl_await_job(seen);
        seen = __atomic_load_n(&cyl_team.job, __ATOMIC_ACQUIRE);
        if (index < cyl_team.members) cyl_team.function(cyl_team.argument, index);
        __atomic_store_n(&cyl_team.worker[index].done, seen, __ATOMIC_RELEASE);
    }
    return 0;
}

/* In a forked child: the workers are the parent's. */
static void cyl_forget_team(void) {
    pthread_mutex_init(&cyl_team.lock, 0);
    pthread_cond_init(&cyl_team.wake, 0);
    cyl_team.busy = cyl_team.workers = cyl_team.sleeping = 0;
}

/* Start workers up to a number of members; returns how many there are then. */
static int cyl_gather_team(int members) {
    if (!cyl_team.prepared) cyl_team.prepared = !pthread_atfork(0, 0, cyl_forget_team);
    if (!cyl_team.prepared) return 1;
    while (cyl_team.workers + 1 < members) {
        pthread_t thread;
        pthread_attr_t detached;
        sigset_t all, before;
        cyl_worker *worker = &cyl_team.worker[cyl_team.workers + 1];
        worker->done = cyl_team.job;
        pthread_attr_init(&detached);
        pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&detached, 1 << 20);
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        const int failed = pthread_create(&thread, &detached, cyl_work, worker);
        pthread_sigmask(SIG_SETMASK, &before, 0);
        pthread_attr_destroy(&detached);
        if (failed) break; /* no more threads to be had: a smaller team */
        cyl_team.workers++;
    }
    return cyl_team.workers + 1 < members ? cyl_team.workers + 1 : members;
}

/* Take the team, for at most `members` threads with the caller; returns how many there are: 1 if it is at work. */
static int cyl_take_team(int members) {
    if (members <= 1 || __atomic_exchange_n(&cyl_team.busy, 1, __ATOMIC_ACQUIRE)) return 1;
    members = cyl_gather_team(members < CYL_MOST_PARTS ? members : CYL_MOST_PARTS);
    if (members <= 1) __atomic_store_n(&cyl_team.busy, 0, __ATOMIC_RELEASE);
    return members;
}

static void cyl_leave_team(void) { __atomic_store_n(&cyl_team.busy, 0, __ATOMIC_RELEASE); }

/* Run function(argument, index) for every index below members, of a team that was taken; the caller is 0. */
static void cyl_run_team(cyl_job function, void *argument, int members) {
    cyl_team.function = function;
    cyl_team.argument = argument;
    cyl_team.members = members;
    const unsigned job = __atomic_add_fetch(&cyl_team.job, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&cyl_team.sleeping, __ATOMIC_SEQ_CST)) {
        pthread_mutex_lock(&cyl_team.lock);
        pthread_cond_broadcast(&cyl_team.wake);
        pthread_mutex_unlock(&cyl_team.lock);
    }
    function(argument, 0);
    /* All workers, for one that has not seen this job must not see the next one's data. */
    for (int k = 1; k <= cyl_team.workers; k++)
        for (unsigned turns = 1; __atomic_load_n(&cyl_team.worker[k].done, __ATOMIC_ACQUIRE) != job; turns++) {
            cyl_pause();
            if (turns % 1024 == 0) cyl_give_way();
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

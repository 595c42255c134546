/* Operating system interface of the thread pool: lock, condition variable, threads, clock.
 *
 * CYL_SYSTEM_THREADS  1 if available: POSIX, and Windows with GCC or clang.
 * CYL_THREAD          what a thread's function returns: CYL_THREAD work(void *argument) { ...; return 0; }
 */
#ifndef CYLSTM_SYSTEM_THREADS_H
#define CYLSTM_SYSTEM_THREADS_H

#define CYL_STACK (1 << 20) /* bytes for a thread */

#if defined(__unix__) || defined(__APPLE__)
#define CYL_SYSTEM_THREADS 1
#include <pthread.h>
#include <signal.h>
#include <time.h>

typedef pthread_mutex_t cyl_lock;
typedef pthread_cond_t cyl_condition;
typedef void *(*cyl_thread_function)(void *);
#define CYL_THREAD static void *
#define CYL_UNLOCKED PTHREAD_MUTEX_INITIALIZER

static inline void cyl_init_lock(cyl_lock *lock) { pthread_mutex_init(lock, 0); }
static inline void cyl_acquire_lock(cyl_lock *lock) { pthread_mutex_lock(lock); }
static inline void cyl_release_lock(cyl_lock *lock) { pthread_mutex_unlock(lock); }
static inline void cyl_init_condition(cyl_condition *condition) { pthread_cond_init(condition, 0); }
static inline void cyl_wait_on(cyl_condition *condition, cyl_lock *lock) { pthread_cond_wait(condition, lock); }
static inline void cyl_signal(cyl_condition *condition) { pthread_cond_signal(condition); }

static inline long long cyl_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Start a thread with all signals blocked; return whether it was started. */
static inline int cyl_start_thread(cyl_thread_function function, void *argument) {
    pthread_t thread;
    pthread_attr_t detached;
    sigset_t all, before;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, CYL_STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int started = !pthread_create(&thread, &detached, function, argument);
    pthread_sigmask(SIG_SETMASK, &before, 0);
    pthread_attr_destroy(&detached);
    return started;
}

/* Register a function to call in forked children; return whether that is supported. */
static inline int cyl_call_in_children(void (*function)(void)) { return !pthread_atfork(0, 0, function); }

#elif defined(_WIN32) && (defined(__GNUC__) || defined(__clang__))
#define CYL_SYSTEM_THREADS 1
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>

typedef SRWLOCK cyl_lock;
typedef CONDITION_VARIABLE cyl_condition;
typedef LPTHREAD_START_ROUTINE cyl_thread_function;
#define CYL_THREAD static DWORD WINAPI
#define CYL_UNLOCKED SRWLOCK_INIT

static inline void cyl_init_lock(cyl_lock *lock) { InitializeSRWLock(lock); }
static inline void cyl_acquire_lock(cyl_lock *lock) { AcquireSRWLockExclusive(lock); }
static inline void cyl_release_lock(cyl_lock *lock) { ReleaseSRWLockExclusive(lock); }
static inline void cyl_init_condition(cyl_condition *condition) { InitializeConditionVariable(condition); }
static inline void cyl_wait_on(cyl_condition *condition, cyl_lock *lock) {
    SleepConditionVariableSRW(condition, lock, INFINITE, 0);
}
static inline void cyl_signal(cyl_condition *condition) { WakeConditionVariable(condition); }

static inline long long cyl_now(void) {
    LARGE_INTEGER ticks, per_second;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&per_second);
    return (long long)(1e9 * (double)ticks.QuadPart / (double)per_second.QuadPart);
}

static inline int cyl_start_thread(cyl_thread_function function, void *argument) {
    const HANDLE thread = CreateThread(0, CYL_STACK, function, argument, STACK_SIZE_PARAM_IS_A_RESERVATION, 0);
    return thread && CloseHandle(thread);
}

static inline int cyl_call_in_children(void (*function)(void)) { return function != 0; } /* there are none */

#else
#define CYL_SYSTEM_THREADS 0
#endif
#endif

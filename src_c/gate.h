/* A lock with an owner and a queue: whoever waited longest is next, a wait can be given up, and a
 * forked child knows whether it was held. It does not rely on Python's global lock.
 *
 * `forks` is the number of forks between the process that loaded the engine and this one. A mutex may
 * be copied by a fork while another thread is inside of it, so the child makes a new one first. */
#ifndef FASTGD_GATE_H
#define FASTGD_GATE_H

#include <pthread.h>
#include <stddef.h>
#include <time.h>

typedef struct fastgd_waiter {
    struct fastgd_waiter *next;
    unsigned long thread;
    int granted;
} fastgd_waiter;

typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t granted;
    fastgd_waiter *first;
    unsigned long owner; /* of the lock while it is held */
    int held;
    int forks;
} fastgd_lock;

enum { FASTGD_ENTERED, FASTGD_BUSY, FASTGD_OWN, FASTGD_FORKED };

static inline int fastgd_lock_init(fastgd_lock *lock, int forks) {
    lock->first = NULL;
    lock->held = 0;
    lock->forks = forks;
    if (pthread_mutex_init(&lock->mutex, NULL) != 0)
        return -1;
    return pthread_cond_init(&lock->granted, NULL);
}

/* In a child: the other threads of the parent, those that waited among them, are not here. */
static inline void fastgd_lock_after_fork(fastgd_lock *lock, int forks) {
    int held = lock->held;
    fastgd_lock_init(lock, forks);
    lock->held = held;
}

/* Enter, or say why not; what waits for FASTGD_BUSY is `waiter`, queued now. */
static inline int fastgd_lock_enter(fastgd_lock *lock, unsigned long me, int forks, fastgd_waiter *waiter) {
    int outcome = FASTGD_ENTERED;
    if (lock->forks != forks) {
        fastgd_lock_after_fork(lock, forks);
        if (lock->held && lock->owner != me)
            lock->held = 2; /* for ever: what it guards is half changed */
    }
    pthread_mutex_lock(&lock->mutex);
    if (lock->held == 2) {
        outcome = FASTGD_FORKED;
    } else if (lock->held && lock->owner == me) {
        outcome = FASTGD_OWN;
    } else if (lock->held) {
        fastgd_waiter **last = &lock->first;
        while (*last != NULL)
            last = &(*last)->next;
        waiter->next = NULL;
        waiter->thread = me;
        waiter->granted = 0;
        *last = waiter;
        outcome = FASTGD_BUSY;
    } else {
        lock->held = 1;
        lock->owner = me;
    }
    pthread_mutex_unlock(&lock->mutex);
    return outcome;
}

/* Hand over to whoever waited longest. */
static inline void fastgd_lock_leave(fastgd_lock *lock, int forks) {
    if (lock->forks != forks)
        fastgd_lock_after_fork(lock, forks);
    pthread_mutex_lock(&lock->mutex);
    if (lock->first != NULL) {
        lock->owner = lock->first->thread;
        lock->first->granted = 1;
        lock->first = lock->first->next;
        pthread_cond_broadcast(&lock->granted);
    } else {
        lock->held = 0;
    }
    pthread_mutex_unlock(&lock->mutex);
}

/* Wait for so many milliseconds at most; whether the lock is the waiter's. */
static inline int fastgd_lock_wait(fastgd_lock *lock, fastgd_waiter *waiter, int milliseconds) {
    struct timespec until;
    int granted;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += milliseconds * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&lock->mutex);
    while (!waiter->granted && pthread_cond_timedwait(&lock->granted, &lock->mutex, &until) == 0)
        ;
    granted = waiter->granted;
    pthread_mutex_unlock(&lock->mutex);
    return granted;
}

/* Leave the queue; if the lock has just been handed over it goes on to the next. */
static inline void fastgd_lock_give_up(fastgd_lock *lock, fastgd_waiter *waiter, int forks) {
    fastgd_waiter **link;
    int granted;
    pthread_mutex_lock(&lock->mutex);
    for (link = &lock->first; *link != NULL; link = &(*link)->next)
        if (*link == waiter) {
            *link = waiter->next;
            break;
        }
    granted = waiter->granted;
    pthread_mutex_unlock(&lock->mutex);
    if (granted)
        fastgd_lock_leave(lock, forks);
}

static inline int fastgd_lock_is_own(fastgd_lock *lock, unsigned long me) {
    return lock->held && lock->owner == me;
}

#endif

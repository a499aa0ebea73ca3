/*
 * glibc's robust mutex: an owner's death is seen by the system, which marks the word
 * and wakes a waiter, at any instant between two instructions. It does not spin, and
 * what a guard protects takes less time than to sleep: so we do before.
 *
 * EOWNERDEAD, of trylock as well, means that the mutex is ours.
 */
#include "share/guard.h"

#include "shm/wake.h"

#include <errno.h>
#include <sched.h>

enum { SPIN_TURNS = 200 }; /* some microseconds */

int tide_spin_turns(void)
{
    static int turns = -1;
    cpu_set_t usable;
    if (turns < 0) {
        int is_alone = sched_getaffinity(0, sizeof usable, &usable) == 0 &&
                       CPU_COUNT(&usable) == 1;
        turns = is_alone ? 0 : SPIN_TURNS;
    }
    return turns;
}

int tide_guard_init(struct tide_guard *guard)
{
    pthread_mutexattr_t kind;
    if (pthread_mutexattr_init(&kind) != 0)
        return -1;
    int failed =
        pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED) != 0 ||
        pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST) != 0 ||
        pthread_mutex_init(&guard->mutex, &kind) != 0;
    pthread_mutexattr_destroy(&kind);
    return failed ? -1 : 0;
}

int tide_guard_enter_after(struct tide_guard *guard, int status)
{
    for (int turn = tide_spin_turns(); status == EBUSY && turn > 0; turn--) {
        tide_pause();
        status = pthread_mutex_trylock(&guard->mutex);
    }
    if (status == EBUSY)
        status = pthread_mutex_lock(&guard->mutex);
    return status == EOWNERDEAD;
}

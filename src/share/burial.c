/*
 * What becomes of the dead.
 *
 * A worker that sent an object holds it until the host has taken it in; a dead one
 * cannot know when that is. So it is left as it is, its bits in force, until its
 * heir has taken in all that it sent. When is that? The supervisor reaps the worker,
 * hands over what it had finished, draws a ticket and writes it into the entry as
 * `reaped`, then tells. The host looks at what was told and at the last ticket, then
 * takes in all that has arrived, and then buries those workers of that pool whose
 * ticket is not later: what they sent had been handed over before the ticket was
 * drawn, hence before the host looked. Where a pool has nothing under way and nothing
 * to take in, its dead need not wait for the host to look.
 *
 * Others without a living heir are buried by anybody. There is nobody to tell of
 * them: who makes or drops an object, joins or waits looks for them, which is a few
 * loads for each entry that was ever taken.
 */
#include "share/commons_inner.h"

#include <errno.h>
#include <stdlib.h>

/* ---- who may be buried ---- */

/* The first process may not have joined yet: its heirs' loads are in vain then, but
 * it lives as long as anybody. */
static int lives(struct tide_who who)
{
    const struct tide_entry *first = &tide_commons.entries[TIDE_FIRST_ENTRY];
    if (who.entry == TIDE_FIRST_ENTRY &&
        atomic_load(&first->state) == TIDE_ENTRY_FREE &&
        atomic_load(&first->incarnation) == 0)
        return 1;
    return tide_entry_is_alive(who);
}

static int is_ours(struct tide_who who)
{
    return who.entry == tide_commons.self &&
           who.incarnation == tide_entry_who(who.entry).incarnation;
}

/* May a worker of ours, of this pool, have sent what was not taken in? */
static int may_have_sent(uint32_t crew)
{
    for (size_t i = 0; i < tide_share.open_count; i++) {
        const struct tide_open_crew *open = &tide_share.open_crews[i];
        if (open->crew == crew)
            return !open->is_quiet(open->pool);
    }
    return tide_share.lost_count;
}

/* Is it dead, and of no use to anybody? */
static int is_abandoned(uint32_t index)
{
    const struct tide_entry *entry = &tide_commons.entries[index];
    uint32_t state = atomic_load(&entry->state);
    if (state == TIDE_ENTRY_RESERVED)
        return !lives(entry->parent);
    if (state != TIDE_ENTRY_TAKEN || tide_entry_has_life(index))
        return 0;
    return is_ours(entry->heir) ? !may_have_sent(entry->crew)
                                : !lives(entry->heir);
}

static uint32_t entry_top(void)
{
    return atomic_load(&tide_shared()->entry_top);
}

/* ---- burying ---- */

void tide_bury(uint32_t entry)
{
    struct tide_entry *its = &tide_commons.entries[entry];
    int status = pthread_mutex_trylock(&its->life);
    if (status == EBUSY)
        return;
    if (status == EOWNERDEAD)
        pthread_mutex_consistent(&its->life);
    /* From here on it is dead for everybody, although we have its life. */
    atomic_fetch_add(&its->incarnation, 1);
    tide_objects_bury(entry);
    tide_share_audit(entry);
    atomic_store(&its->state, TIDE_ENTRY_FREE);
    pthread_mutex_unlock(&its->life);
}

uint32_t tide_bury_all(void)
{
    uint32_t count = 0;
    for (uint32_t i = TIDE_FIRST_ENTRY; i < entry_top(); i++) {
        if (is_abandoned(i)) {
            tide_bury(i);
            count++;
        }
    }
    return count;
}

void tide_commons_sweep(void)
{
    if (tide_commons.self == 0)
        return;
    for (uint32_t i = TIDE_FIRST_ENTRY; i < entry_top(); i++) {
        if (is_abandoned(i)) {
            tide_commons_lock();
            tide_bury_all();
            tide_commons_unlock();
            return;
        }
    }
}

/* ---- workers and hosts ---- */

void tide_commons_reaped(pid_t pid)
{
    if (tide_commons.arena.base == NULL)
        return;
    struct tide_commons_shared *shared = tide_shared();
    for (uint32_t i = TIDE_FIRST_ENTRY; i < entry_top(); i++) {
        struct tide_entry *entry = &tide_commons.entries[i];
        if (atomic_load(&entry->state) != TIDE_ENTRY_TAKEN ||
            atomic_load(&entry->pid) != pid || tide_entry_has_life(i))
            continue;
        uint32_t ticket = atomic_fetch_add(&shared->death_tickets, 1) + 1;
        atomic_store(&entry->reaped, ticket);
        atomic_fetch_add(&shared->deaths_told, 1);
    }
}

struct tide_deaths tide_deaths_now(void)
{
    struct tide_deaths deaths = { 0, 0 };
    if (tide_commons.arena.base != NULL) {
        deaths.told = atomic_load(&tide_shared()->deaths_told);
        deaths.ticket = atomic_load(&tide_shared()->death_tickets);
    }
    return deaths;
}

void tide_crew_settled(uint32_t crew, struct tide_deaths before)
{
    if (tide_commons.arena.base == NULL || tide_commons_enter(NULL) != TIDE_OK)
        return;
    tide_commons_lock();
    for (uint32_t i = TIDE_FIRST_ENTRY; i < entry_top(); i++) {
        const struct tide_entry *entry = &tide_commons.entries[i];
        uint32_t reaped = atomic_load(&entry->reaped);
        if (reaped != 0 && (int32_t)(before.ticket - reaped) >= 0 &&
            atomic_load(&entry->state) == TIDE_ENTRY_TAKEN &&
            entry->crew == crew && is_ours(entry->heir))
            tide_bury(i);
    }
    tide_commons_unlock();
}

void tide_crew_opened(uint32_t crew, int (*is_quiet)(const void *pool),
                      const void *pool)
{
    if (tide_share.open_count == tide_share.open_capacity) {
        size_t capacity = 2 * tide_share.open_capacity + 8;
        struct tide_open_crew *crews =
            realloc(tide_share.open_crews, capacity * sizeof *crews);
        tide_share.lost_count |= crews == NULL;
        if (crews == NULL)
            return;
        tide_share.open_crews = crews;
        tide_share.open_capacity = capacity;
    }
    tide_share.open_crews[tide_share.open_count++] =
        (struct tide_open_crew){ crew, is_quiet, pool };
}

void tide_crew_closed(uint32_t crew)
{
    for (size_t i = 0; i < tide_share.open_count; i++) {
        if (tide_share.open_crews[i].crew == crew) {
            tide_share.open_crews[i] =
                tide_share.open_crews[--tide_share.open_count];
            break;
        }
    }
    tide_commons_sweep();
}

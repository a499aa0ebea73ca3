/*
 * The mapping and the entries of processes.
 *
 * A process lives while it holds the robust mutex `life` of its entry. The kernel
 * releases it when the process (the thread that joined) ends, and leaves a mark in
 * the mutex's word, which needs only to be read. It is never released otherwise:
 * a process leaves by ending.
 *
 * Entries change under the lock of the commons, which is robust too. Whatever is
 * done under it can be done again from the start by whoever finds that the last
 * one died over it.
 *
 * Address space is cut once: the first process, which makes most, has half of it,
 * every other entry the same part of the rest. Only touched pages cost anything.
 */
#include "share/commons_inner.h"

#include "base/clock.h"
#include "shm/wake.h"

#include <errno.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    PAGE_BYTES = 4096,
    FEW_ENTRIES = 128, /* where address space is short */
    AS_SHARE = 16      /* and this part of it is taken */
};

static const uint64_t most_bytes = UINT64_C(1) << 44;
static const uint64_t least_bytes = UINT64_C(1) << 24;
static const uint64_t roomy_bytes = UINT64_C(1) << 40;
static const uint64_t bytes_per_object = UINT64_C(1) << 14;

struct tide_commons tide_commons;
struct tide_share_private tide_share;

/* ---- the mapping ---- */

static uint64_t round_up(uint64_t bytes)
{
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static void init_robust(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

static void lay_out(uint64_t size)
{
    struct tide_commons_shared *shared = tide_shared();
    uint64_t objects = size / bytes_per_object;
    const uint64_t most_objects = UINT64_C(1) << 20;
    shared->entry_count = size < roomy_bytes ? FEW_ENTRIES : TIDE_ENTRIES_MAX;
    shared->object_count =
        (uint32_t)(objects < most_objects ? objects : most_objects);
    shared->entries = round_up(sizeof *shared);
    shared->objects = round_up(shared->entries +
                               shared->entry_count * sizeof(struct tide_entry));
    shared->regions = round_up(
        shared->objects + shared->object_count * sizeof(struct tide_object));
    init_robust(&shared->lock);
    atomic_init(&shared->entry_top, TIDE_FIRST_ENTRY + 1);
    atomic_init(&shared->object_top, 1); /* place 0 is none */
}

/* A fork by anybody: the child has no entry, and its holds are its parent's. */
static void on_fork(void)
{
    tide_share.is_copy = tide_share.is_copy || tide_commons.self != 0;
    tide_share.heir.entry = 0;
    tide_commons.self = 0;
}

static void see(void)
{
    const struct tide_commons_shared *shared = tide_shared();
    tide_commons.entries = tide_commons_at(shared->entries);
    tide_commons.objects = tide_commons_at(shared->objects);
    tide_commons.entry_count = shared->entry_count;
    tide_commons.object_count = shared->object_count;
    pthread_atfork(NULL, NULL, on_fork);
}

/* As much as there is room for, and leaving room for what else there is to be. */
static uint64_t size_to_try(void)
{
    struct rlimit limit;
    uint64_t size = most_bytes;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        while (size > limit.rlim_cur / AS_SHARE)
            size /= 2;
    return size;
}

int tide_commons_create(uint64_t size, struct tide_error *err)
{
    struct tide_arena *arena = &tide_commons.arena;
    int status =
        tide_arena_create_named(arena, "tidemill-commons", (size_t)size, err);
    if (status != TIDE_OK) {
        arena->base = NULL;
        return status;
    }
    lay_out(size);
    tide_share.maker = getpid();
    see();
    return TIDE_OK;
}

int tide_commons_open(struct tide_error *err)
{
    if (tide_commons.arena.base != NULL)
        return TIDE_OK;
    int status = tide_fail(err, TIDE_ESYS, "no address space to share");
    for (uint64_t size = size_to_try(); size >= least_bytes; size /= 4) {
        status = tide_commons_create(size, err);
        if (status == TIDE_OK)
            break;
    }
    return status;
}

int tide_commons_attach(int fd, size_t size, struct tide_error *err)
{
    struct tide_arena *arena = &tide_commons.arena;
    int status = tide_arena_attach(arena, fd, size, err);
    if (status != TIDE_OK) {
        arena->base = NULL;
        return status;
    }
    tide_arena_keep(arena, fd);
    see();
    return TIDE_OK;
}

uint64_t tide_commons_resident(void)
{
    return tide_arena_resident(&tide_commons.arena);
}

/* ---- output ---- */

void tide_commons_lose_output(void)
{
    if (tide_commons.arena.base != NULL)
        atomic_store(&tide_shared()->has_lost_output, 1);
}

int tide_commons_has_lost_output(void)
{
    return tide_commons.arena.base != NULL &&
           atomic_load(&tide_shared()->has_lost_output) != 0;
}

/* ---- life ---- */

void tide_commons_lock(void)
{
    pthread_mutex_t *lock = &tide_shared()->lock;
    if (pthread_mutex_lock(lock) == EOWNERDEAD)
        pthread_mutex_consistent(lock);
}

void tide_commons_unlock(void)
{
    pthread_mutex_unlock(&tide_shared()->lock);
}

/* Is the mutex held by somebody who lives? pthread_mutex_trylock() would tell, but
 * take it if not. The C library puts the word of the futex first. */
static int is_held(const pthread_mutex_t *mutex)
{
    const uint32_t owner_died = 0x40000000, owner = 0x3fffffff;
    const _Atomic uint32_t *word = (const void *)mutex;
    uint32_t value = atomic_load(word);
    return (value & owner) != 0 && (value & owner_died) == 0;
}

int tide_entry_is_alive(struct tide_who who)
{
    const struct tide_entry *entry = &tide_commons.entries[who.entry];
    return who.entry != 0 && is_held(&entry->life) &&
           atomic_load(&entry->incarnation) == who.incarnation;
}

int tide_entry_has_life(uint32_t entry)
{
    return is_held(&tide_commons.entries[entry].life);
}

int tide_entry_is_manned(uint32_t entry)
{
    const struct tide_entry *its = &tide_commons.entries[entry];
    uint32_t state = atomic_load(&its->state);
    return state == TIDE_ENTRY_RESERVED
               ? tide_entry_is_alive(its->parent)
               : state == TIDE_ENTRY_TAKEN && is_held(&its->life);
}

/* Take the life of an entry, which nobody has. */
static void begin_life(struct tide_entry *entry)
{
    if (pthread_mutex_trylock(&entry->life) == EOWNERDEAD)
        pthread_mutex_consistent(&entry->life);
}

/* ---- joining ---- */

static uint64_t region_bytes(void)
{
    uint64_t bytes = tide_commons.arena.size - tide_shared()->regions;
    return bytes / 2 / (tide_commons.entry_count - 2) / PAGE_BYTES * PAGE_BYTES;
}

/* An entry that was never taken before: its mutex and its region. */
static void init_entry(uint32_t index)
{
    struct tide_entry *entry = &tide_commons.entries[index];
    uint64_t first = tide_shared()->regions;
    uint64_t end = tide_commons.arena.size;
    init_robust(&entry->life);
    if (index == TIDE_FIRST_ENTRY) {
        end = first + (end - first) / 2 / PAGE_BYTES * PAGE_BYTES;
    } else {
        first = end - region_bytes() * (tide_commons.entry_count - index);
        end = first + region_bytes();
    }
    tide_region_init(&entry->region, first, end);
}

static uint32_t find_free(void)
{
    struct tide_commons_shared *shared = tide_shared();
    uint32_t top = atomic_load(&shared->entry_top);
    for (uint32_t i = TIDE_FIRST_ENTRY + 1; i < top; i++)
        if (atomic_load(&tide_commons.entries[i].state) == TIDE_ENTRY_FREE)
            return i;
    if (top >= tide_commons.entry_count)
        return 0;
    init_entry(top);
    atomic_store(&shared->entry_top, top + 1);
    return top;
}

/* The first entry, for the process that made the commons and nobody after it. */
static uint32_t find_first(void)
{
    struct tide_entry *first = &tide_commons.entries[TIDE_FIRST_ENTRY];
    if (tide_share.maker != getpid() ||
        atomic_load(&first->state) != TIDE_ENTRY_FREE)
        return 0;
    init_entry(TIDE_FIRST_ENTRY);
    return TIDE_FIRST_ENTRY;
}

static uint32_t find_entry(void)
{
    uint32_t index = find_first();
    if (index == 0)
        index = find_free();
    if (index == 0 && tide_bury_all() > 0)
        index = find_free();
    return index;
}

static void take_entry(uint32_t index)
{
    struct tide_entry *entry = &tide_commons.entries[index];
    begin_life(entry);
    entry->heir = tide_share.heir;
    entry->crew = tide_share.crew;
    atomic_store(&entry->giving, 0);
    atomic_store(&entry->reaped, 0);
    atomic_store(&entry->pid, getpid());
    if (atomic_load(&entry->state) == TIDE_ENTRY_FREE)
        atomic_fetch_add(&entry->incarnation, 1);
    atomic_store(&entry->state, TIDE_ENTRY_TAKEN);
    tide_commons.self = index;
    tide_heap_open(&tide_share.heap, &tide_commons.arena, &entry->region);
}

int tide_commons_join(struct tide_error *err)
{
    if (tide_commons.arena.base == NULL)
        return tide_fail(err, TIDE_ESYS,
                         "this process tree shares no memory: it could not be "
                         "mapped at its start");
    tide_commons_lock();
    uint32_t index = find_entry();
    if (index != 0)
        take_entry(index);
    tide_commons_unlock();
    if (index == 0)
        return tide_fail(err, TIDE_ENOMEM,
                         "more than %u processes would share memory",
                         tide_commons.entry_count - 1);
    if (tide_share.is_copy)
        tide_objects_adopt();
    return TIDE_OK;
}

/* ---- sleeping ---- */

void tide_entry_sleep(uint32_t heard, uint64_t deadline_ns)
{
    tide_futex_wait_until(&tide_commons.entries[tide_commons.self].bell, heard,
                          deadline_ns);
}

void tide_entry_ring(uint32_t entry)
{
    _Atomic uint32_t *bell = &tide_commons.entries[entry].bell;
    atomic_fetch_add(bell, 1);
    tide_futex_wake(bell);
}

/* ---- forks ---- */

struct tide_who tide_commons_reserve(void)
{
    struct tide_who who = { 0, 0 };
    if (tide_commons.self == 0)
        return who;
    tide_commons_lock();
    uint32_t index = find_entry();
    if (index != 0) {
        struct tide_entry *entry = &tide_commons.entries[index];
        entry->parent = tide_entry_who(tide_commons.self);
        atomic_fetch_add(&entry->incarnation, 1);
        atomic_store(&entry->pid, 0);
        atomic_store(&entry->reaped, 0);
        atomic_store(&entry->state, TIDE_ENTRY_RESERVED);
        tide_objects_hold_for(index);
        who = tide_entry_who(index);
    }
    tide_commons_unlock();
    return who;
}

/* Under the lock. */
static int is_reserved(struct tide_who who)
{
    const struct tide_entry *entry = &tide_commons.entries[who.entry];
    return atomic_load(&entry->state) == TIDE_ENTRY_RESERVED &&
           atomic_load(&entry->incarnation) == who.incarnation;
}

void tide_commons_cancel(struct tide_who reserved)
{
    if (reserved.entry == 0)
        return;
    tide_commons_lock();
    if (is_reserved(reserved))
        tide_bury(reserved.entry);
    tide_commons_unlock();
}

void tide_commons_become(struct tide_who reserved)
{
    if (reserved.entry == 0)
        return;
    tide_commons_lock();
    if (is_reserved(reserved)) {
        take_entry(reserved.entry);
        tide_share.is_copy = 0;
    }
    tide_commons_unlock();
}

int tide_commons_fd(void)
{
    return tide_commons.arena.base != NULL &&
                   tide_arena_has_fd(&tide_commons.arena)
               ? tide_commons.arena.fd
               : -1;
}

void tide_commons_move_fd(int fd)
{
    tide_commons.arena.fd = fd;
}

void tide_commons_leave_behind(void)
{
    for (uint32_t i = 0; i < tide_share.hold_capacity; i++)
        tide_share.holds[i].count = 0;
    tide_share.held_bytes = 0;
    tide_share.is_copy = 0;
}

void tide_commons_set_heir(struct tide_who host, uint32_t crew)
{
    tide_share.heir = host;
    tide_share.crew = crew;
}

struct tide_who tide_commons_self(void)
{
    struct tide_who who = { 0, 0 };
    if (tide_commons.arena.base == NULL)
        return who;
    /* The entry that will be ours, should we ever join, waits for us. */
    if (tide_share.maker == getpid())
        return (struct tide_who){ TIDE_FIRST_ENTRY, 1 };
    return tide_commons_enter(NULL) == TIDE_OK
               ? tide_entry_who(tide_commons.self)
               : who;
}

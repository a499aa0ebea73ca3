/*
 * Locks, semaphores, events, conditions and barriers for the Lua half, which checks
 * arguments and raises. What takes no time is called through the FFI where it counts:
 * see `pointers`.
 */
#include "lua/shared.h"

#include "base/clock.h"
#include "lua/module.h"
#include "share/sync.h"

#include <lauxlib.h>

/* ---- locks ---- */

static struct tide_lock *lock_at(lua_State *L, int index)
{
    return tide_object_body(tide_check_object(L, index, TIDE_SHARED_LOCK));
}

/* lock_make(recursive) -> place, generation */
static int core_lock_make(lua_State *L)
{
    struct tide_error err;
    tide_handle handle = 0;
    int status = tide_lock_make(&handle, lua_toboolean(L, 1), &err);
    return tide_push_made(L, status, handle, "lock", &err);
}

/* lock_body(place, generation) -> its address, is it recursive */
static int core_lock_body(lua_State *L)
{
    tide_handle handle = tide_check_handle(L, 1);
    if (tide_object_holds(handle) == 0)
        return luaL_error(L, "the lock is not held here");
    struct tide_lock *lock = tide_object_body(handle);
    lua_pushlightuserdata(L, lock);
    lua_pushboolean(L, (int)lock->recursive);
    return 2;
}

/* lock_functions() -> tide_lock_try, tide_lock_release, as light userdata */
static int core_lock_functions(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)(uintptr_t)tide_lock_try);
    lua_pushlightuserdata(L, (void *)(uintptr_t)tide_lock_release);
    return 2;
}

static const char *taken_text(int taken)
{
    return taken == TIDE_TAKEN         ? "taken"
           : taken == TIDE_ABANDONED   ? "abandoned"
           : taken == TIDE_TAKEN_BY_US ? "ours"
                                       : "timeout";
}

/* A slice of the wait for a lock; what it came to goes to `context`. */
static int step_lock(struct tide_wait *wait, void *context)
{
    struct tide_lock *lock = tide_object_body(wait->object);
    int *taken = context;
    *taken = tide_lock_wait(lock, wait->deadline_ns);
    if (*taken != TIDE_TAKEN_BY_OTHER)
        return TIDE_OK;
    return tide_now_ns() < wait->deadline_ns ? TIDE_EAGAIN : TIDE_ETIMEOUT;
}

/* lock_wait(object, seconds or nil) -> "taken", "abandoned", "timeout", or "ours" */
static int core_lock_wait(lua_State *L)
{
    struct tide_wait wait = tide_new_wait(L, TIDE_SHARED_LOCK, 2);
    int taken;
    tide_wait_through(L, &wait, step_lock, &taken);
    lua_pushstring(L, taken_text(taken));
    return 1;
}

/* lock_is_ours(object) */
static int core_lock_is_ours(lua_State *L)
{
    lua_pushboolean(L, tide_lock_is_ours(lock_at(L, 1)));
    return 1;
}

/* lock_forsake(object): give it back if it is ours */
static int core_lock_forsake(lua_State *L)
{
    tide_lock_release_all(lock_at(L, 1));
    return 0;
}

/* ---- semaphores ---- */

/* semaphore_make(count, limit) -> place, generation; limit 0: none */
static int core_semaphore_make(lua_State *L)
{
    struct tide_error err;
    tide_handle handle = 0;
    int status = tide_semaphore_make(&handle, (uint32_t)lua_tonumber(L, 1),
                                     (uint32_t)lua_tonumber(L, 2), &err);
    return tide_push_made(L, status, handle, "semaphore", &err);
}

/* semaphore_body(place, generation) -> its address */
static int core_semaphore_body(lua_State *L)
{
    tide_handle handle = tide_check_handle(L, 1);
    if (tide_object_holds(handle) == 0)
        return luaL_error(L, "the semaphore is not held here");
    lua_pushlightuserdata(L, tide_object_body(handle));
    return 1;
}

/* semaphore_functions() -> take_one, give_one, as light userdata */
static int core_semaphore_functions(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)(uintptr_t)tide_semaphore_take_one);
    lua_pushlightuserdata(L, (void *)(uintptr_t)tide_semaphore_give_one);
    return 2;
}

/* semaphore_try(object, scoped) -> whether one was taken */
static int core_semaphore_try(lua_State *L)
{
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_SEMAPHORE);
    lua_pushboolean(L,
                    tide_semaphore_try(handle, lua_toboolean(L, 2)) == TIDE_OK);
    return 1;
}

static int step_semaphore(struct tide_wait *wait, void *context)
{
    const int *scoped = context;
    return tide_semaphore_wait(wait, *scoped);
}

/* semaphore_wait(object, seconds or nil, scoped) -> how it ended */
static int core_semaphore_wait(lua_State *L)
{
    struct tide_wait wait = tide_new_wait(L, TIDE_SHARED_SEMAPHORE, 2);
    int scoped = lua_toboolean(L, 3);
    tide_push_wait_text(L,
                        tide_wait_through(L, &wait, step_semaphore, &scoped));
    return 1;
}

/* semaphore_release(object, count, scoped) -> false: it would pass the limit */
static int core_semaphore_release(lua_State *L)
{
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_SEMAPHORE);
    int status = tide_semaphore_release(handle, (uint32_t)lua_tonumber(L, 2),
                                        lua_toboolean(L, 3));
    lua_pushboolean(L, status == TIDE_OK);
    return 1;
}

/* semaphore_count(object) */
static int core_semaphore_count(lua_State *L)
{
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_SEMAPHORE);
    lua_pushnumber(L, tide_semaphore_count(handle));
    return 1;
}

/* ---- events ---- */

/* event_make() -> place, generation */
static int core_event_make(lua_State *L)
{
    struct tide_error err;
    tide_handle handle = 0;
    int status = tide_flag_make(&handle, &err);
    return tide_push_made(L, status, handle, "event", &err);
}

/* event_set(object, whether) */
static int core_event_set(lua_State *L)
{
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_EVENT);
    if (lua_toboolean(L, 2))
        tide_flag_set(handle);
    else
        tide_flag_unset(handle);
    return 0;
}

/* event_is_set(object) */
static int core_event_is_set(lua_State *L)
{
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_EVENT);
    lua_pushboolean(L, tide_flag_is_set(handle));
    return 1;
}

static int step_event(struct tide_wait *wait, void *context)
{
    (void)context;
    return tide_flag_wait(wait);
}

/* event_wait(object, seconds or nil) -> how it ended */
static int core_event_wait(lua_State *L)
{
    struct tide_wait wait = tide_new_wait(L, TIDE_SHARED_EVENT, 2);
    tide_push_wait_text(L, tide_wait_through(L, &wait, step_event, NULL));
    return 1;
}

/* ---- conditions ---- */

/* condition_make(lock) -> place, generation */
static int core_condition_make(lua_State *L)
{
    struct tide_error err;
    tide_handle handle = 0;
    int status = tide_condition_make(
        &handle, tide_check_object(L, 1, TIDE_SHARED_LOCK), &err);
    return tide_push_made(L, status, handle, "condition", &err);
}

/* condition_lock(condition) -> place, generation of its lock, held once more */
static int core_condition_lock(lua_State *L)
{
    struct tide_error err;
    tide_handle lock =
        tide_condition_lock(tide_check_object(L, 1, TIDE_SHARED_CONDITION));
    if (tide_object_hold(lock, TIDE_SHARED_LOCK, &err) != TIDE_OK)
        return tide_raise_shared(L, "cannot have the lock", &err);
    tide_push_handle(L, lock);
    return 2;
}

static int step_condition(struct tide_wait *wait, void *context)
{
    (void)context;
    return tide_condition_wait(wait);
}

/* Under lua_pcall(): a wait that was begun -> how it ended */
static int wait_for_notification(lua_State *L)
{
    struct tide_wait *wait = lua_touserdata(L, 1);
    tide_push_wait_text(L, tide_wait_through(L, wait, step_condition, NULL));
    return 1;
}

/* Have the lock back that was given up. */
static int regain(lua_State *L, tide_handle handle, uint32_t times)
{
    struct tide_wait wait = { .object = handle, .deadline_ns = TIDE_FOREVER };
    struct tide_lock *lock = tide_object_body(handle);
    int taken = tide_lock_try(lock);
    if (taken == TIDE_TAKEN_BY_OTHER)
        tide_wait_through(L, &wait, step_lock, &taken);
    tide_lock_deepen(lock, times);
    return taken;
}

/*
 * condition_wait(object, lock, seconds or nil) -> how it ended, whether the lock was
 * abandoned meanwhile. The lock is ours before and after, also if a signal raises.
 */
static int core_condition_wait(lua_State *L)
{
    struct tide_wait wait = tide_new_wait(L, TIDE_SHARED_CONDITION, 3);
    tide_handle lock = tide_check_object(L, 2, TIDE_SHARED_LOCK);
    luaL_checkstack(L, 4, "too many nested calls");
    lua_pushcfunction(L, wait_for_notification);
    lua_pushlightuserdata(L, &wait);
    tide_condition_begin(&wait);
    uint32_t times = tide_lock_release_all(tide_object_body(lock));
    int failed = lua_pcall(L, 1, 1, 0);
    int taken = regain(L, lock, times);
    if (failed)
        return lua_error(L);
    lua_pushboolean(L, taken == TIDE_ABANDONED);
    return 2;
}

/* condition_notify(object, count) -> how many were woken */
static int core_condition_notify(lua_State *L)
{
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_CONDITION);
    lua_pushnumber(L,
                   tide_condition_notify(handle, (uint32_t)lua_tonumber(L, 2)));
    return 1;
}

/* ---- barriers ---- */

/* barrier_make(parties, action or nil, seconds) -> place, generation */
static int core_barrier_make(lua_State *L)
{
    const double ns_per_s = 1e9;
    struct tide_error err;
    struct tide_draft draft;
    tide_handle handle = 0;
    int acts = !lua_isnil(L, 2);
    lua_settop(L, 3);
    tide_draft_compose(&draft, L, 2);
    int status = tide_barrier_make(
        &handle, (uint32_t)lua_tonumber(L, 1), acts ? &draft.message : NULL,
        (uint64_t)(lua_tonumber(L, 3) * ns_per_s), &err);
    tide_draft_discard(&draft);
    return tide_push_made(L, status, handle, "barrier", &err);
}

/* barrier_action(object) -> function or nil */
static int core_barrier_action(lua_State *L)
{
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_BARRIER);
    struct tide_message action;
    if (tide_barrier_action(handle, &action) != 0)
        return 0;
    return tide_push_message(L, action.bytes, action.length) ? 1 : lua_error(L);
}

static int step_barrier(struct tide_wait *wait, void *context)
{
    return tide_barrier_wait(wait, context);
}

/* barrier_wait(object, seconds or nil) -> how it ended, place from 0 */
static int core_barrier_wait(lua_State *L)
{
    struct tide_wait wait = tide_new_wait(L, TIDE_SHARED_BARRIER, 2);
    uint32_t place = 0;
    tide_push_wait_text(L, tide_wait_through(L, &wait, step_barrier, &place));
    lua_pushnumber(L, place);
    return 2;
}

/* barrier_open(object) -> false if it was broken meanwhile */
static int core_barrier_open(lua_State *L)
{
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_BARRIER);
    lua_pushboolean(L, tide_barrier_open(handle) == 0);
    return 1;
}

/* barrier_abort(object) */
static int core_barrier_abort(lua_State *L)
{
    tide_barrier_abort(tide_check_object(L, 1, TIDE_SHARED_BARRIER));
    return 0;
}

/* barrier_reset(object) */
static int core_barrier_reset(lua_State *L)
{
    tide_barrier_reset(tide_check_object(L, 1, TIDE_SHARED_BARRIER));
    return 0;
}

/* barrier_look(object) -> parties, how many wait, whether it is broken, seconds or 0 */
static int core_barrier_look(lua_State *L)
{
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_BARRIER);
    lua_pushnumber(L, tide_barrier_parties(handle));
    lua_pushnumber(L, tide_barrier_waiting(handle));
    lua_pushboolean(L, tide_barrier_is_broken(handle));
    lua_pushnumber(L, (double)tide_barrier_timeout_ns(handle) * 1e-9);
    return 4;
}

const luaL_Reg tide_core_sync[] = {
    { "lock_make", core_lock_make },
    { "lock_body", core_lock_body },
    { "lock_functions", core_lock_functions },
    { "lock_wait", core_lock_wait },
    { "lock_is_ours", core_lock_is_ours },
    { "lock_forsake", core_lock_forsake },
    { "semaphore_make", core_semaphore_make },
    { "semaphore_body", core_semaphore_body },
    { "semaphore_functions", core_semaphore_functions },
    { "semaphore_try", core_semaphore_try },
    { "semaphore_wait", core_semaphore_wait },
    { "semaphore_release", core_semaphore_release },
    { "semaphore_count", core_semaphore_count },
    { "event_make", core_event_make },
    { "event_set", core_event_set },
    { "event_is_set", core_event_is_set },
    { "event_wait", core_event_wait },
    { "condition_make", core_condition_make },
    { "condition_lock", core_condition_lock },
    { "condition_wait", core_condition_wait },
    { "condition_notify", core_condition_notify },
    { "barrier_make", core_barrier_make },
    { "barrier_action", core_barrier_action },
    { "barrier_wait", core_barrier_wait },
    { "barrier_open", core_barrier_open },
    { "barrier_abort", core_barrier_abort },
    { "barrier_reset", core_barrier_reset },
    { "barrier_look", core_barrier_look },
    { NULL, NULL },
};

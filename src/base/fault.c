#include "base/fault.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

struct point {
    _Atomic uint32_t action; /* enum tide_fault_action */
    uint32_t value;
    uint32_t roles;
    uint32_t at;
    uint32_t every;
    _Atomic uint32_t hits;
    _Atomic uint32_t fired;
};

static struct point *points; /* shared with what is forked; NULL: none fires */
static enum tide_fault_role our_role = TIDE_FAULT_HOST;

/* Before anything can have been forked. */
__attribute__((constructor)) static void share_points(void)
{
    void *page =
        mmap(NULL, TIDE_FAULT_COUNT * sizeof(struct point),
             PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    points = page == MAP_FAILED ? NULL : page;
}

/* Is it the turn of this hit? */
static int is_due(const struct point *point, uint32_t hit)
{
    if (hit < point->at || point->every == 0)
        return hit == point->at;
    return (hit - point->at) % point->every == 0;
}

int tide_fault_hit(enum tide_fault fault)
{
    struct point *point = points != NULL ? &points[fault] : NULL;
    /* Acquire: the order is seen with the action. */
    uint32_t action =
        point ? atomic_load_explicit(&point->action, memory_order_acquire)
              : TIDE_FAULT_OFF;
    if (action == TIDE_FAULT_OFF || (point->roles & our_role) == 0 ||
        !is_due(point, atomic_fetch_add(&point->hits, 1) + 1))
        return 0;
    atomic_fetch_add(&point->fired, 1);
    if (action == TIDE_FAULT_FAIL) {
        errno = (int)point->value;
        return 1;
    }
    kill(getpid(), (int)point->value);
    return 0;
}

void tide_fault_become(enum tide_fault_role role)
{
    our_role = role;
}

void tide_fault_set(enum tide_fault fault, const struct tide_fault_order *order)
{
    if (points == NULL)
        return;
    struct point *point = &points[fault];
    atomic_store(&point->action, TIDE_FAULT_OFF);
    point->value = (uint32_t)order->value;
    point->roles = order->roles;
    point->at = order->at;
    point->every = order->every;
    atomic_store(&point->hits, 0);
    atomic_store(&point->fired, 0);
    atomic_store_explicit(&point->action, order->action, memory_order_release);
}

uint32_t tide_fault_fired(enum tide_fault fault)
{
    return points != NULL ? atomic_load(&points[fault].fired) : 0;
}

const char *tide_fault_name(enum tide_fault fault)
{
    static const char *const names[] = {
#define X(name, text) text,
        TIDE_FAULT_MAP(X)
#undef X
    };
    return (size_t)fault < TIDE_FAULT_COUNT ? names[fault] : NULL;
}

#include "share/data.h"

#include "base/clock.h"

#include <errno.h>
#include <string.h>
#include <time.h>

enum { LINE_BYTES = 64 };

/* ---- making ---- */

static void init_lock(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

static uint64_t head_bytes(const struct tide_data_plan *plan)
{
    uint64_t bytes = sizeof(struct tide_data) + plan->name_bytes + 1;
    return (bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
}

static void prepare(struct tide_object *object, void *context)
{
    const struct tide_data_plan *plan = context;
    struct tide_data *data = tide_commons_at(object->body);
    init_lock(&data->lock);
    data->element_bytes = plan->element_bytes;
    data->rows = plan->rows;
    data->cols = plan->cols;
    data->is_matrix = (uint32_t)plan->is_matrix;
    data->elements = head_bytes(plan);
    data->name_bytes = (uint32_t)plan->name_bytes;
    memcpy(data->name, plan->name, plan->name_bytes);
}

int tide_data_make(tide_handle *out, const struct tide_data_plan *plan,
                   struct tide_error *err)
{
    struct tide_data_plan copy = *plan;
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(plan->rows, plan->cols, &bytes) ||
        __builtin_mul_overflow(bytes, plan->element_bytes, &bytes) ||
        __builtin_add_overflow(bytes, head_bytes(plan), &bytes))
        bytes = UINT64_MAX;
    return tide_object_make(out, plan->kind, bytes, prepare, &copy, err);
}

/* ---- locking ---- */

int tide_data_lock(struct tide_data *data, uint64_t deadline_ns)
{
    const uint64_t ns_per_s = UINT64_C(1000000000);
    struct timespec until = { .tv_sec = (time_t)(deadline_ns / ns_per_s),
                              .tv_nsec = (long)(deadline_ns % ns_per_s) };
    int status = pthread_mutex_trylock(&data->lock);
    if (status == EBUSY)
        status =
            deadline_ns == TIDE_FOREVER
                ? pthread_mutex_lock(&data->lock)
                : pthread_mutex_clocklock(&data->lock, CLOCK_MONOTONIC, &until);
    if (status == EOWNERDEAD) {
        pthread_mutex_consistent(&data->lock);
        return TIDE_EABANDONED;
    }
    return status == 0 ? TIDE_OK : TIDE_ETIMEOUT;
}

int tide_data_unlock(struct tide_data *data)
{
    return pthread_mutex_unlock(&data->lock) == 0 ? TIDE_OK : TIDE_EINVAL;
}

/* ---- atomic operations ---- */

/* Types as the FFI names them, whole numbers first. A type is no expression. */
/* NOLINTBEGIN(bugprone-macro-parentheses) */
#define WHOLE(X)                                                               \
    X(int8_t, "char")                                                          \
    X(uint8_t, "unsigned char")                                                \
    X(int16_t, "short")                                                        \
    X(uint16_t, "unsigned short")                                              \
    X(int32_t, "int")                                                          \
    X(uint32_t, "unsigned int")                                                \
    X(int64_t, "int64_t")                                                      \
    X(uint64_t, "uint64_t")

#define FRACTIONAL(X)                                                          \
    X(float, "float", uint32_t)                                                \
    X(double, "double", uint64_t)

#define DEFINE_WHOLE(type, name)                                               \
    static type add_##type(_Atomic type *at, type n)                           \
    {                                                                          \
        return (type)(atomic_fetch_add(at, n) + n);                            \
    }                                                                          \
    static _Bool cas_##type(_Atomic type *at, type expected, type desired)     \
    {                                                                          \
        return atomic_compare_exchange_strong(at, &expected, desired);         \
    }

/* By the bits: 0 and -0 differ, and a NaN is itself. */
#define DEFINE_FRACTIONAL(type, name, bits)                                    \
    static type add_##type(_Atomic bits *at, type n)                           \
    {                                                                          \
        bits seen = atomic_load(at), wanted;                                   \
        type sum;                                                              \
        do {                                                                   \
            memcpy(&sum, &seen, sizeof sum);                                   \
            sum += n;                                                          \
            memcpy(&wanted, &sum, sizeof wanted);                              \
        } while (!atomic_compare_exchange_weak(at, &seen, wanted));            \
        return sum;                                                            \
    }                                                                          \
    static _Bool cas_##type(_Atomic bits *at, type expected, type desired)     \
    {                                                                          \
        bits from, to;                                                         \
        memcpy(&from, &expected, sizeof from);                                 \
        memcpy(&to, &desired, sizeof to);                                      \
        return atomic_compare_exchange_strong(at, &from, to);                  \
    }

WHOLE(DEFINE_WHOLE)
FRACTIONAL(DEFINE_FRACTIONAL)

/* NOLINTEND(bugprone-macro-parentheses) */

const void *tide_data_function(const char *operation, const char *type)
{
    static const struct {
        const char *type;
        void (*add)(void);
        void (*cas)(void);
    } table[] = {
#define WHOLE_ENTRY(type, name)                                                \
    { name, (void (*)(void))add_##type, (void (*)(void))cas_##type },
#define FRACTIONAL_ENTRY(type, name, bits)                                     \
    { name, (void (*)(void))add_##type, (void (*)(void))cas_##type },
        WHOLE(WHOLE_ENTRY) FRACTIONAL(FRACTIONAL_ENTRY)
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(table[i].type, type) == 0)
            return (const void *)(uintptr_t)(strcmp(operation, "add") == 0
                                                 ? table[i].add
                                                 : table[i].cas);
    return NULL;
}

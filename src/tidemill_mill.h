/**
 * @file tidemill_mill.h
 * @brief Mills, calls, and the values that go there and back; part of tidemill.h,
 *        whose rules hold here.
 */
#ifndef TIDEMILL_MILL_H
#define TIDEMILL_MILL_H

#ifndef TIDEMILL_H
#error "include tidemill.h, which includes this"
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tide_mill tide_mill;
typedef struct tide_call tide_call;
typedef struct tide_args tide_args;

/** As a number of seconds to wait. */
#define TIDE_WAIT_FOREVER (-1.0)

/* ---- mills ---- */

struct tide_mill_options {
    size_t size;
    tide_starter *starter; /* gone from now on, also if this fails; or */
    const struct tide_start_options *start; /* NULL, or how to start one now */
    unsigned processes;    /* workers; 0: as many as usable processors */
    const char *path;      /* put before package.path, */
    const char *cpath;     /* and package.cpath */
    double timeout_s;      /* an item may take; 0: for ever */
    unsigned retries;      /* of an item lost with its worker, or timed out */
    unsigned retry_errors; /* of an item that raised */
    unsigned max_tasks;    /* items after which a worker is replaced */
    uint64_t memory_limit_bytes; /* Lua heap per worker; beyond, calls fail */
    uint64_t max_rss_bytes; /* private memory; a worker with more is replaced */
};

/**
 * Make a mill; `options` may be NULL. Waits for its workers only if there is a hook:
 * TIDE_EINIT is what that raised.
 */
TIDE_API int tide_mill_open(tide_mill **out,
                            const struct tide_mill_options *options,
                            struct tide_error *err);

/**
 * Free a mill and its calls, kill its workers, and wait for their end. What is to
 * be finished is to be waited for before. NULL is none.
 */
TIDE_API void tide_mill_free(tide_mill *mill);

/**
 * Run a script in the mill's state, this process, from `size` bytes or a file: it
 * defines, as globals, the functions that calls name. `name` is for tracebacks.
 */
TIDE_API int tide_mill_load(tide_mill *mill, const char *name, const char *text,
                            size_t size, struct tide_error *err);
TIDE_API int tide_mill_load_file(tide_mill *mill, const char *path,
                                 struct tide_error *err);

struct tide_call_options {
    size_t size;
    double timeout_s; /* these four as of the mill, if not 0 */
    unsigned retries;
    unsigned retry_errors;
    unsigned chunk_size; /* items a worker takes at a time; 0: adapts */
    int collect;         /* map: failed items do not end the call: see below */
    int unpack;          /* map: items are tables of arguments */
    void *data;          /* for tide_call_data() */
};

/**
 * Have a function run by some worker. Returns at once; any number of calls may be
 * under way. The args are encoded now and remain yours.
 *
 * @param function  a global of the script, also "a.b.c"; "x, y -> x + y"; or
 *                  "module:function"
 * @param args      each value is an argument; NULL for none
 * @param options   NULL for none
 */
TIDE_API int tide_mill_call(tide_call **out, tide_mill *mill,
                            const char *function, const tide_args *args,
                            const struct tide_call_options *options,
                            struct tide_error *err);

/**
 * Have it run for each of the values, which may not be nil, by all workers. The
 * results are a list in this order. With `collect` a failed item has its error in
 * it, a table of the fields that are described at tide_call_wait().
 */
TIDE_API int tide_mill_map(tide_call **out, tide_mill *mill,
                           const char *function, const tide_args *items,
                           const struct tide_call_options *options,
                           struct tide_error *err);

/**
 * Have a task run by some worker. The bytes are copied now; its only result are
 * bytes. (The tasks are functions of the module "tidemill.tasks": map them by
 * "tidemill.tasks:NAME" over strings, or call them from Lua.)
 */
TIDE_API int tide_mill_run(tide_call **out, tide_mill *mill, const char *task,
                           const void *bytes, size_t size,
                           const struct tide_call_options *options,
                           struct tide_error *err);

/**
 * The next call that is over and was not yet reported, by this or by
 * tide_call_wait().
 *
 * @param seconds  to wait for one; 0 to look only
 * @return TIDE_OK, whatever has become of the call; TIDE_EAGAIN if there is none in
 *         that time, or no call is under way
 */
TIDE_API int tide_mill_next(tide_call **out, tide_mill *mill, double seconds,
                            struct tide_error *err);

/**
 * A descriptor for poll() and the like, the mill's, readable when there is
 * something to do. Then call tide_mill_next() with 0 seconds until it returns
 * TIDE_EAGAIN, also if it does so at once; and before the first wait.
 *
 * @return the same each time; -1 with the cause in `err`
 */
TIDE_API int tide_mill_fd(tide_mill *mill, struct tide_error *err);

/*
 * ---- values to be sent ----
 *
 * Values are appended; each function returns `args`, so that it can stand in the
 * next. What goes wrong (memory, tables begun and ended, names) is remembered and
 * reported by the call that is given them. Any thread may make them; no mill is
 * needed.
 */

/** No values yet; never NULL. */
TIDE_API tide_args *tide_args_new(void);
TIDE_API void tide_args_free(tide_args *args);

/** As new, to be filled once more. */
TIDE_API tide_args *tide_args_clear(tide_args *args);

TIDE_API tide_args *tide_args_nil(tide_args *args);
TIDE_API tide_args *tide_args_bool(tide_args *args, int value);
TIDE_API tide_args *tide_args_number(tide_args *args, double value);

/** A number where one is exact, up to 2^53; beyond, a cdata int64_t. */
TIDE_API tide_args *tide_args_integer(tide_args *args, int64_t value);

/** A string: bytes that are copied, or up to the NUL. */
TIDE_API tide_args *tide_args_string(tide_args *args, const void *bytes,
                                     size_t size);
TIDE_API tide_args *tide_args_text(tide_args *args, const char *text);

/** A list of numbers, as one value; and as many values. */
TIDE_API tide_args *tide_args_numbers(tide_args *args, const double *numbers,
                                      size_t count);
TIDE_API tide_args *tide_args_each(tide_args *args, const double *numbers,
                                   size_t count);

/**
 * A table: what is appended until its end goes into it, after a name as the field
 * of this name, else to its list. Up to 60 in each other.
 */
TIDE_API tide_args *tide_args_begin(tide_args *args);
TIDE_API tide_args *tide_args_name(tide_args *args, const char *name);
TIDE_API tide_args *tide_args_end(tide_args *args);

/* ---- calls ---- */

/**
 * Wait for the end of a call; signals do not end it.
 *
 * @param seconds  0 to look only; TIDE_WAIT_FOREVER
 * @return TIDE_OK: its results can be read; TIDE_EAGAIN: it is still under way;
 *         else what became of it, with the message in `err`. Its error can then be
 *         read like a table of results: "kind", "message", "traceback", "value"
 *         (what was raised), "index" (of the item, from 1), "worker", "pid",
 *         "signal" or "exitcode", "attempts".
 */
TIDE_API int tide_call_wait(tide_call *call, double seconds,
                            struct tide_error *err);

/** End it: what has not begun is not run, the workers that run it are replaced. */
TIDE_API void tide_call_cancel(tide_call *call);

/** Forget it; what has not ended is cancelled. NULL is none. */
TIDE_API void tide_call_free(tide_call *call);

/** What its options had as `data`. */
TIDE_API void *tide_call_data(const tide_call *call);

/*
 * ---- results ----
 *
 * Of a call that is over. A path are names and numbers, as in "1.rows.20.name": "1",
 * "2", ... is what the function returned, for a map what it returned for item 1, 2,
 * ... Digits are a number before they are a name. "" is all of it. TIDE_EINVAL:
 * nothing is there, or it is of another type; TIDE_EAGAIN: the call is under way.
 */

enum tide_type {
    TIDE_TYPE_NIL, /* also: not there */
    TIDE_TYPE_BOOL,
    TIDE_TYPE_NUMBER,
    TIDE_TYPE_INTEGER, /* a cdata int64_t or uint64_t */
    TIDE_TYPE_STRING,
    TIDE_TYPE_TABLE,
    TIDE_TYPE_OTHER
};

TIDE_API enum tide_type tide_get_type(tide_call *call, const char *path);
TIDE_API int tide_get_bool(int *out, tide_call *call, const char *path);
TIDE_API int tide_get_number(double *out, tide_call *call, const char *path);

/** A whole number, also one beyond 2^53 that is a cdata; of uint64_t the bits. */
TIDE_API int tide_get_integer(int64_t *out, tide_call *call, const char *path);

/** With a NUL behind; there until the call is freed. `size` may be NULL. */
TIDE_API int tide_get_string(const char **out, size_t *size, tide_call *call,
                             const char *path);

/** A list of numbers. `count`: the room in `out`, then how many there are. */
TIDE_API int tide_get_numbers(double *out, size_t *count, tide_call *call,
                              const char *path);

/** How long the list is that a table has; 0 if it is none. */
TIDE_API size_t tide_get_length(tide_call *call, const char *path);

/*
 * A cursor, for tables with keys not known before. Paths begin at the table that
 * was entered last; after tide_call_next() at the value it came to, whose key is
 * at "@".
 */

TIDE_API int tide_call_enter(tide_call *call, const char *path);

/** On to the next pair of the table, in any order; 0 if there is none. */
TIDE_API int tide_call_next(tide_call *call);

/** Back to before the table was entered. */
TIDE_API void tide_call_leave(tide_call *call);

#ifdef __cplusplus
}
#endif

#endif

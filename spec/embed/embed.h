/**
 * @file embed.h
 * @brief What every program of the embedding specs needs. Each is a C host that sees
 *        nothing but the public header.
 *
 * A failed check ends the program, with 1; so does taking for ever.
 */
#ifndef TIDE_SPEC_EMBED_H
#define TIDE_SPEC_EMBED_H

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <tidemill.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_S = 60, WATCHDOG_S = 100 };

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__,         \
                    #condition);                                               \
            fflush(stderr);                                                    \
            _exit(EXIT_FAILURE);                                               \
        }                                                                      \
    } while (0)

/** `expression` returns this status; else the text in `err` is shown. */
#define CHECK_STATUS(expected, expression, err)                                \
    do {                                                                       \
        int status_is = (expression);                                          \
        if (status_is != (expected)) {                                         \
            fprintf(stderr, "%s:%d: failed: %s is %d (%s), not %s: %s\n",      \
                    __FILE__, __LINE__, #expression, status_is,                \
                    tide_status_text(status_is), #expected, (err).text);       \
            fflush(stderr);                                                    \
            _exit(EXIT_FAILURE);                                               \
        }                                                                      \
    } while (0)

#define CHECK_OK(expression, err) CHECK_STATUS(TIDE_OK, expression, err)

static inline void bark(int signal_number)
{
    static const char text[] = "failed: takes for ever\n";
    (void)signal_number;
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(EXIT_FAILURE);
}

static inline void watch_time(void)
{
    signal(SIGALRM, bark);
    alarm(WATCHDOG_S);
}

/** Of the process's own, to its end, see tidemill.h. */
static inline int is_for_good(int directory, const char *name)
{
    char target[64] = "";
    (void)!readlinkat(directory, name, target, sizeof target - 1);
    return strstr(target, "tidemill-commons") != NULL;
}

static inline int count_fds(void)
{
    int count = 0;
    DIR *fds = opendir("/proc/self/fd");
    CHECK(fds != NULL);
    for (struct dirent *fd; (fd = readdir(fds)) != NULL;)
        count += !is_for_good(dirfd(fds), fd->d_name);
    closedir(fds);
    return count;
}

/** No child is left, not even as a zombie, and no descriptor beyond `fds`. */
static inline void check_nothing_left(int fds)
{
    CHECK(waitpid(-1, NULL, WNOHANG) == -1);
    CHECK(count_fds() == fds);
}

static inline double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline tide_mill *open_mill(const struct tide_mill_options *options)
{
    struct tide_error err = { 0 };
    tide_mill *mill = NULL;
    CHECK_OK(tide_mill_open(&mill, options, &err), err);
    CHECK(mill != NULL);
    return mill;
}

static inline void load(tide_mill *mill, const char *text)
{
    struct tide_error err = { 0 };
    CHECK_OK(tide_mill_load(mill, "spec.lua", text, strlen(text), &err), err);
}

/** A call that is waited for and does well. */
static inline tide_call *call_and_wait(tide_mill *mill, const char *function,
                                       const tide_args *args)
{
    struct tide_error err = { 0 };
    tide_call *call = NULL;
    CHECK_OK(tide_mill_call(&call, mill, function, args, NULL, &err), err);
    CHECK_OK(tide_call_wait(call, PATIENCE_S, &err), err);
    return call;
}

/** What comes of a call, as a status; its error is in `err`. */
static inline int try_call(tide_mill *mill, const char *function,
                           const tide_args *args, struct tide_error *err)
{
    tide_call *call = NULL;
    int status = tide_mill_call(&call, mill, function, args, NULL, err);
    if (status == TIDE_OK)
        status = tide_call_wait(call, PATIENCE_S, err);
    tide_call_free(call);
    return status;
}

static inline void check_text(const char *is, const char *expected)
{
    if (strcmp(is, expected) != 0) {
        fprintf(stderr, "it is '%s', not '%s'\n", is, expected);
        CHECK(0);
    }
}

static inline double number_at(tide_call *call, const char *path)
{
    double number = 0;
    if (tide_get_number(&number, call, path) != TIDE_OK) {
        fprintf(stderr, "no number at '%s'\n", path);
        CHECK(0);
    }
    return number;
}

static inline const char *text_at(tide_call *call, const char *path)
{
    const char *text = NULL;
    if (tide_get_string(&text, NULL, call, path) != TIDE_OK) {
        fprintf(stderr, "no string at '%s'\n", path);
        CHECK(0);
    }
    return text;
}

#endif

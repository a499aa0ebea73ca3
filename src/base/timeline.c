/*
 * The file is an array, an event a line; see "Trace Event Format" by the Chromium
 * project. Times are in microseconds.
 *
 * `written` alone says what is in the file: a flush that is interrupted by one in a
 * signal handler is repeated there, to the same place.
 */
#include "base/timeline.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    EVENT_BYTES = 1024, /* the longest there is */
    DETAILS_BYTES = 512,
    FD_MIN = 3
};

static const uint64_t flush_every_ns = UINT64_C(1000000000);
static const char opening[] = "[\n";
static const char closing[] = "\n]\n";

/* ---- writing ---- */

static size_t pending(const struct tide_timeline *line)
{
    return (size_t)(line->added - line->written);
}

static ssize_t write_some(const struct tide_timeline *line, const char *bytes,
                          size_t size, uint64_t at)
{
    return line->can_seek ? pwrite(line->fd, bytes, size, (off_t)at)
                          : write(line->fd, bytes, size);
}

static void write_all(struct tide_timeline *line, size_t size)
{
    const char *bytes = line->buffer;
    uint64_t at = line->written;
    while (size > 0 && line->failure == 0) {
        ssize_t count = write_some(line, bytes, size, at);
        if (count < 0 && errno != EINTR)
            line->failure = errno;
        if (count <= 0)
            continue;
        bytes += count;
        size -= (size_t)count;
        at += (uint64_t)count;
    }
}

void tide_timeline_flush(struct tide_timeline *line)
{
    const size_t end = sizeof closing - 1;
    size_t size = pending(line);
    if (size == 0)
        return;
    memcpy(line->buffer + size, closing, end);
    write_all(line, line->can_seek ? size + end : size);
    line->written = line->added;
}

static void add(struct tide_timeline *line, const char *text, size_t size)
{
    if (pending(line) + size + sizeof closing > TIDE_TIMELINE_BYTES)
        tide_timeline_flush(line);
    memcpy(line->buffer + pending(line), text, size);
    line->added += size;
}

int tide_timeline_open(struct tide_timeline *out, const char *path,
                       struct tide_error *err)
{
    *out =
        (struct tide_timeline){ .owner = getpid(), .zero_ns = tide_now_ns() };
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return tide_fail_errno(err, "cannot open '%s'", path);
    out->fd = fcntl(fd, F_DUPFD_CLOEXEC, FD_MIN);
    close(fd);
    if (out->fd < 0)
        return tide_fail_errno(err, "cannot open '%s'", path);
    out->buffer = malloc(TIDE_TIMELINE_BYTES);
    if (out->buffer == NULL) {
        close(out->fd);
        return tide_fail(err, TIDE_ENOMEM, "not enough memory for '%s'", path);
    }
    out->can_seek = lseek(out->fd, 0, SEEK_CUR) == 0;
    out->written_ns = out->zero_ns;
    add(out, opening, sizeof opening - 1);
    tide_timeline_flush(out);
    if (out->failure == 0)
        return TIDE_OK;
    close(out->fd);
    free(out->buffer);
    out->buffer = NULL;
    errno = out->failure;
    return tide_fail_errno(err, "cannot write to '%s'", path);
}

int tide_timeline_close(struct tide_timeline *line, struct tide_error *err)
{
    tide_timeline_flush(line);
    if (!line->can_seek) {
        add(line, closing, sizeof closing - 1);
        tide_timeline_flush(line);
    }
    if (close(line->fd) != 0 && line->failure == 0)
        line->failure = errno;
    free(line->buffer);
    line->buffer = NULL;
    if (line->failure == 0)
        return TIDE_OK;
    errno = line->failure;
    return tide_fail_errno(err, "cannot write the trace");
}

/* ---- events ---- */

/* A name as the inside of a JSON string. Only ASCII is sure to be UTF-8. */
static void quote(char *out, const char *text)
{
    for (size_t i = 0; i < TIDE_TIMELINE_NAME_BYTES && text[i] != '\0'; i++) {
        char byte = text[i];
        if (byte == '"' || byte == '\\')
            *out++ = '\\';
        if (byte < ' ' || byte > '~')
            byte = '?';
        *out++ = byte;
    }
    *out = '\0';
}

/* One event; `head` are its members up to the details. */
static void add_event(struct tide_timeline *line, const char *head,
                      const char *details)
{
    char text[EVENT_BYTES];
    const char *comma = line->added > sizeof opening - 1 ? ",\n" : "";
    int size = snprintf(text, sizeof text, "%s{%s,\"args\":{%s}}", comma, head,
                        details);
    if (size > 0 && (size_t)size < sizeof text)
        add(line, text, (size_t)size);
}

static void name_row(struct tide_timeline *line, struct tide_row row,
                     const char *what, const char *name)
{
    char quoted[2 * TIDE_TIMELINE_NAME_BYTES + 1];
    char head[128], details[sizeof quoted + 16];
    quote(quoted, name);
    snprintf(details, sizeof details, "\"name\":\"%s\"", quoted);
    snprintf(head, sizeof head,
             "\"ph\":\"M\",\"name\":\"%s_name\",\"pid\":%u,\"tid\":%u", what,
             row.group, row.row);
    add_event(line, head, details);
    snprintf(head, sizeof head,
             "\"ph\":\"M\",\"name\":\"%s_sort_index\",\"pid\":%u,\"tid\":%u",
             what, row.group, row.row);
    snprintf(details, sizeof details, "\"sort_index\":%u",
             row.row != 0 ? row.row : row.group);
    add_event(line, head, details);
}

void tide_timeline_name_group(struct tide_timeline *line, uint32_t group,
                              const char *name)
{
    name_row(line, (struct tide_row){ group, 0 }, "process", name);
}

void tide_timeline_name_row(struct tide_timeline *line, struct tide_row row,
                            const char *name)
{
    name_row(line, row, "thread", name);
}

struct stamp {
    char text[24];
};

/* Not by "%f": the script may have chosen a locale with commas. */
static struct stamp microseconds(uint64_t ns)
{
    struct stamp stamp;
    snprintf(stamp.text, sizeof stamp.text, "%" PRIu64 ".%03u", ns / 1000,
             (unsigned)(ns % 1000));
    return stamp;
}

static uint64_t since_zero(const struct tide_timeline *line, uint64_t at_ns)
{
    return at_ns > line->zero_ns ? at_ns - line->zero_ns : 0;
}

/* `times` are members, beginning with the letter of the kind. */
static void add_timed(struct tide_timeline *line, struct tide_row row,
                      const char *name, const char *times, const char *details,
                      va_list values)
{
    char quoted[2 * TIDE_TIMELINE_NAME_BYTES + 1];
    char head[sizeof quoted + 160], body[DETAILS_BYTES];
    quote(quoted, name);
    snprintf(head, sizeof head, "%s,\"pid\":%u,\"tid\":%u,\"name\":\"%s\"",
             times, row.group, row.row, quoted);
    int size = vsnprintf(body, sizeof body, details, values);
    add_event(line, head, size >= 0 && (size_t)size < sizeof body ? body : "");
    uint64_t now_ns = tide_now_ns();
    if (now_ns - line->written_ns >= flush_every_ns) {
        tide_timeline_flush(line);
        line->written_ns = now_ns;
    }
}

void tide_timeline_span(struct tide_timeline *line, struct tide_row row,
                        const char *name, uint64_t begin_ns, uint64_t end_ns,
                        const char *details, ...)
{
    char times[96];
    uint64_t begin = since_zero(line, begin_ns);
    uint64_t end = since_zero(line, end_ns);
    va_list values;
    snprintf(times, sizeof times, "\"ph\":\"X\",\"ts\":%s,\"dur\":%s",
             microseconds(begin).text,
             microseconds(end > begin ? end - begin : 0).text);
    va_start(values, details);
    add_timed(line, row, name, times, details, values);
    va_end(values);
}

void tide_timeline_mark(struct tide_timeline *line, struct tide_row row,
                        const char *name, uint64_t at_ns, const char *details,
                        ...)
{
    char times[96];
    va_list values;
    snprintf(times, sizeof times, "\"ph\":\"i\",\"s\":\"t\",\"ts\":%s",
             microseconds(since_zero(line, at_ns)).text);
    va_start(values, details);
    add_timed(line, row, name, times, details, values);
    va_end(values);
}

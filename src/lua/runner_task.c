/*
 * A task of the host's: it reads the item's bytes where they are, in the arguments,
 * and writes its answer to where results go. The two look like any others, a string
 * each; what is no string is handled as any item.
 */
#include "lua/reader.h"
#include "lua/runner_parts.h"
#include "lua/task.h"
#include "lua/writer.h"

#include "lua/errors.h"

/* The length of an answer is known only behind it: a varint of so many bytes. */
enum { LENGTH_BYTES = 6, HEAD_MAX = 3 + LENGTH_BYTES };

int tide_runner_has_task(const struct tide_runner *runner)
{
    const unsigned ways = TIDE_RUN_TRUTH | TIDE_RUN_EFFECT | TIDE_RUN_FOLD;
    return (runner->request.flags & ways) == 0 &&
           (runner->form == TIDE_ARGS_MESSAGE ||
            runner->form == TIDE_ARGS_MESSAGES) &&
           lua_iscfunction(runner->L, TIDE_AT_FUNCTION) &&
           tide_task_at(runner->L, TIDE_AT_FUNCTION) != NULL;
}

/* The only string of an item's message; NULL if it is another one. */
static const unsigned char *find_bytes(const struct tide_runner *runner,
                                       uint32_t item, uint64_t *size)
{
    struct tide_reader in = { .at = runner->args, .end = runner->args_end };
    if (runner->form == TIDE_ARGS_MESSAGES) {
        uint32_t offset;
        memcpy(&offset, in.at + (1 + (size_t)item) * sizeof offset,
               sizeof offset);
        in.at += offset;
    }
    unsigned head = tide_read_byte(&in);
    if ((head & (unsigned)~TIDE_HEAD_MULTI) != 0 ||
        (head != 0 && tide_read_varint(&in) != 1))
        return NULL;
    unsigned tag = tide_read_byte(&in);
    if (tag == TIDE_TAG_STRING)
        *size = tide_read_varint(&in);
    else if (tag >= TIDE_TAG_SHORT_STRING && tag < TIDE_TAG_SMALL_INT)
        *size = tag - TIDE_TAG_SHORT_STRING;
    else
        return NULL;
    return tide_read(&in, *size);
}

/* Begin an answer; returns where it begins, or SIZE_MAX without memory. */
static size_t begin_answer(struct tide_runner *runner)
{
    struct tide_buffer *out = &runner->out;
    size_t from = out->used;
    unsigned char *at = tide_buffer_reserve(out, HEAD_MAX);
    if (at == NULL)
        return SIZE_MAX;
    int all = (runner->request.flags & TIDE_RUN_ALL) != 0;
    *at++ = all ? TIDE_HEAD_MULTI : 0;
    if (all)
        *at++ = 1; /* of them */
    *at++ = TIDE_TAG_STRING;
    out->used = (size_t)(at - out->data) + LENGTH_BYTES;
    return from;
}

/* Say how long the answer is that begins at `text`. */
static void end_answer(struct tide_buffer *out, size_t text)
{
    uint64_t length = out->used - text;
    unsigned char *at = out->data + text - LENGTH_BYTES;
    for (int i = 0; i < LENGTH_BYTES - 1; i++, length >>= 7)
        *at++ = (unsigned char)(length | 0x80);
    *at = (unsigned char)length;
}

static void push_failure(struct tide_runner *runner,
                         const struct tide_task *task, size_t text, int code)
{
    lua_State *L = runner->L;
    struct tide_buffer *out = &runner->out;
    if (out->used > text)
        lua_pushlstring(L, (const char *)out->data + text, out->used - text);
    else
        lua_pushfstring(L, "task '%s' failed: %d", task->name, code);
    tide_error_push(L, "task", lua_tostring(L, -1));
}

/* Run one item. -1 with an error on top. */
static int run_task(struct tide_runner *runner, const struct tide_task *task,
                    const unsigned char *bytes, uint64_t size)
{
    struct tide_output answer = { .buffer = &runner->out };
    size_t from = begin_answer(runner);
    if (from == SIZE_MAX) {
        tide_error_push(runner->L, "encode",
                        "cannot send result: no memory left for it");
        return -1;
    }
    size_t text = runner->out.used;
    int failed = task->run(&answer, bytes, (size_t)size, task->data);
    if (failed) {
        push_failure(runner, task, text, failed);
        runner->out.used = from;
        return -1;
    }
    end_answer(&runner->out, text);
    return 0;
}

int tide_runner_run_tasks(struct tide_runner *runner)
{
    const struct tide_task *task = tide_task_at(runner->L, TIDE_AT_FUNCTION);
    for (uint32_t item = runner->request.first; item < runner->end; item++) {
        uint64_t size = 0;
        int stopped = 0;
        const unsigned char *bytes = find_bytes(runner, item, &size);
        if (bytes == NULL)
            stopped = tide_runner_call(runner, item) == 0
                          ? tide_runner_put_results(runner, item)
                          : tide_runner_put_error(runner, item);
        else if (run_task(runner, task, bytes, size) == 0)
            tide_runner_advance(runner, item + 1);
        else
            stopped = tide_runner_put_error(runner, item);
        if (stopped)
            return 1;
        if (runner->limits.rss_bytes != 0 && tide_runner_look(runner))
            runner->end = item + 1;
    }
    return 0;
}

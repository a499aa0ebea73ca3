#include "pool/host.h"

#include "base/cpu.h"
#include "pool/pool.h"
#include "proc/channel.h"
#include "share/commons.h"

#include <sys/mman.h>
#include <unistd.h>

enum { MARK_BYTES = 4096 };

/* A page that reads 1 here and 0 in every forked copy: no system call a look. */
static const char *make_mark(void)
{
    char *page = mmap(NULL, MARK_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return NULL;
    if (madvise(page, MARK_BYTES, MADV_WIPEONFORK) != 0) {
        munmap(page, MARK_BYTES);
        return NULL;
    }
    *page = 1;
    return page;
}

int tide_host_start(struct tide_host *out, const struct tide_worker_ops *ops,
                    const struct tide_command *command, struct tide_error *err)
{
    *out = (struct tide_host){ 0 };
    tide_commons_open(NULL); /* before the fork, which passes them on */
    int status = tide_supervisor_start(&out->supervisor, ops, command, err);
    if (status != TIDE_OK)
        return status;
    out->mark = make_mark();
    out->cpu_count = tide_cpu_count();
    out->alive = 1;
    return TIDE_OK;
}

/* Reaped at once: nobody else will, and a zombie would be left. */
static void lose_supervisor(struct tide_host *host)
{
    host->alive = 0;
    tide_supervisor_stop(&host->supervisor);
    for (struct tide_pool *pool = host->pools; pool; pool = pool->next)
        tide_pool_on_gone(pool, "its supervisor died");
}

void tide_host_stop(struct tide_host *host)
{
    if (host->alive)
        lose_supervisor(host);
    if (host->mark != NULL)
        munmap((void *)(uintptr_t)host->mark, MARK_BYTES);
    host->mark = NULL;
}

static void dispatch(struct tide_host *host, const struct tide_message *message)
{
    for (struct tide_pool *pool = host->pools; pool; pool = pool->next) {
        if (pool->crew != message->crew)
            continue;
        if (message->kind == TIDE_MESSAGE_STARTED)
            pool->started = 1;
        else if (message->kind == TIDE_MESSAGE_GONE)
            tide_pool_on_gone(pool, message->broken ? message->reason : NULL);
        return;
    }
}

void tide_host_attend(struct tide_host *host)
{
    struct tide_message message;
    int fds[TIDE_MESSAGE_FDS];
    while (host->alive) {
        int status =
            tide_channel_receive(host->supervisor.channel, &message, fds);
        if (status == TIDE_EAGAIN)
            return;
        if (status == TIDE_OK)
            dispatch(host, &message);
        else
            lose_supervisor(host);
    }
}

int tide_host_is_ours(const struct tide_host *host)
{
    return host->mark != NULL ? *host->mark != 0
                              : getpid() == host->supervisor.owner;
}

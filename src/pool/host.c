#include "pool/host.h"

#include "pool/pool.h"
#include "proc/channel.h"

#include <unistd.h>

int tide_host_start(struct tide_host *out, const struct tide_worker_ops *ops,
                    struct tide_error *err)
{
    *out = (struct tide_host){ .alive = 1 };
    return tide_supervisor_start(&out->supervisor, ops, err);
}

static void lose_supervisor(struct tide_host *host)
{
    host->alive = 0;
    for (struct tide_pool *pool = host->pools; pool; pool = pool->next)
        tide_pool_on_gone(pool, "its supervisor died");
}

void tide_host_stop(struct tide_host *host)
{
    if (host->alive)
        lose_supervisor(host);
    tide_supervisor_stop(&host->supervisor);
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
    return getpid() == host->supervisor.owner;
}

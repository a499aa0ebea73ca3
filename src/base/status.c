#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *tide_status_text(int status)
{
    static const char *const texts[] = {
        [TIDE_OK] = "success",
        [TIDE_EAGAIN] = "nothing available now",
        [TIDE_ETIMEOUT] = "deadline passed",
        [TIDE_EINTR] = "interrupted by a signal",
        [TIDE_EINVAL] = "invalid argument",
        [TIDE_ENOMEM] = "out of memory",
        [TIDE_ESYS] = "system call failed",
        [TIDE_ECLOSED] = "closed",
        [TIDE_EBROKEN] = "broken",
        [TIDE_ETASK] = "the task raised an error",
        [TIDE_EWORKER] = "the worker died",
        [TIDE_ECANCELLED] = "cancelled",
        [TIDE_ETERMINATED] = "the pool was terminated",
        [TIDE_EENCODE] = "a value cannot travel",
        [TIDE_EDECODE] = "a value cannot be received",
        [TIDE_EINIT] = "a worker could not be prepared",
        [TIDE_EABANDONED] = "its holder died",
    };
    if (status < 0 || (size_t)status >= sizeof texts / sizeof texts[0])
        return "unknown status";
    return texts[status];
}

int tide_fail(struct tide_error *err, int status, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        err->status = status;
        err->os_errno = 0;
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return status;
}

int tide_fail_errno(struct tide_error *err, const char *format, ...)
{
    int os_errno = errno;
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        err->status = TIDE_ESYS;
        err->os_errno = os_errno;
        int used = vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        if (used >= 0 && (size_t)used < sizeof err->text)
            snprintf(err->text + used, sizeof err->text - (size_t)used, ": %s",
                     strerror(os_errno));
    }
    return TIDE_ESYS;
}

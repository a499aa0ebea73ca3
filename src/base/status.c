#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *tide_status_text(int status)
{
    static const char *const texts[] = {
#define X(name, text) text,
        TIDE_STATUS_MAP(X)
#undef X
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

/*
 * A container limits processors by quota (so many microseconds of run time per
 * period), which the affinity mask does not show. The quota of any ancestor
 * binds as well, so the whole path is walked, from this process's group up to
 * the root of the hierarchy as it is mounted here.
 */
#include "base/cpu.h"

#include <limits.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int affinity_count(void)
{
    for (size_t cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC(cpus);
        if (set == NULL)
            return 1;
        size_t bytes = CPU_ALLOC_SIZE(cpus);
        int failed = sched_getaffinity(0, bytes, set);
        int count = failed ? 0 : CPU_COUNT_S(bytes, set);
        CPU_FREE(set);
        if (count > 0)
            return count;
    }
    return 1;
}

/* The first number of a file, or -1 ("max", missing, unreadable). */
static double read_number(const char *directory, const char *name,
                          double *second)
{
    char path[PATH_MAX + 64];
    double first = -1;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return -1;
    char line[128] = "";
    if (fgets(line, sizeof line, file) != NULL) {
        char *rest = line;
        first = strtod(line, &rest);
        if (rest == line)
            first = -1;
        else if (second != NULL)
            *second = strtod(rest, NULL);
    }
    fclose(file);
    return first;
}

/* The processors that one group directory allows, or INFINITY. */
static double group_quota(const char *directory)
{
    double period = 0;
    double quota = read_number(directory, "cpu.max", &period);
    if (quota < 0) {
        quota = read_number(directory, "cpu.cfs_quota_us", NULL);
        period = read_number(directory, "cpu.cfs_period_us", NULL);
    }
    return quota > 0 && period > 0 ? quota / period : INFINITY;
}

/* The least quota from `mount``group` up to `mount`. */
static double path_quota(const char *mount, const char *group)
{
    char path[PATH_MAX];
    double least = INFINITY;
    snprintf(path, sizeof path, "%s%s", mount, group);
    size_t root = strlen(mount);
    for (;;) {
        least = fmin(least, group_quota(path));
        char *slash = strrchr(path, '/');
        if (slash == NULL || (size_t)(slash - path) < root)
            return least;
        *slash = '\0';
    }
}

/* One line of /proc/self/cgroup: "id:controllers:/path". */
static double line_quota(char *line)
{
    line[strcspn(line, "\n")] = '\0';
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (group == NULL)
        return INFINITY;
    *group++ = '\0';
    controllers++;
    if (controllers[0] == '\0')
        return path_quota("/sys/fs/cgroup", group);
    if (strcmp(controllers, "cpu") == 0 || strncmp(controllers, "cpu,", 4) == 0)
        return path_quota("/sys/fs/cgroup/cpu", group);
    return INFINITY;
}

static double cgroup_quota(void)
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (file == NULL)
        return INFINITY;
    char line[PATH_MAX + 64];
    double least = INFINITY;
    while (fgets(line, sizeof line, file) != NULL)
        least = fmin(least, line_quota(line));
    fclose(file);
    return least;
}

int tide_cpu_count(void)
{
    int count = affinity_count();
    double quota = ceil(cgroup_quota());
    if (quota < count)
        count = quota < 1 ? 1 : (int)quota;
    return count;
}

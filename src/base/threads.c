/* The size of the compute team. A quota may be set on any cgroup between the
 * process's own and the root, so all of them are looked at. */
#include "base/threads.h"

#include <omp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/string.h"

/* The contents of <mount><group>/<name>, or NULL. */
static char *read_setting(const char *mount, const char *group, const char *name)
{
    mn__string path = {0};
    char *text = NULL;
    int64_t bytes;
    mn__string_printf(&path, "%s%s/%s", mount, group, name);
    if (!path.failed && mn__file_exists(path.text))
        (void)mn__file_read(path.text, 4096, &text, &bytes, NULL);
    mn__string_free(&path);
    return text;
}

static int cpus_of(long long quota, long long period)
{
    if (quota <= 0 || period <= 0 || quota / period >= 1 << 20)
        return 0;
    return (int)((quota + period - 1) / period);
}

/* Version 2: cpu.max holds "max 100000" or "150000 100000". */
static int group_quota_v2(const char *mount, const char *group)
{
    char *text = read_setting(mount, group, "cpu.max");
    long long quota = 0, period = 0;
    bool limited = text && sscanf(text, "%lld %lld", &quota, &period) == 2;
    mn__free(text);
    return limited ? cpus_of(quota, period) : 0;
}

static int group_quota_v1(const char *mount, const char *group)
{
    char *quota_text = read_setting(mount, group, "cpu.cfs_quota_us");
    char *period_text = read_setting(mount, group, "cpu.cfs_period_us");
    long long quota = 0, period = 0;
    bool limited = quota_text && period_text && sscanf(quota_text, "%lld", &quota) == 1 &&
                   sscanf(period_text, "%lld", &period) == 1;
    mn__free(quota_text);
    mn__free(period_text);
    return limited ? cpus_of(quota, period) : 0;
}

static int lesser(int a, int b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* The least quota from `group` up to the root; shortens `group` on the way. */
static int path_quota(const char *mount, char *group,
                      int (*group_quota)(const char *, const char *))
{
    int least = 0;
    for (;;) {
        char *slash = strrchr(group, '/');
        if (slash && slash[1] == '\0')
            *slash = '\0';
        least = lesser(least, group_quota(mount, group));
        slash = strrchr(group, '/');
        if (!slash)
            return least;
        *slash = '\0';
    }
}

/* Is `cpu` among "cpu,cpuacct"? */
static bool has_cpu(const char *controllers)
{
    for (const char *at = controllers; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, "cpu", 3) == 0 && (at[3] == ',' || at[3] == '\0'))
            return true;
    }
    return false;
}

/* One line of the membership: "0::/path" or "4:cpu,cpuacct:/path". */
static int line_quota(const char *mount, char *line)
{
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group)
        return 0;
    *group++ = '\0';
    controllers++;
    if (*controllers == '\0')
        return path_quota(mount, group, group_quota_v2);
    if (!has_cpu(controllers))
        return 0;
    mn__string folder = {0};
    mn__string_printf(&folder, "%s/cpu", mount);
    int quota = folder.failed ? 0 : path_quota(folder.text, group, group_quota_v1);
    mn__string_free(&folder);
    return quota;
}

int mn__threads_quota(const char *membership, const char *mount)
{
    char *text, *rest;
    int64_t bytes;
    int least = 0;
    if (mn__file_read(membership, 1 << 20, &text, &bytes, NULL))
        return 0;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        least = lesser(least, line_quota(mount, line));
    mn__free(text);
    return least;
}

static int affinity_count(void)
{
    int count = 0;
    for (int room = 1024; count == 0 && room <= 1 << 20; room *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)room);
        size_t bytes = CPU_ALLOC_SIZE((size_t)room);
        if (!set)
            break;
        if (sched_getaffinity(0, bytes, set) == 0)
            count = CPU_COUNT_S(bytes, set);
        CPU_FREE(set);
    }
    return count;
}

int mn__threads_default(void)
{
    int count = lesser(affinity_count(), mn__threads_quota("/proc/self/cgroup", "/sys/fs/cgroup"));
    return count > 0 ? count : 1;
}

int mn__threads_set(int n)
{
    omp_set_dynamic(0); /* the team asked for, whatever OMP_DYNAMIC says */
    omp_set_num_threads(n > 0 ? n : mn__threads_default());
    return mn__threads();
}

int mn__threads(void)
{
    return omp_get_max_threads();
}

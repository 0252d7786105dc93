/* MemAvailable of /proc/meminfo; limit and use of each cgroup from the process's
 * own up to the root (version 2: memory.max, memory.current; version 1:
 * memory.limit_in_bytes, memory.usage_in_bytes). */
#include "base/available.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/string.h"

static int64_t lesser(int64_t a, int64_t b)
{
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

/* The number that follows `key` in <folder>/<name> ("": that it begins with), or
 * -1 where there is none. */
static int64_t read_number(const char *folder, const char *name, const char *key)
{
    mn__string path = {0};
    char *text = NULL;
    int64_t bytes;
    long long number = -1;
    mn__string_printf(&path, "%s/%s", folder, name);
    if (!path.failed && mn__file_exists(path.text) &&
        mn__file_read(path.text, 1 << 20, &text, &bytes, NULL) == MN_OK) {
        const char *found = strstr(text, key);
        if (!found || sscanf(found + strlen(key), "%lld", &number) != 1)
            number = -1;
    }
    mn__free(text);
    mn__string_free(&path);
    return number;
}

/* What one group's limit leaves. Pages of files count as used by the group, but
 * are given back when memory is wanted. */
static int64_t group_left(const char *folder)
{
    static const char *const names[][2] = {{"memory.max", "memory.current"},
                                           {"memory.limit_in_bytes", "memory.usage_in_bytes"}};
    int64_t left = -1;
    for (int version = 0; version < 2; version++) {
        int64_t limit = read_number(folder, names[version][0], "");
        int64_t used = read_number(folder, names[version][1], "");
        if (limit < 0 || used < 0)
            continue;
        int64_t inactive = read_number(folder, "memory.stat", "inactive_file ");
        int64_t active = read_number(folder, "memory.stat", "\nactive_file ");
        used -= (inactive > 0 ? inactive : 0) + (active > 0 ? active : 0);
        left = lesser(left, used < limit ? limit - (used > 0 ? used : 0) : 0);
    }
    return left;
}

/* The least over a group and those above it. */
static int64_t groups_left(const char *mount, char *group)
{
    mn__string folder = {0};
    int64_t left = -1;
    for (;;) {
        mn__string_clear(&folder);
        mn__string_printf(&folder, "%s%s", mount, group);
        if (folder.failed)
            break;
        left = lesser(left, group_left(folder.text));
        char *slash = strrchr(group, '/');
        if (!slash)
            break;
        *slash = '\0';
    }
    mn__string_free(&folder);
    return left;
}

/* Lines "0::/group" (version 2) and "4:memory:/group" (version 1). */
static int64_t membership_left(const char *membership, const char *mount)
{
    char *text, *rest;
    int64_t bytes, left = -1;
    if (mn__file_read(membership, 1 << 20, &text, &bytes, NULL) != MN_OK)
        return -1;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *controller = strchr(line, ':');
        char *group = controller ? strchr(controller + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        mn__string folder = {0};
        bool unified = controller[1] == '\0', memory = strstr(controller + 1, "memory") != NULL;
        mn__string_printf(&folder, "%s%s", mount, unified ? "" : "/memory");
        if ((unified || memory) && !folder.failed)
            left = lesser(left, groups_left(folder.text, group));
        mn__string_free(&folder);
    }
    mn__free(text);
    return left;
}

static int64_t machine_left(const char *meminfo)
{
    char *text;
    int64_t bytes;
    long long kilobytes = -1;
    if (mn__file_read(meminfo, 1 << 20, &text, &bytes, NULL) != MN_OK)
        return -1;
    const char *line = strstr(text, "MemAvailable:");
    if (!line || sscanf(line, "MemAvailable: %lld kB", &kilobytes) != 1)
        kilobytes = -1;
    mn__free(text);
    return kilobytes < 0 ? -1 : kilobytes * 1024;
}

int64_t mn__memory_available_in(const char *meminfo, const char *membership, const char *mount)
{
    return lesser(machine_left(meminfo), membership_left(membership, mount));
}

int64_t mn__memory_available(void)
{
    return mn__memory_available_in("/proc/meminfo", "/proc/self/cgroup", "/sys/fs/cgroup");
}

/* The files under a folder, in order of their names. */
#ifndef MN__DATA_WALK_H
#define MN__DATA_WALK_H

#include <stdbool.h>

#include "base/error.h"

typedef struct mn__walk {
    /* NULL: goes into every folder that is not hidden. */
    bool (*enters)(const char *folder_name);
    /* A regular file; `relative` is its path from the folder walked. */
    mn_status (*found)(void *user, const char *path, const char *relative, mn_error *error);
    void *user;
} mn__walk;

/* Hidden names (.x) and links to folders are passed over. MN_ERROR_FORMAT:
 * folders lie over 64 deep. */
mn_status mn__walk_files(const mn__walk *walk, const char *folder, mn_error *error);

#endif

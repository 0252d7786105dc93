/* What this build is. */
#include "mneme.h"

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

const char *mn_version(void)
{
    return MN_VERSION;
}

/* MN__BUILD_FLAGS comes from CMake: the build type and its flags. */
const char *mn_build(void)
{
    return COMPILER " " MN__BUILD_FLAGS;
}

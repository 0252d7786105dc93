/* What this build is. */
#include <oneapi/dnnl/dnnl_version.h>

#include "mneme.h"

#define TEXT_OF(value) #value
#define TEXT(value)    TEXT_OF(value)

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif
#define ONEDNN \
    "oneDNN " TEXT(DNNL_VERSION_MAJOR) "." TEXT(DNNL_VERSION_MINOR) "." TEXT(DNNL_VERSION_PATCH)

const char *mn_version(void)
{
    return MN_VERSION;
}

/* MN__BUILD_FLAGS comes from CMake: the build type and its flags. */
const char *mn_build(void)
{
    return COMPILER " " MN__BUILD_FLAGS ", " ONEDNN;
}

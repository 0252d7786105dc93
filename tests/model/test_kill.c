/* A handful of kills; fifty are in tests/large. */
#include "support/killing.h"

int main(int argc, char **argv)
{
    return killing_main(argc, argv, 5);
}

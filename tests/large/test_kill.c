/* Fifty kills at random moments. */
#include "support/killing.h"

int main(int argc, char **argv)
{
    return killing_main(argc, argv, 50);
}

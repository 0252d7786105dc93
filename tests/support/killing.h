/* A training that is killed again and again, and resumed each time, ends as one
 * that ran through. */
#ifndef TESTS_SUPPORT_KILLING_H
#define TESTS_SUPPORT_KILLING_H

/* A test program's main: kills so many times, every other time while a
 * checkpoint is being written. */
int killing_main(int argc, char **argv, int kills);

#endif

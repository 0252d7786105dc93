/* A data set as a table or as JSON: what prepare and inspect print. */
#ifndef MN__CLI_DATASET_H
#define MN__CLI_DATASET_H

#include "data/shards.h"

mn_status mn__dataset_print(const mn__dataset *dataset, bool json, mn_error *error);

#endif

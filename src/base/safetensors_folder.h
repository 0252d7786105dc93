/* The tensors of a folder as Hugging Face keeps it: model.safetensors, or else the files
 * that model.safetensors.index.json names:
 *
 *   {"metadata": {...}, "weight_map": {tensor: file, ...}}
 *
 * Files are mapped, and checked as safetensors.h says; index and files must hold the same
 * tensors. The index's total_size is not looked at: files in use have wrong ones. */
#ifndef MN__BASE_SAFETENSORS_FOLDER_H
#define MN__BASE_SAFETENSORS_FOLDER_H

#include "base/safetensors.h"

typedef struct mn__safetensors_folder mn__safetensors_folder;
mn_status mn__safetensors_folder_open(mn__safetensors_folder **folder, const char *path,
                                      mn_error *error);
void mn__safetensors_folder_close(mn__safetensors_folder *folder); /* NULL is fine */
/* By name, in rising order. */
int64_t mn__safetensors_folder_count(const mn__safetensors_folder *folder);
const mn__safetensor *mn__safetensors_folder_at(const mn__safetensors_folder *folder,
                                                int64_t index);
/* -1: there is none. */
int64_t mn__safetensors_folder_find(const mn__safetensors_folder *folder, const char *name);

#endif

/* SPDX-License-Identifier: MIT
 *
 * PyTorch checkpoints for tests: archives around any pickle, and whole ones around tensors.
 */
#ifndef AY_TORCH_WRITE_H
#define AY_TORCH_WRITE_H

#include "support.h"

typedef struct ay_member {
    const char *name;
    const void *bytes;
    size_t n;
} ay_member;

/** A zip archive of stored members; `zip64`: with its sizes and places in 64-bit fields. In the test's arena. */
const void *ay_torch_zip(ay_test *t, const ay_member *m, int n, bool zip64, size_t *bytes);
/** The archive that torch.save makes of a dictionary of these tensors, under "state_dict" where `nested`. */
void ay_torch_write(ay_test *t, const char *path, const ay_tensor *x, int n, bool nested);

#endif

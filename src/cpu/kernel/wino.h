/* SPDX-License-Identifier: MIT
 *
 * What the parts of Winograd's convolution share (wino.c): tiles and where they stand in pictures.
 */
#ifndef AY_KERNEL_WINO_H
#define AY_KERNEL_WINO_H

#include "cpu/kernel/mm.h"

enum { AY_WINO_LANES = 16 }; /* of any row, at most */

/** The tiles of all pictures, row by row. */
typedef struct ay_wino_grid {
    const ay_conv *c;
    const ay_wino_row *row;
    const ay_pack_row *pack;
    int64_t down, across, tiles; /* of a picture; of all pictures */
    int64_t plane, y_plane;      /* elements from channel to channel of x, of y */
} ay_wino_grid;
ay_wino_grid ay_wino_grid_of(ay_isa isa, const ay_conv *c);

/** Transformed pixels of `count` tiles from `first` on, a multiple of the row's lanes (tiles past the last are zeros), channels
 *  c0 .. c1: v[point * step + channel * width + tile]. */
void ay_wino_input(const ay_wino_grid *g, int64_t first, int64_t count, int64_t c0, int64_t c1, float *v, int64_t step,
                   int64_t width);

/** Results of `count` tiles from `first` on of channels o0 .. o1 from m[point * step + (o - o0) * width + tile]: bias, activation,
 *  residual, and into the picture. */
void ay_wino_output(const ay_wino_grid *g, int64_t first, int64_t count, int64_t o0, int64_t o1, const float *m,
                    int64_t step, int64_t width);

/** wino_few.c: the same for few tiles. */
double ay_wino_few_cycles(ay_isa isa, const ay_conv *c);
size_t ay_wino_few_scratch(ay_isa isa, int threads, const ay_conv *c);
void ay_wino_few_run(const ay_exec *ex, const ay_conv *c);

#endif

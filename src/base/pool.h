/* SPDX-License-Identifier: MIT
 *
 * One pool of worker threads per context. Work is split over outputs only, so results do not depend on their number.
 */
#ifndef AY_POOL_H
#define AY_POOL_H

#include "base/base.h"

/** One tile of work. `thread` is 0 .. ay_pool_threads()-1: the index of this thread's scratch. */
typedef void (*ay_tile_fn)(void *arg, int64_t tile, int thread);

ay_pool *ay_pool_new(int threads); /* <= 0: one per core that this process may use */
void ay_pool_free(ay_pool *p);
int ay_pool_most(void); /* threads that are ever made here; more are cut to this */
int ay_pool_threads(const ay_pool *p);
/** Runs fn for every tile in [0, tiles), on all threads, the caller's among them, and returns when all are done. Tiles
 *  are handed out dynamically. When *stop becomes non-zero (stop may be NULL) the tiles not yet begun are left out. */
void ay_parallel(ay_pool *p, int64_t tiles, ay_tile_fn fn, void *arg, atomic_int *stop);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The thread pool: workers sleep on a condition variable between jobs; tiles are taken from an atomic counter.
 */
#include "base/pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

struct ay_pool {
    int n; /* threads, the caller's among them */
    pthread_t *threads;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    uint64_t job; /* counts jobs; workers wait for it to change */
    int busy;     /* workers still inside the current job */
    bool quit;
    ay_tile_fn fn;
    void *arg;
    int64_t tiles;
    atomic_int *stop;
    _Atomic int64_t next;
};

typedef struct worker_arg {
    ay_pool *pool;
    int thread;
} worker_arg;

static void run_tiles(ay_pool *p, int thread) {
    for (;;) {
        if (p->stop && atomic_load_explicit(p->stop, memory_order_relaxed)) return;
        int64_t i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (i >= p->tiles) return;
        p->fn(p->arg, i, thread);
    }
}

static void *worker(void *arg) {
    worker_arg w = *(worker_arg *)arg;
    free(arg);
    ay_pool *p = w.pool;
    uint64_t seen = 0;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->job == seen && !p->quit) pthread_cond_wait(&p->work, &p->lock);
        if (p->quit) break;
        seen = p->job;
        pthread_mutex_unlock(&p->lock);
        run_tiles(p, w.thread);
        pthread_mutex_lock(&p->lock);
        if (--p->busy == 0) pthread_cond_signal(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static int cores(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

/* More threads than cores only cost: each job wakes all of them. Some more are let through, for tests and odd machines. */
int ay_pool_most(void) {
    int n = 4 * cores();
    return n < 64 ? 64 : n > 1024 ? 1024 : n;
}

ay_pool *ay_pool_new(int threads) {
    if (threads <= 0) threads = cores();
    if (threads > ay_pool_most()) threads = ay_pool_most();
    ay_pool *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->threads = calloc((size_t)threads, sizeof *p->threads);
    if (!p->threads) {
        free(p);
        return NULL;
    }
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    p->n = 1;
    for (int i = 1; i < threads; i++) {
        worker_arg *w = malloc(sizeof *w);
        if (!w) break;
        *w = (worker_arg){p, i};
        if (pthread_create(&p->threads[i], NULL, worker, w) != 0) {
            free(w);
            break; /* fewer threads than asked for still work */
        }
        p->n = i + 1;
    }
    return p;
}

void ay_pool_free(ay_pool *p) {
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->quit = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i < p->n; i++) pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->done);
    pthread_mutex_destroy(&p->lock);
    free(p->threads);
    free(p);
}

int ay_pool_threads(const ay_pool *p) { return p->n; }

void ay_parallel(ay_pool *p, int64_t tiles, ay_tile_fn fn, void *arg, atomic_int *stop) {
    if (tiles <= 0) return;
    p->fn = fn;
    p->arg = arg;
    p->tiles = tiles;
    p->stop = stop;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    if (p->n == 1 || tiles == 1) {
        run_tiles(p, 0);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->busy = p->n - 1;
    p->job++;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    run_tiles(p, 0);
    pthread_mutex_lock(&p->lock);
    while (p->busy > 0) pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

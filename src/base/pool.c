/* SPDX-License-Identifier: MIT
 *
 * The thread pool: tiles are taken from an atomic counter. Between jobs workers watch the job's number for some microseconds,
 * since the operations of a step follow each other at once and waking a sleeping thread takes some 40; then they sleep on a
 * condition variable. The caller waits for the last worker in the same way.
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
    _Atomic uint64_t job; /* counts jobs; workers wait for it to change */
    atomic_int busy;      /* workers still inside the current job */
    atomic_bool waiting;  /* the caller sleeps until they are out of it */
    bool spins;           /* every thread has a core to watch from */
    bool quit;            /* set before the last change of the job */
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

static void pause_core(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* yield is a no-op on most cores */
#endif
}

/* Long enough for what one thread does alone between two operations, short enough to leave the core to others. */
#define WATCH_SECONDS 1e-4
#define PAUSES_A_LOOK 16

static bool job_changed(ay_pool *p, uint64_t seen) { return atomic_load_explicit(&p->job, memory_order_acquire) != seen; }
static bool all_done(ay_pool *p, uint64_t unused) {
    (void)unused;
    return atomic_load_explicit(&p->busy, memory_order_acquire) == 0;
}

/* Watches until the condition holds or the time is over; says whether it holds. */
static bool watch(ay_pool *p, bool (*holds)(ay_pool *, uint64_t), uint64_t seen) {
    if (!p->spins) return holds(p, seen);
    double end = ay_now() + WATCH_SECONDS;
    do {
        for (int i = 0; i < PAUSES_A_LOOK; i++) {
            if (holds(p, seen)) return true;
            pause_core();
        }
    } while (ay_now() < end);
    return false;
}

static void *worker(void *arg) {
    worker_arg w = *(worker_arg *)arg;
    free(arg);
    ay_pool *p = w.pool;
    for (uint64_t seen = 0;; seen++) {
        if (!watch(p, job_changed, seen)) {
            pthread_mutex_lock(&p->lock);
            while (!job_changed(p, seen)) pthread_cond_wait(&p->work, &p->lock);
            pthread_mutex_unlock(&p->lock);
        }
        if (p->quit) return NULL;
        run_tiles(p, w.thread);
        /* Either the caller sees zero before it sleeps, or this sees that it sleeps: both are sequentially consistent. */
        if (atomic_fetch_sub(&p->busy, 1) == 1 && atomic_load(&p->waiting)) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

static void next_job(ay_pool *p) {
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add_explicit(&p->job, 1, memory_order_release);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
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
    p->spins = threads <= cores();
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
    p->quit = true;
    next_job(p);
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
    atomic_store_explicit(&p->busy, p->n - 1, memory_order_relaxed);
    next_job(p);
    run_tiles(p, 0);
    if (watch(p, all_done, 0)) return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->waiting, true);
    while (atomic_load(&p->busy) > 0) pthread_cond_wait(&p->done, &p->lock);
    atomic_store(&p->waiting, false);
    pthread_mutex_unlock(&p->lock);
}

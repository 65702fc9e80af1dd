/* SPDX-License-Identifier: MIT
 *
 * The context: last error, log and progress, stop flag, thread pool, instruction-set cap.
 */
#include "base/base.h"
#include "base/isa.h"
#include "base/pool.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char nomem_text[] = "out of memory";

static void set_message(ay_ctx *cx, char *text) {
    if (cx->message != nomem_text) free(cx->message);
    cx->message = text;
}

static char *format(const char *fmt, va_list ap) {
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    char *s = n < 0 ? NULL : malloc((size_t)n + 1);
    if (s) vsnprintf(s, (size_t)n + 1, fmt, again);
    va_end(again);
    return s;
}

alloy_status ay_fail(ay_ctx *cx, alloy_status code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *s = format(fmt, ap);
    va_end(ap);
    if (!s) return ay_nomem(cx);
    cx->code = code;
    set_message(cx, s);
    return code;
}

alloy_status ay_nomem(ay_ctx *cx) {
    cx->code = ALLOY_E_NOMEM;
    set_message(cx, nomem_text);
    return ALLOY_E_NOMEM;
}

void ay_fail_prefix(ay_ctx *cx, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *prefix = format(fmt, ap);
    va_end(ap);
    const char *old = ay_error_text(cx);
    if (prefix && strncmp(old, prefix, strlen(prefix)) == 0) { /* it is said already */
        free(prefix);
        return;
    }
    char *both = prefix ? malloc(strlen(prefix) + strlen(old) + 1) : NULL;
    if (both) {
        strcpy(both, prefix);
        strcat(both, old);
        set_message(cx, both);
    }
    free(prefix);
}

const char *ay_error_text(const ay_ctx *cx) { return cx->message ? cx->message : ""; }

static void add_notice(ay_ctx *cx, const char *fmt, ...) {
    size_t used = strlen(cx->notice);
    va_list ap;
    if (used && used + 2 < sizeof cx->notice) used += (size_t)snprintf(cx->notice + used, sizeof cx->notice - used, "; ");
    va_start(ap, fmt);
    vsnprintf(cx->notice + used, sizeof cx->notice - used, fmt, ap);
    va_end(ap);
}

/* ALLOY_THREADS as a number, 0 where it says nothing. */
static int wanted_threads(ay_ctx *cx) {
    const char *want = getenv("ALLOY_THREADS");
    char *end;
    if (!want || !*want) return 0;
    long n = strtol(want, &end, 10);
    if (!*end && n >= 1) return n > INT_MAX ? INT_MAX : (int)n;
    add_notice(cx, "ALLOY_THREADS is \"%.40s\", not a number of threads: one per core is used", want);
    return 0;
}

alloy_status ay_ctx_open(int threads, ay_ctx **out) {
    *out = NULL;
    ay_ctx *cx = calloc(1, sizeof *cx);
    if (!cx) return ALLOY_E_NOMEM;
    if (threads <= 0) threads = wanted_threads(cx);
    cx->isa = (int)ay_isa_best();
    const char *cap = getenv("ALLOY_ISA");
    int level = cap ? ay_isa_from_name(cap) : -1;
    if (cap && *cap && level < 0) add_notice(cx, "ALLOY_ISA is \"%.40s\", no instruction set known here: %s is used", cap, ay_isa_name((ay_isa)cx->isa));
    if (level >= 0 && ay_isa_runs((ay_isa)level)) cx->isa = level;
    if (threads > ay_pool_most()) add_notice(cx, "%d threads would only wait for each other here: %d are used", threads, ay_pool_most());
    cx->pool = ay_pool_new(threads);
    if (!cx->pool) {
        free(cx);
        return ALLOY_E_NOMEM;
    }
    *out = cx;
    return ALLOY_OK;
}

void ay_ctx_close(ay_ctx **cx) {
    if (!cx || !*cx) return;
    ay_pool_free((*cx)->pool);
    set_message(*cx, NULL);
    free(*cx);
    *cx = NULL;
}

alloy_status ay_check_stop(ay_ctx *cx) {
    return ay_stopped(cx) ? ay_fail(cx, ALLOY_E_CANCELLED, "stopped on request") : ALLOY_OK;
}

void ay_log(ay_ctx *cx, ay_log_level level, const char *fmt, ...) {
    if (!cx->log) return;
    va_list ap;
    va_start(ap, fmt);
    char *s = format(fmt, ap);
    va_end(ap);
    cx->log(cx->user, level, s ? s : nomem_text);
    free(s);
}

void ay_progress(ay_ctx *cx, const char *stage, double done, double total) {
    if (cx->progress) cx->progress(cx->user, stage, done, total);
}

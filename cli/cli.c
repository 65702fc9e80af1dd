/* SPDX-License-Identifier: MIT
 *
 * Options from tables, messages, the progress line, Ctrl-C.
 */
#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The one thing a signal handler can reach. */
static alloy_ctx *volatile interruptible;

static void on_signal(int sig) {
    (void)sig;
    if (interruptible) alloy_stop(interruptible);
}

/* ---- progress: one line, redrawn in place, only where standard error is a terminal ------------------------------------- */

typedef struct progress_line {
    bool on, drawn;
    char stage[64];
    double begun, shown;
} progress_line;
static progress_line line;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void cli_clear(void) {
    if (line.drawn) fprintf(stderr, "\r\033[K");
    line.drawn = false;
}

char *cli_bytes(double bytes, char *text) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    int u = 0;
    while (bytes >= 999.5 && u < 4) {
        bytes /= 1000;
        u++;
    }
    snprintf(text, 32, u == 0 || bytes >= 99.95 ? "%.0f %s" : "%.1f %s", bytes, units[u]);
    return text;
}

/* Names and text out of files may hold anything: what would move a terminal's cursor is shown as "?". */
static void say_text(const char *before, const char *text) {
    cli_clear();
    fputs(before, stderr);
    for (const char *p = text; *p; p++) fputc(((unsigned char)*p < 32 && *p != '\n') || *p == 127 ? '?' : *p, stderr);
    fputc('\n', stderr);
}

void cli_say(const char *fmt, ...) {
    char shorter[512], *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0) text = NULL;
    va_end(ap);
    va_start(ap, fmt);
    if (!text) vsnprintf(shorter, sizeof shorter, fmt, ap);
    va_end(ap);
    say_text("", text ? text : shorter);
    free(text);
}

static void left_text(double seconds, char *text, size_t cap) {
    if (seconds >= 3600) snprintf(text, cap, "%.0f h %02.0f min left", floor(seconds / 3600), floor(fmod(seconds, 3600) / 60));
    else if (seconds >= 60) snprintf(text, cap, "%.0f min %02.0f s left", floor(seconds / 60), floor(fmod(seconds, 60)));
    else snprintf(text, cap, "%.0f s left", ceil(seconds));
}

static void on_progress(void *user, const char *stage, double done, double total) {
    (void)user;
    if (!line.on) return;
    double t = now();
    if (strncmp(line.stage, stage, sizeof line.stage - 1) != 0) {
        snprintf(line.stage, sizeof line.stage, "%s", stage);
        line.begun = t;
        line.shown = 0;
    }
    if (t - line.shown < 0.1 && done < total) return;
    if (t - line.begun < 0.5 && !line.drawn) return; /* what is over at once needs no line */
    line.shown = t;
    double part = total > 0 ? done / total : 0;
    char left[64] = "";
    if (part > 0.01 && part < 1) left_text((t - line.begun) * (1 - part) / part, left, sizeof left);
    int filled = (int)(part * 30);
    char bytes[32], of[32], amount[80];
    if (total > 1e6) snprintf(amount, sizeof amount, "%s of %s", cli_bytes(done, bytes), cli_bytes(total, of));
    else snprintf(amount, sizeof amount, "%.0f of %.0f", done, total);
    fprintf(stderr, "\r\033[K%-14s [%.*s%.*s] %3.0f %%  %s  %s", stage, filled, "==============================", 30 - filled,
            "                              ", part * 100, amount, left);
    fflush(stderr);
    line.drawn = true;
    if (done >= total) cli_clear();
}

static void on_log(void *user, alloy_log_level level, const char *text) {
    const app *a = user;
    if (level == ALLOY_LOG_DEBUG && !a->verbose) return;
    if (level != ALLOY_LOG_ERROR && a->quiet) return;
    say_text(level == ALLOY_LOG_WARN ? "warning: " : level == ALLOY_LOG_ERROR ? "error: " : "", text);
}

int cli_open(app *a) {
    alloy_ctx_options o;
    alloy_ctx_options_init(&o);
    o.threads = a->threads;
    o.log = on_log;
    o.progress = on_progress;
    o.user = a;
    if (alloy_ctx_open(&o, &a->ctx) != ALLOY_OK) {
        cli_say("alloy: out of memory");
        return 1;
    }
    line.on = !a->quiet && isatty(2);
    interruptible = a->ctx;
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    struct sigaction hup;
    if (sigaction(SIGHUP, NULL, &hup) == 0 && hup.sa_handler != SIG_IGN) sigaction(SIGHUP, &sa, NULL); /* not under nohup */
    return 0;
}

int cli_end(app *a, alloy_status st) {
    cli_clear();
    if (st == ALLOY_E_CANCELLED) cli_say("alloy: interrupted");
    else if (st != ALLOY_OK) cli_say("alloy: %s", alloy_error(a->ctx));
    interruptible = NULL;
    alloy_ctx_close(&a->ctx);
    return st == ALLOY_OK ? 0 : st == ALLOY_E_CANCELLED ? 130 : st == ALLOY_E_USAGE ? 2 : 1;
}

/* ---- options ------------------------------------------------------------------------------------------------------------ */

void cli_help(const char *command, const char *usage, const char *about, const option *options) {
    printf("usage: alloy %s %s\n\n%s\n\n", command, usage, about);
    for (const option *o = options; o->name; o++) {
        char left[64];
        snprintf(left, sizeof left, "%s%s%s%s%s", o->short_name ? o->short_name : "", o->short_name ? ", " : "", o->name, o->argument ? " " : "",
                 o->argument ? o->argument : "");
        printf("  %-28s %s\n", left, o->help);
    }
}

/* strtol and its kin skip spaces and take a plus. */
static bool number_begins(const char *text) { return (*text >= '0' && *text <= '9') || *text == '-' || *text == '.'; }

static int set_option(const char *command, const option *o, const char *text) {
    char *end;
    errno = 0;
    switch (o->kind) {
    case OPTION_TEXT: *(const char **)o->value = text; return 0;
    case OPTION_INT: {
        long v = strtol(text, &end, 10);
        if (!number_begins(text) || end == text || *end || errno || v < o->low || v > INT_MAX) {
            cli_say("alloy %s: %s wants a whole number from %d, not \"%s\"", command, o->name, o->low, text);
            return 2;
        }
        *(int *)o->value = (int)v;
        return 0;
    }
    case OPTION_SEED: {
        unsigned long long v = strtoull(text, &end, 10);
        if (!number_begins(text) || end == text || *end || errno || strchr(text, '-')) {
            cli_say("alloy %s: %s wants a whole number from 0 to 18446744073709551615, not \"%s\"", command, o->name, text);
            return 2;
        }
        *(uint64_t *)o->value = v;
        return 0;
    }
    case OPTION_NUMBER: {
        double v = strtod(text, &end);
        if (!number_begins(text) || end == text || *end || !isfinite(v) || v < o->low) {
            cli_say("alloy %s: %s wants a number from %d, not \"%s\"", command, o->name, o->low, text);
            return 2;
        }
        *(double *)o->value = v;
        return 0;
    }
    case OPTION_LIST: {
        option_list *list = o->value;
        int most = (int)(sizeof list->texts / sizeof list->texts[0]);
        if (list->n == most) {
            cli_say("alloy %s: %s is given more than %d times", command, o->name, most);
            return 2;
        }
        list->texts[list->n++] = text;
        return 0;
    }
    default: *(bool *)o->value = true; return 0;
    }
}

static const option *find_option(const option *options, const char *word, size_t n) {
    for (const option *o = options; o->name; o++) {
        if (strlen(o->name) == n && strncmp(o->name, word, n) == 0) return o;
        if (o->short_name && strlen(o->short_name) == n && strncmp(o->short_name, word, n) == 0) return o;
    }
    return NULL;
}

enum { MOST_OPTIONS = 64 };

int cli_parse(const char *command, int argc, char **argv, const option *options, const char **words, int max_words, int *n_words) {
    bool more = true, given[MOST_OPTIONS] = {false};
    *n_words = 0;
    for (int i = 1; i < argc; i++) {
        const char *w = argv[i];
        if (more && strcmp(w, "--") == 0) {
            more = false;
            continue;
        }
        if (!more || w[0] != '-' || !w[1]) {
            if (*n_words == max_words) {
                cli_say("alloy %s: \"%s\" is one argument too many; alloy %s --help explains", command, w, command);
                return 2;
            }
            words[(*n_words)++] = w;
            continue;
        }
        const char *equals = strncmp(w, "--", 2) == 0 ? strchr(w, '=') : NULL;
        const option *o = find_option(options, w, equals ? (size_t)(equals - w) : strlen(w));
        if (!o || (equals && o->kind == OPTION_FLAG)) {
            cli_say("alloy %s: no option \"%s\"; alloy %s --help shows which there are", command, w, command);
            return 2;
        }
        const char *text = equals ? equals + 1 : NULL;
        if (!text && o->kind != OPTION_FLAG) {
            if (i + 1 == argc) {
                cli_say("alloy %s: %s needs a value (%s)", command, o->name, o->argument);
                return 2;
            }
            text = argv[++i];
        }
        ptrdiff_t row = o - options;
        if (row < MOST_OPTIONS && given[row] && o->kind != OPTION_FLAG && o->kind != OPTION_LIST) {
            cli_say("alloy %s: %s is given twice", command, o->name);
            return 2;
        }
        if (row < MOST_OPTIONS) given[row] = true;
        int bad = set_option(command, o, text);
        if (bad) return bad;
    }
    return 0;
}

bool cli_parse_bytes(const char *text, int64_t *bytes) {
    static const struct {
        const char *name;
        double factor;
    } units[] = {{"", 1},      {"B", 1},      {"KB", 1e3},       {"MB", 1e6},
                 {"GB", 1e9}, {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824}};
    char *end;
    double v = strtod(text, &end);
    if (end == text || !(v > 0)) return false;
    while (*end == ' ') end++;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(end, units[i].name) != 0 || v * units[i].factor > 1e15) continue;
        *bytes = (int64_t)(v * units[i].factor);
        return *bytes > 0;
    }
    return false;
}

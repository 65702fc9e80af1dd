/* SPDX-License-Identifier: MIT
 *
 * The program around include/alloy.h: one file a command, one table of options a command, one place for what is printed.
 * Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
 */
#ifndef ALLOY_CLI_H
#define ALLOY_CLI_H

#include "alloy.h"

typedef enum option_kind {
    OPTION_FLAG,  /* bool */
    OPTION_TEXT,  /* const char * */
    OPTION_INT,   /* int, from `low` */
    OPTION_SEED,  /* uint64_t */
    OPTION_NUMBER, /* double */
    OPTION_LIST    /* option_list: may be given again and again */
} option_kind;

typedef struct option_list {
    const char *texts[32];
    int n;
} option_list;

typedef struct option {
    const char *name;  /* "--width" */
    const char *short_name;
    option_kind kind;
    void *value;
    const char *argument; /* "W" */
    const char *help;
    int low; /* smallest OPTION_INT */
} option;

typedef struct app {
    alloy_ctx *ctx;
    bool quiet, verbose, json;
    int threads;
} app;

/** Parses argv[1..]: options in any order, `--name=value` too, `--` ends them. At most `max_words` other words go to `words`.
 *  Ends with option name NULL. Returns 0, or 2 after saying what is wrong. */
int cli_parse(const char *command, int argc, char **argv, const option *options, const char **words, int max_words, int *n_words);
void cli_help(const char *command, const char *usage, const char *about, const option *options);
/** Opens the context with progress, messages and Ctrl-C in place. */
int cli_open(app *a);
/** Prints the failure; the exit status that belongs to it. */
int cli_end(app *a, alloy_status st);
/** One message and its newline to standard error, after the progress line is cleared. */
void cli_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/** Clears the progress line before something is printed. */
void cli_clear(void);
/** The profile in a report of alloy_run or alloy_bench: where the time of each package went, beside the ceilings in it;
 *  the `most` longest lines of each (0: all). */
void cli_print_profile(const char *report, int most);
/** "7GB", "900MB", "6.5 GiB" or plain bytes; false when it is none. */
bool cli_parse_bytes(const char *text, int64_t *bytes);
/** "12.3 GB", "456 MB" into text of at least 32 bytes. */
char *cli_bytes(double bytes, char *text);

int cmd_convert(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_predict(int argc, char **argv);
int cmd_validate(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_list_models(int argc, char **argv);

/** Options every command has: -q, -v, --json, --threads. */
#define COMMON_OPTIONS(a)                                                                                                \
    {"--threads", NULL, OPTION_INT, &(a).threads, "N", "threads to use (default: one per core)", 1},                     \
    {"--json", NULL, OPTION_FLAG, &(a).json, NULL, "results as JSON on standard output", 0},                             \
    {"--quiet", "-q", OPTION_FLAG, &(a).quiet, NULL, "say nothing but results and errors", 0},                           \
    {"--verbose", "-v", OPTION_FLAG, &(a).verbose, NULL, "explain what is done", 0},                                     \
    {NULL, NULL, OPTION_FLAG, NULL, NULL, NULL, 0}

#endif

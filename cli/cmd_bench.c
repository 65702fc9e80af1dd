/* SPDX-License-Identifier: MIT
 *
 * alloy bench [MODEL]: this machine's ceilings, and what kernels or a model's step make of them.
 */
#include "cli.h"

#include <stdio.h>

int cmd_bench(int argc, char **argv) {
    app a = {0};
    bool help = false;
    alloy_bench_options o;
    alloy_bench_options_init(&o);
    o.runs = 0;
    const option options[] = {
        {"--help", "-h", OPTION_FLAG, &help, NULL, "this text", 0},
        {"--width", NULL, OPTION_INT, &o.image_size.width, "W", "pixels of the model's step (default: what it was converted for)", 1},
        {"--height", NULL, OPTION_INT, &o.image_size.height, "H", "pixels", 1},
        {"--runs", NULL, OPTION_INT, &o.runs, "N", "kernels: timed N times, the median counts (default: 3); a model: N steps (1)", 1},
        {"--only", NULL, OPTION_TEXT, &o.only, "TEXT", "kernels: those whose line holds TEXT (linear, conv, attention, UNet ...)", 0},
        COMMON_OPTIONS(a),
    };
    const char *model[1] = {NULL};
    int n, bad = cli_parse("bench", argc, argv, options, model, 1, &n);
    if (bad) return bad;
    if (help) {
        cli_help("bench", "[MODEL] [OPTIONS]",
                 "Measures this machine's ceilings (float32 multiply-adds, int8 sums, memory) and, in the same run, kernels at the shapes\n"
                 "of real models, or every operation of one step of a model folder: time, rate, share of the ceiling that binds. Every\n"
                 "component is run once before it is timed; alloy run --profile times the first run too.",
                 options);
        return 0;
    }
    if (model[0] && o.only) {
        cli_say("alloy bench: --only chooses among kernels; a model's step is always whole");
        return 2;
    }
    if (!model[0] && (o.image_size.width || o.image_size.height)) {
        cli_say("alloy bench: --width and --height are those of a model's step; kernels have shapes of their own: name a model folder");
        return 2;
    }
    if (cli_open(&a)) return 1;
    char *report = NULL;
    alloy_status st = alloy_bench(a.ctx, model[0], &o, &report);
    cli_clear();
    if (st == ALLOY_OK && a.json) printf("%s\n", report);
    else if (st == ALLOY_OK) cli_print_profile(report, 0);
    alloy_free(report);
    return cli_end(&a, st);
}

/* SPDX-License-Identifier: MIT
 *
 * alloy predict PACKAGE: one prediction, safetensors in, safetensors out.
 */
#include "cli.h"

#include <stdio.h>

int cmd_predict(int argc, char **argv) {
    app a = {0};
    alloy_predict_options o;
    alloy_predict_options_init(&o);
    int64_t overflows = -1;
    char *report = NULL;
    bool help = false;
    const char *input = NULL, *output = NULL;
    const option options[] = {
        {"--help", "-h", OPTION_FLAG, &help, NULL, "this text", 0},
        {"--input", "-i", OPTION_TEXT, &input, "FILE", "safetensors with the inputs, by name", 0},
        {"--output", "-o", OPTION_TEXT, &output, "FILE", "safetensors for the outputs, by name", 0},
        {"--function", NULL, OPTION_TEXT, &o.function, "NAME", "which function of the package (default: its own default)", 0},
        {"--compute-units", NULL, OPTION_TEXT, &o.compute_units, "U", "cpu or all (default), the same today; gpu and ane need Core ML", 0},
        {"--emulate", NULL, OPTION_TEXT, &o.emulate, "float16", "round after every op; says how many values left half's range", 0},
        {"--activations", NULL, OPTION_TEXT, &o.activations, "TYPE", "float (default) or int8: what layers of int8 and int4 weights compute with", 0},
        {"--profile", NULL, OPTION_FLAG, &o.profile, NULL, "print where the time went", 0},
        COMMON_OPTIONS(a),
    };
    const char *package[1];
    int n, bad = cli_parse("predict", argc, argv, options, package, 1, &n);
    if (bad) return bad;
    if (help) {
        cli_help("predict", "PACKAGE --input FILE --output FILE [OPTIONS]", "One prediction of any .mlpackage that is an ML Program.", options);
        return 0;
    }
    if (n != 1 || !input || !output) {
        cli_say("alloy predict: wants a package and two files: alloy predict NAME.mlpackage --input in.safetensors --output out.safetensors");
        return 2;
    }
    if (cli_open(&a)) return 1;
    if (o.emulate) o.overflows = &overflows;
    o.report = &report;
    alloy_status st = alloy_predict(a.ctx, package[0], input, output, &o);
    cli_clear();
    if (st == ALLOY_OK && a.json) {
        printf("%s\n", report);
    } else if (st == ALLOY_OK) {
        if (o.overflows) printf("overflows: %lld\n", (long long)overflows);
        if (o.profile) cli_print_profile(report, 25);
    }
    alloy_free(report);
    return cli_end(&a, st);
}

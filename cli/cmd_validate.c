/* SPDX-License-Identifier: MIT
 *
 * alloy validate PATH: findings, one a line; status 1 if any is more than a warning.
 */
#include "cli.h"

#include <jansson.h>
#include <stdio.h>

typedef struct printer {
    const app *a;
    json_t *list;
} printer;

static void on_finding(void *user, bool warning, const char *text) {
    printer *p = user;
    cli_clear();
    if (p->a->json) json_array_append_new(p->list, json_pack("{s:b, s:s}", "warning", warning, "text", text));
    else if (!warning || !p->a->quiet) printf("%s%s\n", warning ? "warning: " : "", text);
}

int cmd_validate(int argc, char **argv) {
    app a = {0};
    bool help = false;
    const option options[] = {
        {"--help", "-h", OPTION_FLAG, &help, NULL, "this text", 0},
        COMMON_OPTIONS(a),
    };
    const char *path[1];
    int n, findings = 0, bad = cli_parse("validate", argc, argv, options, path, 1, &n);
    if (bad) return bad;
    if (help) {
        cli_help("validate", "PATH [OPTIONS]", "Checks an .mlpackage or a model folder; each finding is one line.", options);
        return 0;
    }
    if (n != 1) {
        cli_say("alloy validate: say what to check: alloy validate FOLDER");
        return 2;
    }
    if (cli_open(&a)) return 1;
    printer p = {&a, json_array()};
    alloy_status st = alloy_validate(a.ctx, path[0], on_finding, &p, &findings);
    cli_clear();
    if (st == ALLOY_OK && a.json) {
        json_dumpf(p.list, stdout, JSON_INDENT(2));
        printf("\n");
    }
    json_decref(p.list);
    if (st == ALLOY_OK && !a.quiet && !a.json) fprintf(stderr, "%s: %d findings\n", path[0], findings);
    int status = cli_end(&a, st);
    return status ? status : findings ? 1 : 0;
}

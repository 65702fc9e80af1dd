/* SPDX-License-Identifier: MIT
 *
 * alloy, the program: the list of commands.
 */
#include "cli.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

typedef struct command_row {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} command_row;

static const command_row commands[] = {
    {"convert", cmd_convert, "a checkpoint to Core ML packages"},
    {"run", cmd_run, "a prompt to a picture, with a converted model"},
    {"predict", cmd_predict, "one prediction of any .mlpackage (ML Program)"},
    {"validate", cmd_validate, "check a package or model folder"},
    {"info", cmd_info, "what a checkpoint, package, model folder or picture is"},
    {"list-models", cmd_list_models, "the converted models below a folder"},
};

static void usage(FILE *f) {
    fprintf(f, "usage: alloy COMMAND [OPTIONS]\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) fprintf(f, "  %-12s %s\n", commands[i].name, commands[i].about);
    fprintf(f, "\nalloy COMMAND --help explains one; alloy --version tells the version.\n");
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("alloy %s\n", alloy_version());
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i].name) != 0) continue;
        int status = commands[i].run(argc - 1, argv + 1);
        if (fflush(stdout) != 0 && status == 0) {
            fprintf(stderr, "alloy: standard output could not be written\n");
            status = 1;
        }
        return status;
    }
    fprintf(stderr, "alloy: no command \"%s\"\n\n", argv[1]);
    usage(stderr);
    return 2;
}

/* SPDX-License-Identifier: MIT
 *
 * alloy, the program: the list of commands.
 */
#include "cli.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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
    {"bench", cmd_bench, "how fast this machine is: kernels, or every operation of a model's step"},
    {"list-models", cmd_list_models, "the converted models below a folder"},
};

static void usage(FILE *f) {
    fprintf(f, "usage: alloy COMMAND [OPTIONS]\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) fprintf(f, "  %-12s %s\n", commands[i].name, commands[i].about);
    fprintf(f, "\nalloy COMMAND --help explains one; alloy --version tells the version.\n");
}

/* A mapped file that shrinks or cannot be read any more. Nothing can go on; a half-written NAME.partial/ is redone later. */
static void on_bus_error(int sig) {
    static const char text[] = "alloy: a file that was being read has become shorter or unreadable\n";
    (void)sig;
    if (write(2, text, sizeof text - 1) < 0) _exit(1);
    _exit(1);
}

/* A file opened under a closed 0, 1 or 2 would be written into by whoever prints. Too large a file is a failed write, not a
 * signal. */
static void make_safe(void) {
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) < 0) _exit(1); /* writing still fails */
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGBUS, on_bus_error);
}

static int printed(int status) {
    if ((fflush(stdout) == 0 && !ferror(stdout)) || status != 0) return status;
    cli_say("alloy: standard output could not be written");
    return 1;
}

int main(int argc, char **argv) {
    make_safe();
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return printed(0);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("alloy %s\n", alloy_version());
        return printed(0);
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i].name) != 0) continue;
        return printed(commands[i].run(argc - 1, argv + 1));
    }
    cli_say("alloy: no command \"%s\"; alloy --help shows which there are", argv[1]);
    return 2;
}

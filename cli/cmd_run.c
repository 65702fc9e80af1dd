/* SPDX-License-Identifier: MIT
 *
 * alloy run MODEL: a prompt to a picture; with --benchmark, several times and with figures; with --profile, where it went.
 */
#include "cli.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct run_words {
    alloy_run_options o;
    bool help, benchmark;
    int benchmark_runs;
    const char *benchmark_output, *memory_limit;
} run_words;

static void print_report(const app *a, uint64_t seed, const char *text) {
    if (!text) return;
    if (a->json) {
        printf("%s\n", text);
        return;
    }
    json_t *j = json_loads(text, 0, NULL), *file;
    size_t i;
    json_array_foreach(json_object_get(j, "files"), i, file) printf("%s\n", json_string_value(file));
    if (json_object_get(j, "profile")) cli_print_profile(text, 25);
    double steps = 0;
    size_t n = json_array_size(json_object_get(j, "steps_s"));
    for (i = 0; i < n; i++) steps += json_number_value(json_array_get(json_object_get(j, "steps_s"), i));
    if (!a->quiet) {
        fprintf(stderr, "%lldx%lld, seed %llu: text %.2f s, %zu steps of %.2f s, decoding %.2f s, all %.2f s\n",
                (long long)json_integer_value(json_object_get(j, "width")), (long long)json_integer_value(json_object_get(j, "height")),
                (unsigned long long)seed, json_number_value(json_object_get(j, "encode_s")), n,
                n ? steps / (double)n : 0, json_number_value(json_object_get(j, "decode_s")), json_number_value(json_object_get(j, "total_s")));
    }
    json_decref(j);
}

static int compare_numbers(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* A file that could not be written whole is taken away again; a device or a folder is left alone. */
static int write_figures(const char *path, const json_t *figures) {
    errno = 0;
    FILE *f = fopen(path, "w");
    bool dumped = f && json_dumpf(figures, f, JSON_INDENT(2)) == 0;
    int why = errno;
    if (f && fclose(f) != 0 && dumped) dumped = false, why = errno;
    if (dumped) return 0;
    cli_say("alloy: %s: the figures could not be written: %s; name another file with --benchmark-output", path, why ? strerror(why) : "output failed");
    struct stat s;
    if (f && lstat(path, &s) == 0 && S_ISREG(s.st_mode)) (void)unlink(path);
    return 1;
}

/* The runs' reports and the median of their totals and steps. */
static int end_benchmark(const app *a, const run_words *w, json_t *runs) {
    size_t n = json_array_size(runs), i, k;
    double *totals = malloc((n + 1) * sizeof *totals), *steps = NULL;
    size_t n_steps = 0;
    json_t *run, *step;
    if (!totals) return 1;
    json_array_foreach(runs, i, run) {
        totals[i] = json_number_value(json_object_get(run, "total_s"));
        json_array_foreach(json_object_get(run, "steps_s"), k, step) {
            double *grown = realloc(steps, (n_steps + 1) * sizeof *steps);
            if (!grown) break;
            steps = grown;
            steps[n_steps++] = json_number_value(step);
        }
    }
    qsort(totals, n, sizeof *totals, compare_numbers);
    if (steps) qsort(steps, n_steps, sizeof *steps, compare_numbers);
    json_t *all = json_pack("{s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:O}", "runs", (int)n, "total_min_s", totals[0], "total_median_s", totals[n / 2],
                            "total_max_s", totals[n - 1], "step_min_s", n_steps ? steps[0] : 0, "step_median_s", n_steps ? steps[n_steps / 2] : 0,
                            "step_max_s", n_steps ? steps[n_steps - 1] : 0, "reports", runs);
    int status = 0;
    if (a->json) json_dumpf(all, stdout, JSON_INDENT(2)), printf("\n");
    else {
        printf("%zu runs: total %.3f s (%.3f to %.3f), step %.3f s (%.3f to %.3f)\n", n, totals[n / 2], totals[0], totals[n - 1],
               n_steps ? steps[n_steps / 2] : 0, n_steps ? steps[0] : 0, n_steps ? steps[n_steps - 1] : 0);
    }
    if (w->benchmark_output) status = write_figures(w->benchmark_output, all);
    json_decref(all);
    free(totals);
    free(steps);
    return status;
}

/* Options that say more about another, without which they would do nothing. */
static int check_companions(const run_words *w) {
    if (w->benchmark_output && !w->benchmark) {
        cli_say("alloy run: --benchmark-output takes the figures of --benchmark; give both");
        return 2;
    }
    if (w->benchmark_runs && !w->benchmark) {
        cli_say("alloy run: --benchmark-runs says how often --benchmark runs; give both");
        return 2;
    }
    bool control = w->o.control_preprocess || w->o.control_strength != 1 || w->o.control_start != 0 || w->o.control_end != 1;
    if (control && !w->o.controlnet) {
        cli_say("alloy run: --control-preprocess, -strength, -start and -end say how a ControlNet acts; give its model folder with --controlnet");
        return 2;
    }
    return 0;
}

static int run(app *a, run_words *w, const char *model) {
    int runs = w->benchmark ? w->benchmark_runs : 1;
    json_t *reports = json_array();
    alloy_status st = ALLOY_OK;
    for (int i = 0; i < runs && st == ALLOY_OK; i++) {
        char *report = NULL;
        w->o.report = &report;
        st = alloy_run(a->ctx, model, &w->o);
        if (st == ALLOY_OK && w->benchmark) json_array_append_new(reports, json_loads(report, 0, NULL));
        else print_report(a, w->o.seed, report);
        alloy_free(report);
    }
    int status = st == ALLOY_OK && w->benchmark ? end_benchmark(a, w, reports) : 0;
    json_decref(reports);
    int ended = cli_end(a, st);
    return ended ? ended : status;
}

int cmd_run(int argc, char **argv) {
    app a = {0};
    run_words w = {0};
    alloy_run_options_init(&w.o);
    w.o.output = "output.png";
    const option options[] = {
        {"--help", "-h", OPTION_FLAG, &w.help, NULL, "this text", 0},
        {"--prompt", "-p", OPTION_TEXT, &w.o.prompt, "TEXT", "what the picture should show", 0},
        {"--negative-prompt", NULL, OPTION_TEXT, &w.o.negative_prompt, "TEXT", "what it should not, for models that take one", 0},
        {"--output", "-o", OPTION_TEXT, &w.o.output, "FILE", "the PNG to write (default: output.png); of several, a number is added", 0},
        {"--width", NULL, OPTION_INT, &w.o.image_size.width, "W", "pixels (default: what the model was converted for)", 1},
        {"--height", NULL, OPTION_INT, &w.o.image_size.height, "H", "pixels", 1},
        {"--steps", NULL, OPTION_INT, &w.o.steps, "N", "denoising steps (default: the model's own)", 1},
        {"--guidance-scale", NULL, OPTION_NUMBER, &w.o.guidance_scale, "G", "how closely to follow the prompt (default: the model's own)", 0},
        {"--seed", NULL, OPTION_SEED, &w.o.seed, "S", "the noise to start from (default: 0)", 0},
        {"--image", "-i", OPTION_TEXT, &w.o.image, "FILE", "start from this picture (PNG, JPEG, WebP); the size is its own unless given", 0},
        {"--strength", NULL, OPTION_NUMBER, &w.o.strength, "X", "how much of it to change, 0 to 1 (default: the model's own)", 0},
        {"--mask", NULL, OPTION_TEXT, &w.o.mask, "FILE", "paint only where this picture, as large as the other, is white; \"alpha\": where it is transparent", 0},
        {"--clip-skip", NULL, OPTION_INT, &w.o.clip_skip, "N", "leave out the last N layers of the text encoder, for models that allow it", 0},
        {"--controlnet", NULL, OPTION_TEXT, &w.o.controlnet, "MODEL", "a ControlNet's model folder, as \"alloy convert\" makes it of its checkpoint", 0},
        {"--control-image", NULL, OPTION_TEXT, &w.o.control_image, "FILE", "what the ControlNet sees: edges, depth, a pose ...", 0},
        {"--control-preprocess", NULL, OPTION_TEXT, &w.o.control_preprocess, "HOW", "canny or canny:LOW:HIGH: take the edges of an ordinary picture", 0},
        {"--control-strength", NULL, OPTION_NUMBER, &w.o.control_strength, "X", "how much it counts (default: 1)", 0},
        {"--control-start", NULL, OPTION_NUMBER, &w.o.control_start, "A", "from which share of the steps on (default: 0)", 0},
        {"--control-end", NULL, OPTION_NUMBER, &w.o.control_end, "B", "up to which (default: 1)", 0},
        {"--denoising-end", NULL, OPTION_NUMBER, &w.o.denoising_end, "X", "stop after this share of the steps, 0 to 1, and leave the rest to another model (--save-latents)", 0},
        {"--denoising-start", NULL, OPTION_NUMBER, &w.o.denoising_start, "X", "go on from --latents at this share of the steps", 0},
        {"--scheduler", NULL, OPTION_TEXT, &w.o.scheduler, "NAME", "the model's own; a name that does not fit lists those that do", 0},
        {"--num-images", "-n", OPTION_INT, &w.o.num_images, "N", "pictures from one noise generator (default: 1)", 1},
        {"--compute-units", NULL, OPTION_TEXT, &w.o.compute_units, "U", "cpu or all (default), the same today; gpu and ane need Core ML", 0},
        {"--latents", NULL, OPTION_TEXT, &w.o.latents, "FILE", "initial noise: safetensors with one tensor \"latents\" [N, C, h, w]", 0},
        {"--save-latents", NULL, OPTION_TEXT, &w.o.save_latents, "FILE", "where the final latents go, before decoding", 0},
        {"--emulate", NULL, OPTION_TEXT, &w.o.emulate, "float16", "round float16 values after every op, to see what half precision does", 0},
        {"--memory-limit", NULL, OPTION_TEXT, &w.memory_limit, "SIZE", "such as 8GB: weights that do not fit are read again in each step", 0},
        {"--activations", NULL, OPTION_TEXT, &w.o.activations, "TYPE", "int8 (default) or float: what layers of int8 and int4 weights compute with", 0},
        {"--profile", NULL, OPTION_FLAG, &w.o.profile, NULL, "print where the time went", 0},
        {"--benchmark", NULL, OPTION_FLAG, &w.benchmark, NULL, "run several times and print the figures", 0},
        {"--benchmark-runs", NULL, OPTION_INT, &w.benchmark_runs, "N", "how many times (default: 5)", 1},
        {"--benchmark-output", NULL, OPTION_TEXT, &w.benchmark_output, "FILE", "where the figures go, as JSON", 0},
        COMMON_OPTIONS(a),
    };
    const char *model[1];
    int n, bad = cli_parse("run", argc, argv, options, model, 1, &n);
    if (bad) return bad;
    if (w.help) {
        cli_help("run", "MODEL --prompt TEXT [OPTIONS]", "Makes a picture with a model folder that \"alloy convert\" wrote.", options);
        return 0;
    }
    if (n != 1 || !w.o.prompt) {
        cli_say("alloy run: say which model and what to show: alloy run FOLDER --prompt \"a fox in the snow\"");
        return 2;
    }
    if ((bad = check_companions(&w))) return bad;
    if (!w.benchmark_runs) w.benchmark_runs = 5;
    if (w.memory_limit && !cli_parse_bytes(w.memory_limit, &w.o.memory_limit)) {
        cli_say("alloy run: --memory-limit wants a size, such as 8GB or 900MB, not \"%s\"", w.memory_limit);
        return 2;
    }
    if (cli_open(&a)) return 1;
    return run(&a, &w, model[0]);
}

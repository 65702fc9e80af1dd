/* judge PICTURE.png "PROMPT"      says whether the picture shows the prompt, and what it saw
 * judge --list FILE               the same for lines of path<TAB>prompt, with totals
 * exit: 0 accepted (all of them), 1 rejected (any of them), 2 usage or unreadable */
#include "judge.h"

#include <stdio.h>
#include <string.h>

enum verdict { ACCEPTED, REJECTED, UNREADABLE };

static const char *name_of(const char *const *names, int k)
{
    return k == UNSAID ? "unclear" : names[k];
}

static void print_sight(const struct sight *sight)
{
    printf("background %s", name_of(colour_names, sight->background));
    for (int k = 0; k < sight->count; k++) {
        const struct seen *seen = &sight->seen[k];
        printf("; %s %s %s at %.0f,%.0f (%.2f)", size_names[seen->size], name_of(colour_names, seen->colour),
               name_of(shape_names, seen->shape), seen->x, seen->y, seen->likeness);
    }
    printf("\n");
}

static enum verdict judge(const char *path, const char *text)
{
    struct prompt prompt;
    struct picture picture = {0, 0, NULL};
    struct sight sight;
    const char *why;
    char reason[96] = "";
    if (!prompt_parse(text, &prompt, &why)) {
        fprintf(stderr, "judge: %s: \"%s\"\n", why, text);
        return UNREADABLE;
    }
    if (!picture_read(path, &picture)) {
        fprintf(stderr, "judge: %s: not a readable PNG\n", path);
        return UNREADABLE;
    }
    const bool ready = picture_see(&picture, &sight);
    picture_free(&picture);
    if (!ready) {
        fprintf(stderr, "judge: out of memory\n");
        return UNREADABLE;
    }
    const bool accepted = sight_matches(&sight, &prompt, reason, sizeof reason);
    printf("%s\t%s\t%s\t", accepted ? "accepted" : "rejected", path, text);
    if (!accepted)
        printf("%s: ", reason);
    print_sight(&sight);
    return accepted ? ACCEPTED : REJECTED;
}

static int judge_list(const char *path)
{
    char line[2048];
    int counts[3] = {0, 0, 0};
    FILE *file = fopen(path, "r");
    if (!file) {
        fprintf(stderr, "judge: cannot open %s\n", path);
        return 2;
    }
    while (fgets(line, sizeof line, file)) {
        char *tab = strchr(line, '\t');
        line[strcspn(line, "\r\n")] = '\0';
        if (!tab)
            continue;
        *tab = '\0';
        counts[judge(line, tab + 1)]++;
    }
    fclose(file);
    printf("%d accepted, %d rejected\n", counts[ACCEPTED], counts[REJECTED]);
    if (counts[UNREADABLE])
        fprintf(stderr, "judge: %d lines could not be judged\n", counts[UNREADABLE]);
    return counts[UNREADABLE] ? 2 : counts[REJECTED] ? 1 : 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--list"))
        return judge_list(argv[2]);
    if (argc == 3)
        return (int)judge(argv[1], argv[2]);
    fprintf(stderr, "usage: judge PICTURE.png \"PROMPT\"\n       judge --list FILE    (lines of path<TAB>prompt)\n");
    return 2;
}

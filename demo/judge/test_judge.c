/* test_judge DIRECTORY: the judge on pictures drawn for the purpose (see demo/train/make_judge_set.py).
 * Accepts at least 99 in 100 of the drawn pictures for their prompts, and rejects at least 99 in 100 of the prompts
 * that differ from the picture in one attribute. */
#include "judge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHEETS = 4, ROW = 10, CELL = DRAWN_SIDE };

struct tally {
    int accepted, rejected;
};

static bool copy_cell(const struct picture *sheet, int cell, struct picture *out)
{
    const size_t x = (size_t)(cell % ROW) * CELL, y = (size_t)(cell / ROW) * CELL;
    if ((x + CELL) > (size_t)sheet->width || (y + CELL) > (size_t)sheet->height)
        return false;
    for (size_t row = 0; row < CELL; row++)
        memcpy(out->rgb + row * CELL * 3, sheet->rgb + ((y + row) * (size_t)sheet->width + x) * 3, (size_t)CELL * 3);
    return true;
}

static bool judge_one(const struct sight *sight, const char *text, bool expected, struct tally *tally)
{
    struct prompt prompt;
    const char *why;
    char reason[96] = "";
    if (!prompt_parse(text, &prompt, &why)) {
        printf("  %s: \"%s\"\n", why, text);
        return false;
    }
    const bool accepted = sight_matches(sight, &prompt, reason, sizeof reason);
    if (accepted != expected)
        printf("  %s but should not be: \"%s\" %s\n", accepted ? "accepted" : "rejected", text, reason);
    *(accepted ? &tally->accepted : &tally->rejected) += 1;
    return true;
}

/* One line: the true prompt, then the false ones, between tabs. */
static bool judge_line(const struct sight *sight, char *line, struct tally *right, struct tally *wrong)
{
    bool first = true;
    line[strcspn(line, "\r\n")] = '\0';
    for (char *text = line, *next; text; text = next, first = false) {
        next = strchr(text, '\t');
        if (next)
            *next++ = '\0';
        if (!judge_one(sight, text, first, first ? right : wrong))
            return false;
    }
    return true;
}

static bool judge_sheet(const char *folder, int number, FILE *prompts, struct tally *right, struct tally *wrong)
{
    char path[1024], line[4096];
    unsigned char pixels[CELL * CELL * 3];
    struct picture sheet, cell = {CELL, CELL, pixels};
    struct sight sight;
    bool good = true;
    snprintf(path, sizeof path, "%s/sheet-%d.png", folder, number);
    if (!picture_read(path, &sheet)) {
        printf("cannot read %s\n", path);
        return false;
    }
    for (int k = 0; good && k < ROW * ROW; k++)
        good = fgets(line, sizeof line, prompts) && copy_cell(&sheet, k, &cell) && picture_see(&cell, &sight) &&
               judge_line(&sight, line, right, wrong);
    picture_free(&sheet);
    return good;
}

int main(int argc, char **argv)
{
    const char *folder = argc > 1 ? argv[1] : "demo/judge/drawn";
    char path[1024];
    struct tally right = {0, 0}, wrong = {0, 0};
    snprintf(path, sizeof path, "%s/prompts.txt", folder);
    FILE *prompts = fopen(path, "r");
    if (!prompts) {
        printf("cannot open %s\n", path);
        return 1;
    }
    for (int k = 0; k < SHEETS; k++)
        if (!judge_sheet(folder, k, prompts, &right, &wrong)) {
            fclose(prompts);
            printf("sheet %d and prompts.txt do not fit together\n", k);
            return 1;
        }
    fclose(prompts);
    printf("true prompts: %d of %d accepted\nfalse prompts: %d of %d rejected\n", right.accepted,
           right.accepted + right.rejected, wrong.rejected, wrong.accepted + wrong.rejected);
    return right.accepted * 100 >= 99 * (right.accepted + right.rejected) &&
           wrong.rejected * 100 >= 99 * (wrong.accepted + wrong.rejected) ? 0 : 1;
}

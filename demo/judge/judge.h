/* The demo's judge: does a picture show what its prompt says? No model, no network: colours, outlines, places. */
#ifndef DEMO_JUDGE_H
#define DEMO_JUDGE_H

#include <stdbool.h>
#include <stddef.h>

enum { MAX_THINGS = 8, MAX_SEEN = 24, DRAWN_SIDE = 128 };

enum colour { RED, ORANGE, YELLOW, GREEN, BLUE, PURPLE, WHITE, BLACK, COLOURS };
enum shape { CIRCLE, SQUARE, TRIANGLE, STAR, CROSS, RING, SHAPES };
enum size { SMALL, MEDIUM, BIG, SIZES };
enum third { FIRST, MIDDLE, LAST };                 /* left, centre, right or top, centre, bottom */
enum relation { ANYHOW, LEFT_OF, RIGHT_OF, ABOVE, BELOW };

#define UNSAID (-1)

struct picture {
    int width, height;
    unsigned char *rgb;                             /* [height, width, 3] */
};

/* One thing that the prompt asks for; every field but shape may be UNSAID. */
struct wish {
    int shape, colour, size, column, row;
};

struct prompt {
    int count, background;
    enum relation relation;                         /* of the first wish to the second */
    struct wish wish[MAX_THINGS];
};

/* One thing found in a picture; places and radius in units of a picture 128 wide. */
struct seen {
    int shape, colour, size;
    double x, y, radius, likeness;                  /* likeness: overlap with the ideal outline, 0 to 1 */
};

struct sight {
    int count, background;
    struct seen seen[MAX_SEEN];
};

extern const char *const colour_names[COLOURS];
extern const char *const shape_names[SHAPES];
extern const char *const size_names[SIZES];

/* png.c */
bool picture_read(const char *path, struct picture *picture);
void picture_free(struct picture *picture);

/* prompt.c: false when the text is not of the demo's language, with a word about why */
bool prompt_parse(const char *text, struct prompt *prompt, const char **why);

/* outline.c: the best fitting ideal shape of a mask's part, over [x0, x1) x [y0, y1) */
struct mask {
    int width, x0, y0, x1, y1, label;
    const int *labels;                              /* [height, width]; the part is where labels == label */
};
int outline_fit(const struct mask *mask, double *radius, double *likeness);

/* see.c: false when memory ran out */
bool picture_see(const struct picture *picture, struct sight *sight);

/* match.c: true when the picture shows the prompt; otherwise why says what is wrong */
bool sight_matches(const struct sight *sight, const struct prompt *prompt, char *why, size_t size);

#endif

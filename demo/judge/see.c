/* Finds the things in a picture: what differs from the background, part by part. */
#include "judge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const colour_names[COLOURS] = {"red", "orange", "yellow", "green", "blue", "purple", "white", "black"};
const char *const shape_names[SHAPES] = {"circle", "square", "triangle", "star", "cross", "ring"};
const char *const size_names[SIZES] = {"small", "medium", "big"};

static const double palette[COLOURS][3] = {
    {214, 36, 40}, {247, 136, 18}, {252, 222, 48}, {32, 158, 72}, {36, 84, 214}, {140, 52, 176}, {246, 246, 244}, {20, 20, 24},
};

static const double least_contrast = 34;        /* a difference from the background that counts */
static const double least_area = 40;            /* smaller parts are specks, in a picture 128 wide */
static const double like_enough = 0.68;         /* an outline less alike is no shape at all */
static const double colour_reach = 75;          /* a colour further from all eight is none of them */
static const double small_below = 16.3, big_above = 21.7;

struct workspace {
    int width, height;
    double scale;                               /* pixels of this picture to one of a picture 128 wide */
    double ground[3];
    float *contrast;                            /* distance from the background, [height, width] */
    int *labels;                                /* 0 ground, -1 not yet visited, else the part's number */
    int *stack;
};

static int nearest_colour(const double rgb[3])
{
    int best = UNSAID;
    double least = colour_reach * colour_reach;
    for (int c = 0; c < COLOURS; c++) {
        double far = 0;
        for (int k = 0; k < 3; k++)
            far += (rgb[k] - palette[c][k]) * (rgb[k] - palette[c][k]);
        if (far < least) {
            least = far;
            best = c;
        }
    }
    return best;
}

static bool on_frame(const struct workspace *w, int x, int y)
{
    return x < 2 || y < 2 || x >= w->width - 2 || y >= w->height - 2;
}

/* the background is the median colour of the picture's frame */
static void find_ground(const struct picture *picture, struct workspace *w)
{
    for (int channel = 0; channel < 3; channel++) {
        int counts[256] = {0}, total = 0, value = 0;
        for (int y = 0; y < w->height; y++)
            for (int x = 0; x < w->width; x++)
                if (on_frame(w, x, y)) {
                    counts[picture->rgb[((size_t)y * (size_t)w->width + (size_t)x) * 3 + (size_t)channel]]++;
                    total++;
                }
        for (int below = counts[0]; below * 2 < total; below += counts[value])
            value++;
        w->ground[channel] = value;
    }
}

static void find_contrast(const struct picture *picture, struct workspace *w)
{
    const size_t pixels = (size_t)w->width * (size_t)w->height;
    for (size_t p = 0; p < pixels; p++) {
        double far = 0;
        for (size_t k = 0; k < 3; k++) {
            const double d = picture->rgb[p * 3 + k] - w->ground[k];
            far += d * d;
        }
        w->contrast[p] = (float)sqrt(far);
    }
}

/* the strongest contrast near a pixel */
static float peak_near(const struct workspace *w, int x, int y, int reach)
{
    float peak = 0;
    for (int j = y - reach; j <= y + reach; j++)
        for (int i = x - reach; i <= x + reach; i++)
            if (i >= 0 && j >= 0 && i < w->width && j < w->height) {
                const float here = w->contrast[(size_t)j * (size_t)w->width + (size_t)i];
                peak = here > peak ? here : peak;
            }
    return peak;
}

/* A pixel is part of a thing when it is past half of the contrast around it, so soft edges are cut in their middle. */
static void find_foreground(struct workspace *w)
{
    const int reach = (int)ceil(3 * w->scale);
    for (int y = 0; y < w->height; y++)
        for (int x = 0; x < w->width; x++) {
            const size_t p = (size_t)y * (size_t)w->width + (size_t)x;
            const float here = w->contrast[p];
            w->labels[p] = here > (float)least_contrast && here > 0.5F * peak_near(w, x, y, reach) ? -1 : 0;
        }
}

/* Labels the part that holds pixel `start`; returns its area and its box. */
static int flood(struct workspace *w, int start, int label, struct mask *box)
{
    int top = 0, area = 0;
    *box = (struct mask){w->width, w->width, w->height, 0, 0, label, w->labels};
    w->labels[start] = label;
    w->stack[top++] = start;
    while (top) {
        const int p = w->stack[--top], x = p % w->width, y = p / w->width;
        const int near[4] = {x > 0 ? p - 1 : p, x + 1 < w->width ? p + 1 : p, y > 0 ? p - w->width : p,
                             y + 1 < w->height ? p + w->width : p};
        area++;
        box->x0 = x < box->x0 ? x : box->x0;
        box->y0 = y < box->y0 ? y : box->y0;
        box->x1 = x + 1 > box->x1 ? x + 1 : box->x1;
        box->y1 = y + 1 > box->y1 ? y + 1 : box->y1;
        for (int k = 0; k < 4; k++)
            if (w->labels[near[k]] == -1) {
                w->labels[near[k]] = label;
                w->stack[top++] = near[k];
            }
    }
    return area;
}

static bool in_core(const struct mask *box, int x, int y, int height)
{
    if (x < 1 || y < 1 || x + 1 >= box->width || y + 1 >= height)
        return false;
    for (int j = y - 1; j <= y + 1; j++)
        for (int i = x - 1; i <= x + 1; i++)
            if (box->labels[(size_t)j * (size_t)box->width + (size_t)i] != box->label)
                return false;
    return true;
}

/* the mean colour of a part away from its edge */
static int part_colour(const struct picture *picture, const struct mask *box, bool *solid)
{
    double sum[3] = {0, 0, 0};
    int count = 0;
    for (int y = box->y0; y < box->y1; y++)
        for (int x = box->x0; x < box->x1; x++)
            if (in_core(box, x, y, picture->height)) {
                for (size_t k = 0; k < 3; k++)
                    sum[k] += picture->rgb[((size_t)y * (size_t)picture->width + (size_t)x) * 3 + k];
                count++;
            }
    for (int k = 0; k < 3; k++)
        sum[k] /= count ? count : 1;
    *solid = count > 0;
    return count ? nearest_colour(sum) : UNSAID;
}

static struct seen describe(const struct picture *picture, const struct workspace *w, const struct mask *box, bool *solid)
{
    struct seen seen = {.colour = part_colour(picture, box, solid)};
    const int shape = outline_fit(box, &seen.radius, &seen.likeness);
    seen.shape = seen.likeness >= like_enough ? shape : UNSAID;
    seen.x = 0.5 * (box->x0 + box->x1) / w->scale;
    seen.y = 0.5 * (box->y0 + box->y1) / w->scale;
    seen.radius /= w->scale;
    seen.size = seen.radius < small_below ? SMALL : seen.radius > big_above ? BIG : MEDIUM;
    return seen;
}

static void find_things(const struct picture *picture, struct workspace *w, struct sight *sight)
{
    int label = 0;
    for (int p = 0; p < w->width * w->height; p++) {
        struct mask box;
        bool solid;
        if (w->labels[p] != -1 || flood(w, p, ++label, &box) < least_area * w->scale * w->scale)
            continue;
        const struct seen seen = describe(picture, w, &box, &solid);
        if (solid && sight->count < MAX_SEEN)       /* a line that is nowhere three pixels thick is no thing */
            sight->seen[sight->count++] = seen;
    }
}

bool picture_see(const struct picture *picture, struct sight *sight)
{
    const size_t pixels = (size_t)picture->width * (size_t)picture->height;
    struct workspace w = {.width = picture->width, .height = picture->height,
                          .scale = (double)picture->width / DRAWN_SIDE};
    w.contrast = malloc(pixels * sizeof *w.contrast);
    w.labels = malloc(pixels * sizeof *w.labels);
    w.stack = malloc(pixels * sizeof *w.stack);
    const bool ready = w.contrast && w.labels && w.stack;
    memset(sight, 0, sizeof *sight);
    if (ready) {
        find_ground(picture, &w);
        sight->background = nearest_colour(w.ground);
        find_contrast(picture, &w);
        find_foreground(&w);
        find_things(picture, &w, sight);
    }
    free(w.contrast);
    free(w.labels);
    free(w.stack);
    return ready;
}

/* The ideal outlines, and how well a part of a picture fills each of them. */
#include "judge.h"

#include <math.h>

struct corner {
    double x, y;
};

/* Corners in units of the radius, y down: the outlines that demo/train/draw.py paints. */
static const struct corner square[] = {{-0.9, -0.9}, {0.9, -0.9}, {0.9, 0.9}, {-0.9, 0.9}};
static const struct corner triangle[] = {{0, -1.05}, {1.1, 0.9}, {-1.1, 0.9}};
static const struct corner star[] = {
    {0.0000, -1.1600}, {0.3644, -0.4416}, {1.1603, -0.3170}, {0.5897, 0.2516}, {0.7171, 1.0470},
    {0.0000, 0.6800}, {-0.7171, 1.0470}, {-0.5897, 0.2516}, {-1.1603, -0.3170}, {-0.3644, -0.4416}};
static const struct corner cross[] = {
    {-0.36, -1.05}, {0.36, -1.05}, {0.36, -0.36}, {1.05, -0.36}, {1.05, 0.36}, {0.36, 0.36},
    {0.36, 1.05}, {-0.36, 1.05}, {-0.36, 0.36}, {-1.05, 0.36}, {-1.05, -0.36}, {-0.36, -0.36}};

static const double ring_hole = 0.56;

/* half the width and height of each outline, and how far its middle lies below the shape's own centre */
static const struct outline {
    const struct corner *corners;
    int count;
    double half_width, half_height, middle;
} outlines[SHAPES] = {
    [CIRCLE] = {0, 0, 1, 1, 0},
    [SQUARE] = {square, 4, 0.9, 0.9, 0},
    [TRIANGLE] = {triangle, 3, 1.1, 0.975, -0.075},
    [STAR] = {star, 10, 1.1603, 1.1035, -0.0565},
    [CROSS] = {cross, 12, 1.05, 1.05, 0},
    [RING] = {0, 0, 1, 1, 0},
};

static bool inside_corners(const struct outline *outline, double x, double y)
{
    bool inside = false;
    for (int k = 0, j = outline->count - 1; k < outline->count; j = k++) {
        const struct corner a = outline->corners[k], b = outline->corners[j];
        if ((a.y > y) != (b.y > y) && x < (b.x - a.x) * (y - a.y) / (b.y - a.y) + a.x)
            inside = !inside;
    }
    return inside;
}

static bool inside(int shape, double x, double y)
{
    const double far = x * x + y * y;
    if (shape == CIRCLE)
        return far < 1;
    if (shape == RING)
        return far < 1 && far > ring_hole * ring_hole;
    return inside_corners(&outlines[shape], x, y);
}

/* overlap of the part with the outline laid over the part's own box: common area by joint area */
static double overlap(const struct mask *mask, int shape, double radius)
{
    const double x_middle = 0.5 * (mask->x0 + mask->x1);
    const double y_middle = 0.5 * (mask->y0 + mask->y1) - outlines[shape].middle * radius;
    int common = 0, joint = 0;
    for (int y = mask->y0 - 6; y < mask->y1 + 6; y++)
        for (int x = mask->x0 - 6; x < mask->x1 + 6; x++) {
            const bool in_box = x >= mask->x0 && x < mask->x1 && y >= mask->y0 && y < mask->y1;
            const bool here = in_box && mask->labels[(size_t)y * (size_t)mask->width + (size_t)x] == mask->label;
            const bool ideal = inside(shape, (x + 0.5 - x_middle) / radius, (y + 0.5 - y_middle) / radius);
            common += here && ideal;
            joint += here || ideal;
        }
    return joint ? (double)common / joint : 0;
}

/* Soft pictures lose their tips, so a part's box may be a little smaller than the shape it shows. */
static const double stretches[] = {0.96, 1.0, 1.04, 1.08, 1.12, 1.16};

int outline_fit(const struct mask *mask, double *radius, double *likeness)
{
    int best = UNSAID;
    *likeness = 0;
    for (int shape = 0; shape < SHAPES; shape++) {
        const struct outline *outline = &outlines[shape];
        const double wide = (mask->x1 - mask->x0) / (2 * outline->half_width);
        const double high = (mask->y1 - mask->y0) / (2 * outline->half_height);
        for (size_t k = 0; k < sizeof stretches / sizeof *stretches; k++) {
            const double tried = 0.5 * (wide + high) * stretches[k];
            const double fit = overlap(mask, shape, tried);
            if (fit > *likeness) {
                best = shape;
                *likeness = fit;
                *radius = tried;
            }
        }
    }
    return best;
}

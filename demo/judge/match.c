/* Holds what was seen against what was asked for. */
#include "judge.h"

#include <math.h>
#include <stdio.h>

static enum third third_of(double at)
{
    return at < 48.5 ? FIRST : at > 79.5 ? LAST : MIDDLE;
}

static bool agrees(int said, int found)
{
    return said == UNSAID || said == found;
}

static bool grants(const struct wish *wish, const struct seen *seen)
{
    return seen->shape == wish->shape && agrees(wish->colour, seen->colour) && agrees(wish->size, seen->size) &&
           agrees(wish->column, (int)third_of(seen->x)) && agrees(wish->row, (int)third_of(seen->y));
}

/* b stands at least a quarter of the picture from a, in the direction asked for */
static bool related(enum relation relation, const struct seen *a, const struct seen *b)
{
    const double right = b->x - a->x, down = b->y - a->y, least = DRAWN_SIDE / 4.0;
    switch (relation) {
    case LEFT_OF:
        return right > least && fabs(down) < right;
    case RIGHT_OF:
        return -right > least && fabs(down) < -right;
    case ABOVE:
        return down > least && fabs(right) < down;
    case BELOW:
        return -down > least && fabs(right) < -down;
    case ANYHOW:
        return true;
    }
    return false;
}

/* Gives the wishes from `next` on a thing each, in every way there is. */
static bool assign(const struct sight *sight, const struct prompt *prompt, int next, int *given, unsigned used)
{
    if (next == prompt->count)
        return prompt->count < 2 || related(prompt->relation, &sight->seen[given[0]], &sight->seen[given[1]]);
    for (int k = 0; k < sight->count; k++) {
        if (used >> k & 1 || !grants(&prompt->wish[next], &sight->seen[k]))
            continue;
        given[next] = k;
        if (assign(sight, prompt, next + 1, given, used | 1U << k))
            return true;
    }
    return false;
}

bool sight_matches(const struct sight *sight, const struct prompt *prompt, char *why, size_t size)
{
    int given[MAX_THINGS];
    if (sight->count != prompt->count)
        snprintf(why, size, "%d asked for, %d seen", prompt->count, sight->count);
    else if (!agrees(prompt->background, sight->background))
        snprintf(why, size, "the background is not %s", colour_names[prompt->background]);
    else if (!assign(sight, prompt, 0, given, 0))
        snprintf(why, size, "what is seen is not what was asked for");
    else
        return true;
    return false;
}

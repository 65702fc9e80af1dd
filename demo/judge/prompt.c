/* Reads a prompt of the demo's language. Word order is free, so this listens for words rather than for a grammar. */
#include "judge.h"

#include <ctype.h>
#include <string.h>

enum kind { K_OTHER, K_COLOUR, K_SHAPE, K_SIZE, K_NUMBER, K_COLUMN, K_ROW, K_CENTRE, K_ABOVE, K_BELOW, K_GROUND, K_OF };

struct word {
    const char *text;
    enum kind kind;
    int value;
};

static const struct word dictionary[] = {
    {"red", K_COLOUR, RED}, {"orange", K_COLOUR, ORANGE}, {"yellow", K_COLOUR, YELLOW}, {"green", K_COLOUR, GREEN},
    {"blue", K_COLOUR, BLUE}, {"purple", K_COLOUR, PURPLE}, {"white", K_COLOUR, WHITE}, {"black", K_COLOUR, BLACK},
    {"circle", K_SHAPE, CIRCLE}, {"circles", K_SHAPE, CIRCLE}, {"disc", K_SHAPE, CIRCLE}, {"discs", K_SHAPE, CIRCLE},
    {"dot", K_SHAPE, CIRCLE}, {"dots", K_SHAPE, CIRCLE}, {"square", K_SHAPE, SQUARE}, {"squares", K_SHAPE, SQUARE},
    {"box", K_SHAPE, SQUARE}, {"boxes", K_SHAPE, SQUARE}, {"triangle", K_SHAPE, TRIANGLE},
    {"triangles", K_SHAPE, TRIANGLE}, {"star", K_SHAPE, STAR}, {"stars", K_SHAPE, STAR}, {"cross", K_SHAPE, CROSS},
    {"crosses", K_SHAPE, CROSS}, {"plus", K_SHAPE, CROSS}, {"pluses", K_SHAPE, CROSS}, {"ring", K_SHAPE, RING},
    {"rings", K_SHAPE, RING}, {"hoop", K_SHAPE, RING}, {"hoops", K_SHAPE, RING},
    {"small", K_SIZE, SMALL}, {"tiny", K_SIZE, SMALL}, {"little", K_SIZE, SMALL}, {"medium", K_SIZE, MEDIUM},
    {"big", K_SIZE, BIG}, {"large", K_SIZE, BIG}, {"huge", K_SIZE, BIG},
    {"a", K_NUMBER, 1}, {"an", K_NUMBER, 1}, {"one", K_NUMBER, 1}, {"two", K_NUMBER, 2}, {"three", K_NUMBER, 3},
    {"four", K_NUMBER, 4},
    {"left", K_COLUMN, FIRST}, {"right", K_COLUMN, LAST}, {"top", K_ROW, FIRST}, {"upper", K_ROW, FIRST},
    {"bottom", K_ROW, LAST}, {"lower", K_ROW, LAST}, {"middle", K_CENTRE, 0}, {"centre", K_CENTRE, 0},
    {"center", K_CENTRE, 0}, {"above", K_ABOVE, 0}, {"over", K_ABOVE, 0}, {"below", K_BELOW, 0}, {"under", K_BELOW, 0},
    {"background", K_GROUND, 0}, {"backdrop", K_GROUND, 0}, {"of", K_OF, 0},
};

enum { MAX_WORDS = 64, MAX_LETTERS = 16 };

struct reader {
    struct word words[MAX_WORDS];
    int count;
    struct wish next;                       /* what has been said about the thing to come */
    int number;
};

static struct word look_up(const char *text)
{
    for (size_t k = 0; k < sizeof dictionary / sizeof *dictionary; k++)
        if (!strcmp(dictionary[k].text, text))
            return dictionary[k];
    return (struct word){NULL, K_OTHER, 0};
}

static void split(struct reader *reader, const char *text)
{
    while (*text && reader->count < MAX_WORDS) {
        char letters[MAX_LETTERS];
        size_t n = 0;
        while (*text && !isalpha((unsigned char)*text))
            text++;
        for (; isalpha((unsigned char)*text); text++)
            if (n + 1 < sizeof letters)
                letters[n++] = (char)tolower((unsigned char)*text);
        letters[n] = '\0';
        if (n)
            reader->words[reader->count++] = look_up(letters);
    }
}

static enum kind kind_at(const struct reader *reader, int k)
{
    return k < reader->count ? reader->words[k].kind : K_OTHER;
}

/* A colour belongs to the shape that follows it, with at most a size between; otherwise it is the background. */
static bool colours_a_shape(const struct reader *reader, int k)
{
    do
        k++;
    while (kind_at(reader, k) == K_SIZE);
    return kind_at(reader, k) == K_SHAPE;
}

static void start_wish(struct reader *reader)
{
    reader->next = (struct wish){UNSAID, UNSAID, UNSAID, UNSAID, UNSAID};
    reader->number = 1;
}

/* The thing a place word speaks of: the last one named, or the one to come. */
static struct wish *placed(struct reader *reader, struct prompt *prompt)
{
    return prompt->count ? &prompt->wish[prompt->count - 1] : &reader->next;
}

static bool add_wishes(struct reader *reader, struct prompt *prompt, int shape)
{
    if (prompt->count + reader->number > MAX_THINGS)
        return false;
    reader->next.shape = shape;
    for (int k = 0; k < reader->number; k++)
        prompt->wish[prompt->count++] = reader->next;
    start_wish(reader);
    return true;
}

static bool hear(struct reader *reader, struct prompt *prompt, int k)
{
    const struct word word = reader->words[k];
    switch (word.kind) {
    case K_COLOUR:
        if (colours_a_shape(reader, k))
            reader->next.colour = word.value;
        else
            prompt->background = word.value;
        return true;
    case K_SHAPE:
        return add_wishes(reader, prompt, word.value);
    case K_SIZE:
        reader->next.size = word.value;
        return true;
    case K_NUMBER:
        reader->number = word.value;
        return true;
    case K_COLUMN:
        if (kind_at(reader, k + 1) == K_OF)
            prompt->relation = word.value == FIRST ? LEFT_OF : RIGHT_OF;
        else
            placed(reader, prompt)->column = word.value;
        return true;
    case K_ROW:
        placed(reader, prompt)->row = word.value;
        return true;
    case K_CENTRE:
        placed(reader, prompt)->column = placed(reader, prompt)->row = MIDDLE;
        return true;
    case K_ABOVE:
    case K_BELOW:
        prompt->relation = word.kind == K_ABOVE ? ABOVE : BELOW;
        return true;
    case K_GROUND:
    case K_OF:
    case K_OTHER:
        return true;
    }
    return true;
}

bool prompt_parse(const char *text, struct prompt *prompt, const char **why)
{
    struct reader reader = {.count = 0};
    split(&reader, text);
    start_wish(&reader);
    *prompt = (struct prompt){.background = UNSAID};
    for (int k = 0; k < reader.count; k++)
        if (!hear(&reader, prompt, k)) {
            *why = "the prompt asks for more things than the demo can draw";
            return false;
        }
    if (!prompt->count) {
        *why = "the prompt names no shape that the demo knows";
        return false;
    }
    for (int k = 0; k < prompt->count; k++) {       /* "on the left" is halfway up */
        struct wish *wish = &prompt->wish[k];
        if (wish->column == UNSAID && wish->row != UNSAID)
            wish->column = MIDDLE;
        if (wish->row == UNSAID && wish->column != UNSAID)
            wish->row = MIDDLE;
    }
    return true;
}

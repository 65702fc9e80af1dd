/* Reads any PNG as 8-bit RGB, through libpng's simplified interface. */
#include "judge.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

bool picture_read(const char *path, struct picture *picture)
{
    png_image image;
    memset(&image, 0, sizeof image);
    image.version = PNG_IMAGE_VERSION;
    if (!png_image_begin_read_from_file(&image, path))
        return false;
    image.format = PNG_FORMAT_RGB;
    if (image.width < 16 || image.height < 16 || image.width > 8192 || image.height > 8192) {
        png_image_free(&image);
        return false;
    }
    picture->rgb = malloc(PNG_IMAGE_SIZE(image));
    if (!picture->rgb || !png_image_finish_read(&image, NULL, picture->rgb, 0, NULL)) {
        png_image_free(&image);
        picture_free(picture);
        return false;
    }
    picture->width = (int)image.width;
    picture->height = (int)image.height;
    return true;
}

void picture_free(struct picture *picture)
{
    free(picture->rgb);
    picture->rgb = NULL;
}

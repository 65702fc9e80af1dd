/* SPDX-License-Identifier: MIT
 *
 * Half, bfloat16 and float8 to and from float: scalar forms, IEEE round to nearest even, exact on every machine.
 */
#ifndef AY_HALF_H
#define AY_HALF_H

#include <stdint.h>

float ay_f16_to_f32(uint16_t h); /* NaN becomes a quiet one, its payload kept: as the hardware does it */
uint16_t ay_f32_to_f16(float f); /* overflow gives infinity; NaN stays NaN */
float ay_bf16_to_f32(uint16_t h);
uint16_t ay_f32_to_bf16(float f);
float ay_f8e4m3_to_f32(uint8_t v); /* e4m3fn: no infinity, 0x7f and 0xff are NaN */
float ay_f8e5m2_to_f32(uint8_t v);
uint8_t ay_f32_to_f8e4m3(float f); /* there is no infinity: saturates at 448 */
uint8_t ay_f32_to_f8e5m2(float f); /* overflow gives infinity */

#endif

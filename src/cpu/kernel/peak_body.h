/* SPDX-License-Identifier: MIT
 *
 * Twelve independent chains hide the latency of a multiply-add (4 or 5 cycles, two a cycle) on every processor we know.
 * The includer names the vector type, the operation, a constraint that keeps it in a register, and operations a step. The
 * empty assembly keeps the compiler from seeing that the chains are all alike.
 */
#define PEAK(name, type, one, step, in_register, ops)                                                                       \
    static double name(int64_t rounds) {                                                                                    \
        type s0 = one, s1 = one, s2 = one, s3 = one, s4 = one, s5 = one, s6 = one, s7 = one, s8 = one, s9 = one, s10 = one, \
             s11 = one, x = one;                                                                                            \
        __asm__("" : "+" in_register(s0), "+" in_register(s1), "+" in_register(s2), "+" in_register(s3));                   \
        __asm__("" : "+" in_register(s4), "+" in_register(s5), "+" in_register(s6), "+" in_register(s7));                   \
        __asm__("" : "+" in_register(s8), "+" in_register(s9), "+" in_register(s10), "+" in_register(s11));                 \
        for (int64_t r = 0; r < rounds; r++) {                                                                              \
            __asm__ volatile("" : "+" in_register(x));                                                                      \
            s0 = step(s0, x), s1 = step(s1, x), s2 = step(s2, x), s3 = step(s3, x), s4 = step(s4, x), s5 = step(s5, x);     \
            s6 = step(s6, x), s7 = step(s7, x), s8 = step(s8, x), s9 = step(s9, x), s10 = step(s10, x), s11 = step(s11, x); \
        }                                                                                                                   \
        __asm__ volatile("" ::in_register(s0), in_register(s1), in_register(s2), in_register(s3), in_register(s4),          \
                         in_register(s5));                                                                                  \
        __asm__ volatile("" ::in_register(s6), in_register(s7), in_register(s8), in_register(s9), in_register(s10),         \
                         in_register(s11));                                                                                 \
        return 12.0 * (ops) * (double)rounds;                                                                               \
    }

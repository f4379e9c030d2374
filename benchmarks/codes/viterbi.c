/* Viterbi search on a bitshift trellis. The state is the last `memory` bits of a vector's bit stream. A step shifts
   `bits` new bits in, and emits the `group` values table[state]. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FAR 1e30f

/* Find the states of least squared error for `steps` groups of elements. With end >= 0 the path starts and ends in that
   state, so that the bits of the vector form a ring and no start state is stored. */
static void search(const float *x, long steps, const float *restrict table, int memory, int bits, int group, long end,
                   uint16_t *states) {
    const long count = 1L << memory, targets = count >> bits, branches = 1L << bits;
    float *cost = malloc(count * sizeof(float)), *next = malloc(count * sizeof(float));
    float *best = malloc(targets * sizeof(float));
    uint8_t *from = malloc(steps * targets);
    for (long s = 0; s < count; s++) cost[s] = end < 0 || s == end ? 0 : FAR;
    for (long t = 0; t < steps; t++) {
        /* States that differ only in their oldest bits lead to the same states: keep the cheapest of each. */
        uint8_t *restrict back = from + t * targets;
        memcpy(best, cost, targets * sizeof(float));
        memset(back, 0, targets);
        for (long j = 1; j < branches; j++) {
            const float *restrict other = cost + j * targets;
            for (long g = 0; g < targets; g++) {
                int less = other[g] < best[g];
                back[g] = less ? (uint8_t)j : back[g];
                best[g] = less ? other[g] : best[g];
            }
        }
        float least = FAR;
        for (long g = 0; g < targets; g++) least = best[g] < least ? best[g] : least;
        /* Add the squared error of this step; subtract the least cost, so that float32 stays exact enough. */
        for (long g = 0; g < targets; g++)
            for (long i = 0; i < branches; i++) {
                const float *value = table + (g * branches + i) * group;
                float sum = best[g] - least;
                for (int v = 0; v < group; v++) sum += (x[t * group + v] - value[v]) * (x[t * group + v] - value[v]);
                next[g * branches + i] = sum;
            }
        float *swap = cost;
        cost = next;
        next = swap;
    }
    long state = end;
    if (end < 0)
        for (long s = state = 0; s < count; s++) state = cost[s] < cost[state] ? s : state;
    for (long t = steps - 1; t >= 0; t--) {
        states[t] = (uint16_t)state;
        state = (state >> bits) | ((long)from[t * targets + (state >> bits)] << (memory - bits));
    }
    free(cost), free(next), free(best), free(from);
}

/* Search for one vector as a ring: its seam's state comes from a free search of `around` steps on either side. */
void search_ring(const float *x, long steps, const float *table, int memory, int bits, int group, long around,
                 uint16_t *states) {
    if (2 * around > steps) around = steps / 2;
    float *seam = malloc(2 * around * group * sizeof(float));
    uint16_t *found = malloc(2 * around * sizeof(uint16_t));
    memcpy(seam, x + (steps - around) * group, around * group * sizeof(float));
    memcpy(seam + around * group, x, around * group * sizeof(float));
    search(seam, 2 * around, table, memory, bits, group, -1, found);
    search(x, steps, table, memory, bits, group, found[around - 1], states);
    free(seam), free(found);
}

// Greedy sampling: finds the most likely token. The baseline program of the benchmarks includes this file too.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

// Returns the index of the highest logit. If several logits are the highest, returns the first index. Returns -1 if the
// logits are not usable: one is NaN or +infinity, or all are -infinity.
inline int32_t argmax(const float * logits, size_t count) {
    // Each lane has its own maximum, so that compilers can use vector instructions. With a single maximum, each
    // comparison would wait for the previous comparison.
    constexpr size_t LANES = 32;
    float highest[LANES];
    int32_t usable[LANES];
    for (size_t lane = 0; lane < LANES; lane++) {
        highest[lane] = -INFINITY;
        usable[lane] = 1;
    }
    const size_t whole = count - count % LANES;
    for (size_t at = 0; at < whole; at += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            highest[lane] = logits[at + lane] > highest[lane] ? logits[at + lane] : highest[lane];
            usable[lane] &= logits[at + lane] < INFINITY;
        }
    }
    for (size_t at = whole; at < count; at++) {
        highest[at - whole] = logits[at] > highest[at - whole] ? logits[at] : highest[at - whole];
        usable[at - whole] &= logits[at] < INFINITY;
    }
    float maximum = -INFINITY;
    for (size_t lane = 0; lane < LANES; lane++) {
        maximum = highest[lane] > maximum ? highest[lane] : maximum;
        if (!usable[lane]) {
            return -1;
        }
    }
    for (size_t at = 0; at < count && maximum > -INFINITY; at++) {
        if (logits[at] == maximum) {
            return (int32_t) at;
        }
    }
    return -1;
}

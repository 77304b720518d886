// The greedy choice: also of the floor that benchmarks measure against.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

// The first of the highest logits. -1 where one of them is NaN or +infinity, or all are -infinity: then none means anything.
inline int32_t argmax(const float * logits, size_t count) {
    // Side by side, as vectors are: one running maximum waits for itself at every element.
    constexpr size_t LANES = 32;
    float highest[LANES];
    int32_t sane[LANES];
    for (size_t lane = 0; lane < LANES; lane++) {
        highest[lane] = -INFINITY;
        sane[lane] = 1;
    }
    const size_t whole = count - count % LANES;
    for (size_t at = 0; at < whole; at += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            highest[lane] = logits[at + lane] > highest[lane] ? logits[at + lane] : highest[lane];
            sane[lane] &= logits[at + lane] < INFINITY;
        }
    }
    for (size_t at = whole; at < count; at++) {
        highest[at - whole] = logits[at] > highest[at - whole] ? logits[at] : highest[at - whole];
        sane[at - whole] &= logits[at] < INFINITY;
    }
    float most = -INFINITY;
    for (size_t lane = 0; lane < LANES; lane++) {
        most = highest[lane] > most ? highest[lane] : most;
        if (!sane[lane]) {
            return -1;
        }
    }
    for (size_t at = 0; at < count && most > -INFINITY; at++) {
        if (logits[at] == most) {
            return (int32_t) at;
        }
    }
    return -1;
}

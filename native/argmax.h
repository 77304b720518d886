// The greedy choice: also of the floor that benchmarks measure against.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

// The first of the highest values; NaN is never one. 0 where nothing is above -infinity.
inline int32_t argmax(const float * values, size_t count) {
    // Side by side, as vectors are: one running maximum waits for itself at every element.
    constexpr size_t LANES = 32;
    float            highest[LANES];
    for (float & each : highest) {
        each = -INFINITY;
    }
    const size_t whole = count - count % LANES;
    for (size_t at = 0; at < whole; at += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            highest[lane] = values[at + lane] > highest[lane] ? values[at + lane] : highest[lane];
        }
    }
    for (size_t at = whole; at < count; at++) {
        highest[0] = values[at] > highest[0] ? values[at] : highest[0];
    }
    float most = -INFINITY;
    for (const float each : highest) {
        most = each > most ? each : most;
    }
    for (size_t at = 0; at < count; at++) {
        if (values[at] == most) {
            return (int32_t) at;
        }
    }
    return 0;
}

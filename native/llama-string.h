// Reads strings that llama.cpp writes into a buffer of the caller.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

// `read(buffer, size)` must return the length of the whole string, even if the string did not fit into the buffer.
template <class Read> std::string readLlamaString(Read read) {
    std::string text(256, '\0');
    int32_t length = read(text.data(), text.size());
    if (length >= (int32_t) text.size()) {
        text.resize((size_t) length + 1);
        length = read(text.data(), text.size());
    }
    text.resize((size_t) std::max(0, length));
    return text;
}

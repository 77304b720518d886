// One step of computing: a batch of tokens, and the token that follows each row with output.
#pragma once

#include "context-state.h"
#include "sampler.h"

struct Batch {
    std::vector<int32_t> tokens, positions, sequences;
    std::vector<int32_t> starts;  // indices of each sequence's first token
    std::vector<int8_t> outputs;
    SamplerLeases samplers;  // empty, or one a row
    size_t rows = 0;         // with output
};

// What JavaScript passed (tokens, positions, sequences, outputs, samplers), checked against the context's sizes.
Batch batchFrom(const ContextState & state, const Napi::CallbackInfo & info);

// On the context's thread: one picked token for each row with output. `inbox` is who waits for them.
std::vector<int32_t> decodeBatch(ContextState & state, Batch & batch, const std::atomic<bool> & abort, Inbox & inbox);

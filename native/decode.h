// Decodes a batch of tokens and chooses the next token for each row that has output.
#pragma once

#include "context-state.h"
#include "sampler.h"

struct Batch {
    std::vector<int32_t> tokens, positions, sequences;
    std::vector<int32_t> starts;  // the index of the first token of each sequence
    std::vector<int8_t> outputs;
    SamplerLeases samplers;  // empty, or one per row with output
    size_t rows = 0;         // the number of rows with output
};

// The arguments of `decode` (tokens, positions, sequences, outputs, samplers), checked against the context's sizes.
Batch batchFrom(const ContextState & state, const Napi::CallbackInfo & info);

// On the context's thread: one chosen token for each row with output. `inbox` belongs to the environment that waits for
// the tokens.
std::vector<int32_t> decodeBatch(ContextState & state, Batch & batch, const std::atomic<bool> & abort, Inbox & inbox);

// On the context's thread: the logits of a row of the newest batch. Throws CLOSED, ROW_HAS_NO_OUTPUT.
const float * logitsOfRow(const ContextState & state, int32_t row);

// Decodes a batch of tokens and chooses the next token for each row that has output.
#pragma once

#include "context-state.h"
#include "sampler.h"

struct Batch {
    std::vector<int32_t> tokens, positions, sequences;
    std::vector<int32_t> starts;  // the index of the first token of each sequence
    std::vector<int8_t> outputs;
    SamplerLeases samplers;  // empty, or one element per row with output
    size_t rows = 0;         // the number of rows with output
};

// Reads the arguments of `decode` (tokens, positions, sequences, outputs, samplers) and checks them against the limits
// of the context.
Batch batchFrom(const ContextState & state, const Napi::CallbackInfo & info);

// Runs on the context's thread. Returns one chosen token for each row with output. `inbox` belongs to the environment
// that waits for the tokens.
std::vector<int32_t> decodeBatch(ContextState & state, Batch & batch, const std::atomic<bool> & abort, Inbox & inbox);

// Runs on the context's thread. Returns the logits of a row of the newest batch. Throws CLOSED, ROW_HAS_NO_OUTPUT.
const float * logitsOfRow(const ContextState & state, int32_t row);

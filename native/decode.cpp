#include "decode.h"

#include "argmax.h"
#include "log.h"

#include <algorithm>
#include <climits>

namespace {

// Each sequence of the batch must continue at its end in the KV cache. The check runs on the context's thread, so that
// no other job changes the sequences before the decode.
void requireContiguous(const ContextState & state, const Batch & batch) {
    for (const int32_t i : batch.starts) {
        const llama_pos expected = llama_memory_seq_pos_max(llama_get_memory(state.ctx), batch.sequences[i]) + 1;
        if (batch.positions[i] != expected) {
            throw Failure(
                "POSITION_INVALID", "Expected sequence " + std::to_string(batch.sequences[i]) +
                                        " to continue at position " + std::to_string(expected) + ", got " +
                                        std::to_string(batch.positions[i])
            );
        }
    }
}

std::vector<int32_t> sequencesOf(const Batch & batch) {
    std::vector<int32_t> ids;
    ids.reserve(batch.starts.size());
    for (const int32_t i : batch.starts) {
        ids.push_back(batch.sequences[i]);
    }
    std::sort(ids.begin(), ids.end());
    return ids;
}

// The token and the sequence of each row must exist, and the positions of each sequence must go up one by one. Fills
// `batch.starts`.
void requireRows(const ContextState & state, Batch & batch) {
    std::vector<int32_t> next(state.params.n_seq_max, -1);
    const auto fail = [](const char * code, const std::string & expected, const std::vector<int32_t> & values,
                         size_t i) {
        return Failure(
            code, "Expected " + expected + ", got " + std::to_string(values[i]) + " at index " + std::to_string(i)
        );
    };
    for (size_t i = 0; i < batch.tokens.size(); i++) {
        const int32_t token = batch.tokens[i], position = batch.positions[i], sequence = batch.sequences[i];
        if (token < 0 || token >= state.vocabularySize) {
            throw fail(
                "TOKEN_OUT_OF_RANGE", "token ids from 0 to " + std::to_string(state.vocabularySize - 1), batch.tokens, i
            );
        }
        if (sequence < 0 || sequence >= (int32_t) state.params.n_seq_max) {
            throw fail(
                "SEQUENCE_OUT_OF_RANGE", "sequence ids from 0 to " + std::to_string(state.params.n_seq_max - 1),
                batch.sequences, i
            );
        }
        if (position < 0 || position == INT32_MAX || (next[sequence] >= 0 && position != next[sequence])) {
            throw fail(
                "POSITION_INVALID",
                "the positions of sequence " + std::to_string(sequence) + " to start at 0 or more and go up one by one",
                batch.positions, i
            );
        }
        if (next[sequence] < 0) {
            batch.starts.push_back((int32_t) i);
        }
        next[sequence] = position + 1;
    }
}

// After an abort or a failure, llama.cpp removes the unfinished part of the batch from its sequences. llama.cpp does
// not check whether the removal worked. Recurrent memory cannot remove a part of a sequence, so this function empties
// the whole sequences.
void emptyUntrimmableSequences(ContextState & state, const std::vector<int32_t> & sequences) {
    if (llama_model_is_recurrent(state.model->model) || llama_model_is_hybrid(state.model->model)) {
        for (int32_t sequence : sequences) {
            llama_memory_seq_rm(llama_get_memory(state.ctx), sequence, -1, -1);
        }
    }
}

// Results of llama_decode; 0 means success. If the result is below INVALID_BATCH, llama_decode failed after it had
// changed the sequences.
constexpr int32_t NO_FREE_CELLS = 1;
constexpr int32_t ABORTED = 2;
constexpr int32_t INVALID_BATCH = -1;

// `soloAbort` is the abort flag of a batch of a single sequence. It is null for other batches.
int32_t callDecode(ContextState & state, Batch & batch, const std::atomic<bool> * soloAbort) {
    const size_t count = batch.tokens.size();
    std::vector<int32_t> one(count, 1);
    std::vector<llama_seq_id *> sequences(count);
    for (size_t i = 0; i < count; i++) {
        sequences[i] = &batch.sequences[i];
    }
    llama_batch native{(int32_t) count,  batch.tokens.data(), nullptr, batch.positions.data(), one.data(),
                       sequences.data(), batch.outputs.data()};
    std::unique_lock<std::mutex> planning(state.model->lorasMutex, std::defer_lock);
    if (state.lorasChanged) {
        planning.lock();
        state.lorasChanged = false;
    }
    Stopwatch watch(state.counters.decodeMicros);
    state.soloAbort = soloAbort;
    const int32_t status = llama_decode(state.ctx, native);
    llama_synchronize(state.ctx);
    state.soloAbort = nullptr;
    return status;
}

Failure decodeFailure(
    const ContextState & state,
    const Batch & batch,
    int32_t status,
    const std::vector<int32_t> & sequences,
    const std::string & reason
) {
    if (status == NO_FREE_CELLS) {
        return Failure(
            "NO_KV_SLOT", "The KV cache does not have enough free cells for a batch of " +
                              std::to_string(batch.tokens.size()) + " tokens"
        );
    }
    if (status == ABORTED && *state.closing) {
        return Failure("CLOSED", "The decode was stopped because its context was closed");
    }
    if (status == ABORTED) {
        return Failure(
            "ABORTED", "The decode was aborted. Read the new end of its sequence before the next decode", sequences
        );
    }
    return Failure(
        "DECODE_FAILED", "llama.cpp could not decode the batch (status " + std::to_string(status) + ")" + reason,
        status < INVALID_BATCH ? sequences : std::vector<int32_t>()
    );
}

// Chooses one token for each row with output. The row's sampler chooses it. Without a sampler, the most likely token is
// chosen.
std::vector<int32_t> chooseTokens(const ContextState & state, const Batch & batch, Inbox & inbox) {
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < batch.tokens.size(); i++) {
        if (!batch.outputs[i]) {
            continue;
        }
        const SamplerLease * sampler = batch.samplers.empty() ? nullptr : batch.samplers[tokens.size()].get();
        if (!sampler && tokens.size() + 1 == batch.rows) {
            inbox.wake();  // so that JavaScript is awake once the last token is chosen
        }
        tokens.push_back(
            sampler ? (*sampler)->pick(state.ctx, (int32_t) i)
                    : argmax(llama_get_logits_ith(state.ctx, (int32_t) i), (size_t) state.vocabularySize)
        );
    }
    return tokens;
}

}  // namespace

Batch batchFrom(const ContextState & state, const Napi::CallbackInfo & info) {
    Batch batch;
    batch.tokens = guard::int32s(info[0], "tokens");
    batch.positions = guard::int32s(info[1], "positions");
    batch.sequences = guard::int32s(info[2], "sequences");
    const std::vector<uint8_t> outputs = guard::bytes(info[3], "outputs");
    batch.outputs.assign(outputs.begin(), outputs.end());

    const size_t count = batch.tokens.size();
    if (batch.positions.size() != count || batch.sequences.size() != count || batch.outputs.size() != count) {
        throw Failure(
            "INVALID_ARGUMENT", "Expected `tokens`, `positions`, `sequences` and `outputs` of equal length, got " +
                                    std::to_string(count) + ", " + std::to_string(batch.positions.size()) + ", " +
                                    std::to_string(batch.sequences.size()) + " and " +
                                    std::to_string(batch.outputs.size())
        );
    }
    if (count == 0 || count > state.batchSize) {
        throw Failure(
            "BATCH_SIZE",
            "Expected a batch of 1 to " + std::to_string(state.batchSize) + " tokens, got " + std::to_string(count)
        );
    }
    batch.rows = (size_t) std::count_if(outputs.begin(), outputs.end(), [](uint8_t flag) { return flag != 0; });
    if (batch.rows > state.maxOutputs) {
        throw Failure(
            "BATCH_SIZE", "Expected at most " + std::to_string(state.maxOutputs) + " output rows (`maxOutputs`), got " +
                              std::to_string(batch.rows)
        );
    }
    requireRows(state, batch);
    batch.samplers = samplersFrom(info[4], batch.rows, state.owner);
    return batch;
}

std::vector<int32_t> decodeBatch(ContextState & state, Batch & batch, const std::atomic<bool> & abort, Inbox & inbox) {
    state.requireOpen();
    if (abort) {
        throw Failure("ABORTED", "The decode was aborted before it started");
    }
    requireContiguous(state, batch);
    LogCapture log;
    state.lastOutputs.clear();
    const std::vector<int32_t> sequences = sequencesOf(batch);
    const int32_t status = callDecode(state, batch, sequences.size() == 1 ? &abort : nullptr);
    if (status == ABORTED || status < INVALID_BATCH) {
        emptyUntrimmableSequences(state, sequences);
    }
    if (status != 0) {
        throw decodeFailure(state, batch, status, sequences, log.reason());
    }
    state.counters.decodes++;
    state.counters.decodedTokens += batch.tokens.size();
    std::vector<int32_t> tokens = chooseTokens(state, batch, inbox);
    state.lastOutputs = std::move(batch.outputs);
    return tokens;
}

const float * logitsOfRow(const ContextState & state, int32_t row) {
    state.requireOpen();
    if ((size_t) row >= state.lastOutputs.size() || !state.lastOutputs[(size_t) row]) {
        throw Failure(
            "ROW_HAS_NO_OUTPUT",
            "Expected the index of a row with output in the newest batch, got " + std::to_string(row)
        );
    }
    return llama_get_logits_ith(state.ctx, row);
}

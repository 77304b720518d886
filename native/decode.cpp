#include "decode.h"

#include "argmax.h"
#include "log.h"

#include <algorithm>
#include <climits>
#include <map>
#include <set>

namespace {

// A batch must go on where its sequences end: on the context's thread, where that cannot change meanwhile.
void requireContiguous(const ContextState & state, const Batch & batch) {
    std::map<int32_t, bool> seen;
    for (size_t i = 0; i < batch.tokens.size(); i++) {
        const int32_t sequence = batch.sequences[i];
        if (!seen.emplace(sequence, true).second) {
            continue;
        }
        const llama_pos expected = llama_memory_seq_pos_max(llama_get_memory(state.ctx), sequence) + 1;
        if (batch.positions[i] != expected) {
            throw Failure("POSITION_INVALID", "Expected sequence " + std::to_string(sequence) + " to go on at position " + std::to_string(expected) + ", got " +
                                                  std::to_string(batch.positions[i]));
        }
    }
}

std::vector<int32_t> sequencesOf(const Batch & batch) {
    const std::set<int32_t> ids(batch.sequences.begin(), batch.sequences.end());
    return std::vector<int32_t>(ids.begin(), ids.end());
}

// After an abort or a failure llama.cpp takes the unfinished part of a batch out again, and does not look whether that
// worked. Recurrent state refuses: what is left of such a sequence is of no use.
void emptyWhatCannotBeTrimmed(ContextState & state, const std::vector<int32_t> & sequences) {
    if (llama_model_is_recurrent(state.model->model) || llama_model_is_hybrid(state.model->model)) {
        for (int32_t sequence : sequences) {
            llama_memory_seq_rm(llama_get_memory(state.ctx), sequence, -1, -1);
        }
    }
}

}  // namespace

Batch batchFrom(const ContextState & state, const Napi::CallbackInfo & info) {
    Batch batch;
    batch.tokens    = guard::int32s(info[0], "tokens");
    batch.positions = guard::int32s(info[1], "positions");
    batch.sequences = guard::int32s(info[2], "sequences");
    const std::vector<uint8_t> outputs = guard::bytes(info[3], "outputs");
    batch.outputs.assign(outputs.begin(), outputs.end());

    const size_t count = batch.tokens.size();
    if (batch.positions.size() != count || batch.sequences.size() != count || batch.outputs.size() != count) {
        throw Failure("INVALID_ARGUMENT", "Expected `tokens`, `positions`, `sequences` and `outputs` of one length, got " + std::to_string(count) + ", " +
                                              std::to_string(batch.positions.size()) + ", " + std::to_string(batch.sequences.size()) + " and " +
                                              std::to_string(batch.outputs.size()));
    }
    if (count == 0 || count > state.batchSize) {
        throw Failure("BATCH_SIZE", "Expected a batch of 1 to " + std::to_string(state.batchSize) + " tokens, got " + std::to_string(count));
    }
    batch.rows = (size_t) std::count_if(outputs.begin(), outputs.end(), [](uint8_t flag) { return flag != 0; });
    if (batch.rows > state.maxOutputs) {
        throw Failure("BATCH_SIZE", "Expected at most " + std::to_string(state.maxOutputs) + " output rows (`maxOutputs`), got " + std::to_string(batch.rows));
    }
    std::map<int32_t, int32_t> next;
    for (size_t i = 0; i < count; i++) {
        const auto at = " at index " + std::to_string(i);
        if (batch.tokens[i] < 0 || batch.tokens[i] >= state.vocabularySize) {
            throw Failure("TOKEN_OUT_OF_RANGE", "Expected token ids from 0 to " + std::to_string(state.vocabularySize - 1) + ", got " + std::to_string(batch.tokens[i]) + at);
        }
        if (batch.sequences[i] < 0 || batch.sequences[i] >= (int32_t) state.params.n_seq_max) {
            throw Failure("SEQUENCE_OUT_OF_RANGE", "Expected sequence ids from 0 to " + std::to_string(state.params.n_seq_max - 1) + ", got " +
                                                       std::to_string(batch.sequences[i]) + at);
        }
        const auto known = next.find(batch.sequences[i]);
        if (batch.positions[i] < 0 || batch.positions[i] == INT32_MAX || (known != next.end() && batch.positions[i] != known->second)) {
            throw Failure("POSITION_INVALID", "Expected the positions of sequence " + std::to_string(batch.sequences[i]) + " to go up one by one from 0 or more, got " +
                                                  std::to_string(batch.positions[i]) + at);
        }
        next[batch.sequences[i]] = batch.positions[i] + 1;
    }
    batch.samplers = samplersFrom(info[4], batch.rows, state.owner);
    return batch;
}

std::vector<int32_t> decodeBatch(ContextState & state, Batch & batch, const std::atomic<bool> & abort, Inbox & inbox) {
    state.requireOpen();
    if (abort) {
        throw Failure("ABORTED", "The decode was aborted before it began");
    }
    requireContiguous(state, batch);
    LogCapture                   log;
    const size_t                 count = batch.tokens.size();
    std::vector<int32_t>         one(count, 1);
    std::vector<llama_seq_id *>  sequences(count);
    for (size_t i = 0; i < count; i++) {
        sequences[i] = &batch.sequences[i];
    }
    llama_batch native{(int32_t) count, batch.tokens.data(), nullptr, batch.positions.data(), one.data(), sequences.data(), batch.outputs.data()};

    const std::vector<int32_t> changed = sequencesOf(batch);
    int32_t                    status;
    state.lastOutputs.clear();
    {
        std::unique_lock<std::mutex> planning(state.model->lorasMutex, std::defer_lock);
        if (state.lorasChanged) {
            planning.lock();
            state.lorasChanged = false;
        }
        Stopwatch watch(state.counters.decodeMicros);
        state.loneAbort = changed.size() == 1 ? &abort : nullptr;
        status          = llama_decode(state.ctx, native);
        llama_synchronize(state.ctx);
        state.loneAbort = nullptr;
    }
    if (status == 2 || status < -1) {
        emptyWhatCannotBeTrimmed(state, changed);
    }
    if (status == 1) {
        throw Failure("NO_KV_SLOT", "The KV cache has no room for a batch of " + std::to_string(count) + " tokens");
    }
    if (status == 2) {
        if (*state.closing) {
            throw Failure("CLOSED", "The decode was ended because its context was closed");
        }
        throw Failure("ABORTED", "The decode was aborted: read the position of its sequence back", changed);
    }
    if (status != 0) {
        throw Failure("DECODE_FAILED", "llama.cpp could not decode the batch (status " + std::to_string(status) + ")" + log.reason(),
                      status < -1 ? changed : std::vector<int32_t>());
    }
    state.counters.decodes++;
    state.counters.decodedTokens += count;

    std::vector<int32_t> picks;
    for (size_t i = 0; i < count; i++) {
        if (batch.outputs[i]) {
            const SamplerLease * sampler = batch.samplers.empty() ? nullptr : batch.samplers[picks.size()].get();
            if (!sampler && picks.size() + 1 == batch.rows) {
                inbox.wake();  // it is awake when this is done
            }
            picks.push_back(sampler ? (*sampler)->pick(state.ctx, (int32_t) i) : argmax(llama_get_logits_ith(state.ctx, (int32_t) i), (size_t) state.vocabularySize));
        }
    }
    state.lastOutputs = std::move(batch.outputs);
    return picks;
}

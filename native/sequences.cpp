#include "sequences.h"

#include "file.h"
#include "log.h"
#include "trap.h"

#include <algorithm>

namespace {

bool isEmpty(const ContextState & state, llama_seq_id sequence) {
    return llama_memory_seq_pos_max(llama_get_memory(state.ctx), sequence) < 0;
}

void requireEmpty(const ContextState & state, llama_seq_id sequence) {
    if (!isEmpty(state, sequence)) {
        throw Failure(
            "SEQUENCE_NOT_EMPTY", "Expected sequence " + std::to_string(sequence) + " to be empty: remove it first"
        );
    }
}

}  // namespace

bool removeRange(ContextState & state, llama_seq_id sequence, llama_pos from, llama_pos to) {
    state.requireOpen();
    llama_memory_t memory = llama_get_memory(state.ctx);
    const llama_pos last = llama_memory_seq_pos_max(memory, sequence);
    if (from < to && to <= last) {
        // A removed middle would leave tokens that were computed with the removed ones, and a capture would hold fewer
        // tokens than it says.
        throw Failure(
            "INVALID_ARGUMENT", "Expected `to` to be after the last position of sequence " + std::to_string(sequence) +
                                    ", " + std::to_string(last) + ", got " + std::to_string(to) +
                                    ": only the end of a sequence can be removed"
        );
    }
    const int32_t window = state.params.swa_full ? 0 : llama_model_n_swa(state.model->model);
    // The next tokens would attend to a window whose older cells are gone. llama.cpp does not refuse that.
    if (from > 0 && window > 0 && last >= from &&
        llama_memory_seq_pos_min(memory, sequence) > std::max(0, from - window)) {
        return false;
    }
    return llama_memory_seq_rm(memory, sequence, from == 0 ? -1 : from, to);
}

void copyWithin(ContextState & state, llama_seq_id source, llama_seq_id target) {
    state.requireOpen();
    if (!state.params.kv_unified) {
        throw Failure(
            "NOT_UNIFIED", "Expected a context with `kvLayout: 'unified'` to fork a sequence: with 'split', capture "
                           "and restore the state instead"
        );
    }
    requireEmpty(state, target);
    if (isEmpty(state, source)) {
        throw Failure("SEQUENCE_EMPTY", "Expected sequence " + std::to_string(source) + " to hold tokens");
    }
    llama_memory_seq_cp(llama_get_memory(state.ctx), source, target, -1, -1);
    state.counters.copies++;
}

std::shared_ptr<const StateBytes> capture(ContextState & state, llama_seq_id sequence, std::vector<int32_t> tokens) {
    state.requireOpen();
    const llama_pos last = llama_memory_seq_pos_max(llama_get_memory(state.ctx), sequence);
    if (last + 1 != (llama_pos) tokens.size() || tokens.empty()) {
        throw Failure(
            "TOKENS_MISMATCH", "Expected the " + std::to_string(last + 1) + " tokens of sequence " +
                                   std::to_string(sequence) + " (at least one), got " + std::to_string(tokens.size())
        );
    }
    LogCapture log;
    AssertTrap trap;
    Stopwatch watch(state.counters.captureMicros);
    auto bytes = std::make_shared<StateBytes>();
    bytes->size = llama_state_seq_get_size(state.ctx, sequence);
    bytes->buffer = Buffer(bytes->size);
    bytes->tokens = std::move(tokens);
    bytes->compatibility = state.compatibility;
    if (bytes->size <= BLOB_HEADER_BYTES ||
        llama_state_seq_get_data(state.ctx, bytes->buffer.data(), bytes->size, sequence) == 0) {
        throw Failure(
            "CAPTURE_FAILED",
            "llama.cpp could not return the state of sequence " + std::to_string(sequence) + log.reason()
        );
    }
    state.counters.captures++;
    state.counters.capturedBytes += bytes->size;
    return bytes;
}

void restore(ContextState & state, llama_seq_id sequence, const StateBytes & bytes) {
    state.requireOpen();
    if (!bytes.compatibility.empty() && bytes.compatibility != state.compatibility) {
        throw Failure(
            "STATE_INCOMPATIBLE",
            "Expected a state of \"" + state.compatibility + "\", got one of \"" + bytes.compatibility + "\""
        );
    }
    if (bytes.tokens.size() > state.cellsPerSequence) {
        throw Failure(
            "NO_KV_SLOT", "A state of " + std::to_string(bytes.tokens.size()) + " tokens does not fit into " +
                              std::to_string(state.cellsPerSequence) + " cells"
        );
    }
    requireEmpty(state, sequence);
    LogCapture log;
    AssertTrap trap;
    Stopwatch watch(state.counters.restoreMicros);
    llama_memory_t memory = llama_get_memory(state.ctx);
    const size_t read = llama_state_seq_set_data(state.ctx, bytes.blob(), bytes.size, sequence);
    if (read == 0 || llama_memory_seq_pos_max(memory, sequence) + 1 != (llama_pos) bytes.tokens.size()) {
        // llama.cpp has already written tensors when it fails, so the sequence may hold anything.
        llama_memory_seq_rm(memory, sequence, -1, -1);
        // Only its log has the reason: "failed to find 40 available cells in kv cache", "not enough cells in kv cache".
        if (log.lines.find("cells in kv cache") != std::string::npos) {
            throw Failure(
                "NO_KV_SLOT", "The KV cache has not enough free cells for a state of " +
                                  std::to_string(bytes.tokens.size()) + " tokens"
            );
        }
        throw Failure(
            "RESTORE_FAILED",
            "llama.cpp could not restore the state into sequence " + std::to_string(sequence) + log.reason()
        );
    }
    state.counters.restores++;
    state.counters.restoredBytes += bytes.size;
}

std::vector<int32_t> loadWithLlama(ContextState & state, llama_seq_id sequence, const std::string & path) {
    state.requireOpen();
    requireEmpty(state, sequence);
    requireRegularFile(path, "a sequence-state file", "RESTORE_FAILED", "RESTORE_FAILED");
    LogCapture log;
    AssertTrap trap;
    std::vector<int32_t> tokens(state.cellsPerSequence);
    size_t count = 0;
    if (llama_state_seq_load_file(state.ctx, path.c_str(), sequence, tokens.data(), tokens.size(), &count) == 0) {
        llama_memory_seq_rm(llama_get_memory(state.ctx), sequence, -1, -1);
        throw Failure("RESTORE_FAILED", "llama.cpp could not load \"" + path + "\"" + log.reason());
    }
    tokens.resize(count);
    return tokens;
}

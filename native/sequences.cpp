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

llama_state_seq_flags flagsOf(bool partial) { return partial ? LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY : 0; }

void requirePartialStates(const ContextState & state, bool partial) {
    if (partial && !state.hasPartialStates) {
        throw Failure(
            "INVALID_ARGUMENT", "Expected `partial` only for memory that cannot be trimmed (recurrent, hybrid, sliding "
                                "window without `fullSlidingWindow`). The memory of this context can be trimmed: "
                                "remove the end of the sequence instead"
        );
    }
}

Failure captureFailure(llama_seq_id sequence, const LogCapture & log) {
    return Failure(
        "CAPTURE_FAILED", "llama.cpp could not return the state of sequence " + std::to_string(sequence) + log.reason()
    );
}

void requireCompatible(const ContextState & state, const StateBytes & bytes) {
    if (!bytes.compatibility.empty() && bytes.compatibility != state.compatibility) {
        throw Failure(
            "STATE_INCOMPATIBLE",
            "Expected a state of \"" + state.compatibility + "\", got a state of \"" + bytes.compatibility + "\""
        );
    }
}

void requireFitting(const ContextState & state, const StateBytes & bytes) {
    if (bytes.tokens.size() > state.cellsPerSequence) {
        throw Failure(
            "NO_KV_SLOT", "A state of " + std::to_string(bytes.tokens.size()) + " tokens does not fit into " +
                              std::to_string(state.cellsPerSequence) + " cells"
        );
    }
}

// A partial state does not contain the part of the memory that can be trimmed, so the sequence must still have this
// part. Recurrent memory has no such part.
void requireTrimmablePart(const ContextState & state, llama_seq_id sequence, const StateBytes & bytes) {
    const llama_pos last = llama_memory_seq_pos_max(llama_get_memory(state.ctx), sequence);
    if (!llama_model_is_recurrent(state.model->model) && last + 1 < (llama_pos) bytes.tokens.size()) {
        throw Failure(
            "TOKENS_MISMATCH", "Expected sequence " + std::to_string(sequence) + " to hold at least the " +
                                   std::to_string(bytes.tokens.size()) + " tokens of the partial state, got " +
                                   std::to_string(last + 1) + " tokens: restore a whole state instead"
        );
    }
}

// Returns false if llama.cpp refuses the state, or if the sequence and the state do not end at the same position
// afterwards.
bool setState(const ContextState & state, llama_seq_id sequence, const StateBytes & bytes) {
    llama_memory_t memory = llama_get_memory(state.ctx);
    const auto count = (llama_pos) bytes.tokens.size();
    if (llama_state_seq_set_data_ext(state.ctx, bytes.blob(), bytes.size, sequence, flagsOf(bytes.partial)) == 0) {
        return false;
    }
    // The part of the memory that can be trimmed is trimmed only now. Before the restore, the part that cannot be
    // trimmed would have refused the removal.
    if (bytes.partial && !llama_memory_seq_rm(memory, sequence, count, -1)) {
        return false;
    }
    return llama_memory_seq_pos_max(memory, sequence) + 1 == count;
}

}  // namespace

bool removeRange(ContextState & state, llama_seq_id sequence, llama_pos from, llama_pos to) {
    state.requireOpen();
    llama_memory_t memory = llama_get_memory(state.ctx);
    const llama_pos last = llama_memory_seq_pos_max(memory, sequence);
    if (from < to && to <= last) {
        // Tokens after a removed middle would still depend on the removed tokens, and a capture would contain fewer
        // cells than token ids.
        throw Failure(
            "INVALID_ARGUMENT", "Expected `to` to be after " + std::to_string(last) +
                                    ", the last position of sequence " + std::to_string(sequence) + ", got " +
                                    std::to_string(to) + ": only the end of a sequence can be removed"
        );
    }
    const int32_t window = llama_model_n_swa(state.model->model);
    // The tokens after the cut would attend to a window that has lost its older cells. llama.cpp does not refuse such a
    // removal. With `swa_full`, a sequence keeps all its cells, but a restored sequence has only the cells of its last
    // window.
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
        throw Failure(
            "SEQUENCE_EMPTY", "Expected sequence " + std::to_string(source) + " to have tokens, but it is empty"
        );
    }
    llama_memory_seq_cp(llama_get_memory(state.ctx), source, target, -1, -1);
    state.counters.copies++;
}

size_t stateSize(ContextState & state, llama_seq_id sequence, bool partial) {
    state.requireOpen();
    requirePartialStates(state, partial);
    if (isEmpty(state, sequence)) {
        return 0;
    }
    LogCapture log;
    AssertTrap trap;
    const size_t size = llama_state_seq_get_size_ext(state.ctx, sequence, flagsOf(partial));
    if (size <= BLOB_HEADER_BYTES) {
        throw captureFailure(sequence, log);
    }
    return size;
}

std::shared_ptr<const StateBytes> capture(
    ContextState & state, llama_seq_id sequence, std::vector<int32_t> tokens, bool partial, uint64_t maxBytes
) {
    state.requireOpen();
    requirePartialStates(state, partial);
    const llama_pos last = llama_memory_seq_pos_max(llama_get_memory(state.ctx), sequence);
    if (last + 1 != (llama_pos) tokens.size() || tokens.empty()) {
        throw Failure(
            "TOKENS_MISMATCH", "Expected the ids of all " + std::to_string(last + 1) + " tokens of sequence " +
                                   std::to_string(sequence) + " (at least one), got " + std::to_string(tokens.size())
        );
    }
    Stopwatch watch(state.counters.captureMicros);
    const size_t size = stateSize(state, sequence, partial);
    if (size > maxBytes) {
        throw Failure(
            "STATE_TOO_LARGE", "Expected the state of sequence " + std::to_string(sequence) + " to have at most " +
                                   std::to_string(maxBytes) + " bytes (`maxBytes`), got " + std::to_string(size)
        );
    }
    LogCapture log;
    AssertTrap trap;
    auto bytes = std::make_shared<StateBytes>();
    bytes->size = size;
    bytes->buffer = Buffer(size);
    bytes->tokens = std::move(tokens);
    bytes->compatibility = state.compatibility;
    bytes->partial = partial;
    if (llama_state_seq_get_data_ext(state.ctx, bytes->buffer.data(), size, sequence, flagsOf(partial)) == 0) {
        throw captureFailure(sequence, log);
    }
    state.counters.captures++;
    state.counters.capturedBytes += size;
    return bytes;
}

void restore(ContextState & state, llama_seq_id sequence, const StateBytes & bytes) {
    state.requireOpen();
    requireCompatible(state, bytes);
    if (bytes.partial) {
        requireTrimmablePart(state, sequence, bytes);
    } else {
        requireFitting(state, bytes);
        requireEmpty(state, sequence);
    }
    LogCapture log;
    AssertTrap trap;
    Stopwatch watch(state.counters.restoreMicros);
    if (!setState(state, sequence, bytes)) {
        // llama.cpp may have written some tensors before it failed, so the content of the sequence is undefined.
        llama_memory_seq_rm(llama_get_memory(state.ctx), sequence, -1, -1);
        // Only llama.cpp's log has the reason: "failed to find 40 available cells in kv cache", "not enough cells in kv
        // cache".
        if (log.lines.find("cells in kv cache") != std::string::npos) {
            throw Failure(
                "NO_KV_SLOT", "The KV cache does not have enough free cells for a state of " +
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

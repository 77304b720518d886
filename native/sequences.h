// Removes, forks, captures and restores sequences. All functions run on the context's thread.
#pragma once

#include "context-state.h"
#include "state.h"

// Removes the positions from `from` to the end of the sequence. `to` must be -1 or after the last position. If `to` is
// at most `from`, nothing is removed. Returns false and changes nothing if the memory of the context cannot remove this
// part of the sequence.
bool removeRange(ContextState & state, llama_seq_id sequence, llama_pos from, llama_pos to);

// Forks a sequence: `target` shares the cells of `source`.
void copyWithin(ContextState & state, llama_seq_id source, llama_seq_id target);

// Returns the size in bytes of the state that `capture` would return; 0 for an empty sequence. Both functions throw
// INVALID_ARGUMENT if `partial` is true and the context has no partial states.
size_t stateSize(ContextState & state, llama_seq_id sequence, bool partial);
std::shared_ptr<const StateBytes> capture(
    ContextState & state, llama_seq_id sequence, std::vector<int32_t> tokens, bool partial, uint64_t maxBytes
);

// Restores a state. A whole state needs an empty sequence. A partial state needs a sequence that begins with the tokens
// of the state. Only a partial state of a recurrent model fits every sequence, even an empty one. Restoring a partial
// state removes all later tokens. If llama.cpp fails, the sequence is emptied.
void restore(ContextState & state, llama_seq_id sequence, const StateBytes & bytes);

// Restores a sequence from a file with llama.cpp's own reader. Returns the tokens of the file.
std::vector<int32_t> loadWithLlama(ContextState & state, llama_seq_id sequence, const std::string & path);

// Removing, forking, capturing and restoring sequences. All on the context's thread.
#pragma once

#include "context-state.h"
#include "state.h"

// Removes the positions from `from` to the end of the sequence. `to` must be -1 or after the last position. Returns
// false and changes nothing if the memory of the context cannot remove a part of a sequence.
bool removeRange(ContextState & state, llama_seq_id sequence, llama_pos from, llama_pos to);

// Forks: `target` shares the cells of `source`.
void copyWithin(ContextState & state, llama_seq_id source, llama_seq_id target);

std::shared_ptr<const StateBytes> capture(ContextState & state, llama_seq_id sequence, std::vector<int32_t> tokens);
void restore(ContextState & state, llama_seq_id sequence, const StateBytes & bytes);

// Reads a file with llama.cpp's own reader, and returns its tokens.
std::vector<int32_t> loadWithLlama(ContextState & state, llama_seq_id sequence, const std::string & path);

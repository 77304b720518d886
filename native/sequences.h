// Sequences of a context, whole: forked, captured, restored. All on the context's thread.
#pragma once

#include "context-state.h"
#include "state.h"

// Positions `from` up to, not including, `to` (-1: the end), which must be the sequence's last ones. False, and nothing changed, where this memory cannot do that.
bool removeRange(ContextState & state, llama_seq_id sequence, llama_pos from, llama_pos to);

// Makes `target` share the cells of `source`.
void copyWithin(ContextState & state, llama_seq_id source, llama_seq_id target);

std::shared_ptr<const StateBytes> capture(ContextState & state, llama_seq_id sequence, std::vector<int32_t> tokens);
void restore(ContextState & state, llama_seq_id sequence, const StateBytes & bytes);

// llama.cpp's own reader: for its files, and to show that ours are files of its.
std::vector<int32_t> loadWithLlama(ContextState & state, llama_seq_id sequence, const std::string & path);

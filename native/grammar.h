// Checks grammars for faults that llama.cpp does not detect. Without these checks, a grammar could cause a failed
// assert, a stack overflow or an endless loop, or could use all memory of the machine.
#pragma once

#include <llama.h>

#include <string>

// Throws GRAMMAR_INVALID with the reason if the text is not a GBNF grammar, has no `root`, uses undefined rules, is
// left-recursive, can never end, or becomes too large. `vocab` may be null if the grammar uses no token ids. Must run
// on a thread with a large stack.
void requireGrammar(const llama_vocab * vocab, const std::string & text);

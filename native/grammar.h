// What llama.cpp does not check in a grammar before it works with it: each of these ends in an assert, a stack that
// overflows, a loop without end, or all of the machine's memory.
#pragma once

#include <llama.h>

#include <string>

// Throws GRAMMAR_INVALID, with the reason, for text that is no GBNF grammar, has no `root`, names rules that are not there,
// recurses on the left, can never end, or unfolds beyond measure. `vocab` may be null where the grammar names no tokens. On a
// thread with a large stack.
void requireGrammar(const llama_vocab * vocab, const std::string & text);

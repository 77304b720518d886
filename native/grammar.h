// Checks of grammars that llama.cpp does not make. Without them a grammar could lead to a failed assert, a stack
// overflow, an endless loop, or use all memory of the machine.
#pragma once

#include <llama.h>

#include <string>

// Throws GRAMMAR_INVALID with the reason if the text is not a GBNF grammar, has no `root`, uses undefined rules, is
// left-recursive, can never end, or becomes too large. `vocab` may be null if the grammar names no tokens. Needs a
// thread with a large stack.
void requireGrammar(const llama_vocab * vocab, const std::string & text);

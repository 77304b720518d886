// The single checks of requireGrammar.
#pragma once

#include "guards.h"

// A private header of llama.cpp. Its public functions print the errors of a grammar to stderr instead of returning
// them.
#include "../vendor/llama.cpp/src/llama-grammar.h"

#include <string>

Failure grammarRefusal(const std::string & reason);

// Checks the text before it is parsed: the size that it expands to, and the depth of its groups.
void requireBoundedSize(const std::string & text);

// Checks the parsed rules: no left recursion, not too many ways to begin, and `root` can end.
void requireShape(const llama_grammar_rules & rules, size_t root);

// Declares the checks that requireGrammar (grammar.h) runs.
#pragma once

#include "guards.h"

// A private header of llama.cpp. The public functions of llama.cpp print the errors of a grammar to stderr instead of
// returning them.
#include "../vendor/llama.cpp/src/llama-grammar.h"

#include <string>

Failure grammarRefusal(const std::string & reason);

// Checks the text before it is parsed. Limits the number of elements to which the text expands, and the depth of its
// groups.
void requireBoundedSize(const std::string & text);

// Checks the parsed rules. They must not be left-recursive or begin in too many ways, and `root` must be able to end.
void requireShape(const llama_grammar_rules & rules, size_t root);

// The parts of requireGrammar.
#pragma once

#include "guards.h"

// Internal to llama.cpp, and the only way to hear what is wrong with a grammar: the public calls print it to stderr.
#include "../vendor/llama.cpp/src/llama-grammar.h"

#include <string>

Failure grammarRefusal(const std::string & reason);

// Of the text, before it is parsed: how much it unfolds to, how deep it nests.
void requireMeasure(const std::string & text);

// Of the rules: no left recursion, not too many ways to begin, and an end to `root`.
void requireShape(const llama_grammar_rules & rules, size_t root);

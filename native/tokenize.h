// Text to tokens and back, with the checks that llama.cpp's tokenizers need.
#pragma once

#include "model.h"

#include <string>
#include <vector>

// Throws NO_TOKENIZER.
void requireTokenizer(const ModelState & state);

// Throws TOKEN_OUT_OF_RANGE.
void requireTokenIds(const ModelState & state, const std::vector<int32_t> & tokens);

// Throws NO_TOKENIZER, TEXT_TOO_LONG, TEXT_UNBREAKABLE. Only on the model's thread, which has a large stack.
std::vector<int32_t> tokenizeText(
    const ModelState & state, const std::string & text, bool addSpecial, bool parseSpecial
);

// The bytes of a token's text. `special`: control tokens have a text too.
std::string tokenText(const ModelState & state, llama_token token, bool special);

// The tokens that the tokenizer matches as a whole. No merge of the tokenizer crosses them.
std::vector<int32_t> controlTokens(const ModelState & state);

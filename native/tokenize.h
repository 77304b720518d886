// Converts text to tokens and back, with the checks that llama.cpp's tokenizers need.
#pragma once

#include "model.h"

#include <string>
#include <vector>

// Throws NO_TOKENIZER.
void requireTokenizer(const ModelState & state);

// Throws TOKEN_OUT_OF_RANGE.
void requireTokenIds(const ModelState & state, const std::vector<int32_t> & tokens);

// Throws NO_TOKENIZER, TEXT_TOO_LONG, TEXT_UNBREAKABLE. Must run on the model's thread, which has a large stack.
std::vector<int32_t> tokenizeText(
    const ModelState & state, const std::string & text, bool addSpecial, bool parseSpecial
);

// Returns the bytes of a token's text. The text of a control token is empty unless `special` is true.
std::string tokenText(const ModelState & state, llama_token token, bool special);

// Returns the tokens that the tokenizer matches as a whole. The tokenizer never merges text across such a token.
std::vector<int32_t> controlTokens(const ModelState & state);

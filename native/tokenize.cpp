#include "tokenize.h"

#include "trap.h"

#include <algorithm>
#include <climits>

namespace {

// Some pre-tokenizers match with a recursive std::regex, which needs about 330 bytes of stack for each byte of an
// unbroken run. With this limit, the recursion fits into MODEL_STACK_BYTES (model-load.h).
constexpr size_t MAX_RUN_BYTES = 400 * 1000;
constexpr size_t MAX_TEXT_BYTES = (size_t) 256 << 20;

void requireTokenizable(const std::string & text) {
    if (text.size() > MAX_TEXT_BYTES) {
        throw Failure(
            "TEXT_TOO_LONG",
            "Expected at most " + std::to_string(MAX_TEXT_BYTES) + " bytes of text, got " + std::to_string(text.size())
        );
    }
    size_t run = 0;
    bool inSpace = false;
    for (char c : text) {
        const bool space = c == ' ' || c == '\n' || c == '\t' || c == '\r';
        run = space == inSpace ? run + 1 : 1;
        inSpace = space;
        if (run > MAX_RUN_BYTES) {
            throw Failure(
                "TEXT_UNBREAKABLE", "Expected at most " + std::to_string(MAX_RUN_BYTES) +
                                        " bytes in a row that are all whitespace, or all without whitespace. A longer "
                                        "run could overflow the tokenizer's stack."
            );
        }
    }
}

}  // namespace

void requireTokenizer(const ModelState & state) {
    if (llama_vocab_type(state.vocab) == LLAMA_VOCAB_TYPE_NONE) {
        throw Failure("NO_TOKENIZER", "This model has no tokenizer. Pass token ids instead of text.");
    }
}

void requireTokenIds(const ModelState & state, const std::vector<int32_t> & tokens) {
    const int32_t size = llama_vocab_n_tokens(state.vocab);
    for (size_t i = 0; i < tokens.size(); i++) {
        if (tokens[i] < 0 || tokens[i] >= size) {
            throw Failure(
                "TOKEN_OUT_OF_RANGE", "Expected token ids from 0 to " + std::to_string(size - 1) + ", got " +
                                          std::to_string(tokens[i]) + " at index " + std::to_string(i)
            );
        }
    }
}

std::vector<int32_t> tokenizeText(
    const ModelState & state, const std::string & text, bool addSpecial, bool parseSpecial
) {
    requireTokenizer(state);
    requireTokenizable(text);
    AssertTrap trap;
    std::vector<int32_t> tokens(text.size() + 2);
    const auto tokenizeInto = [&] {
        return llama_tokenize(
            state.vocab, text.data(), (int32_t) text.size(), tokens.data(), (int32_t) tokens.size(), addSpecial,
            parseSpecial
        );
    };
    int32_t count = tokenizeInto();
    if (count == INT_MIN) {
        throw Failure("TEXT_TOO_LONG", "Expected a text with at most 2,147,483,647 tokens");
    }
    if (count < 0) {
        tokens.resize((size_t) -count);
        count = tokenizeInto();
    }
    tokens.resize((size_t) std::max(0, count));
    return tokens;
}

std::string tokenText(const ModelState & state, llama_token token, bool special) {
    std::string text(64, '\0');
    int32_t length = llama_token_to_piece(state.vocab, token, text.data(), (int32_t) text.size(), 0, special);
    if (length < 0) {
        text.resize((size_t) -length);
        length = llama_token_to_piece(state.vocab, token, text.data(), (int32_t) text.size(), 0, special);
    }
    text.resize((size_t) std::max(0, length));
    return text;
}

std::vector<int32_t> controlTokens(const ModelState & state) {
    std::vector<int32_t> control;
    if (llama_vocab_type(state.vocab) == LLAMA_VOCAB_TYPE_NONE) {
        return control;
    }
    for (llama_token token = 0; token < llama_vocab_n_tokens(state.vocab); token++) {
        // User-defined tokens are included, because the tokenizer matches them as a whole too.
        if (llama_vocab_get_attr(state.vocab, token) & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_USER_DEFINED)) {
            control.push_back(token);
        }
    }
    return control;
}

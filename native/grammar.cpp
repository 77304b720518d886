#include "grammar.h"

#include "grammar-checks.h"

#include <cstring>

namespace {

constexpr size_t MAX_TEXT_BYTES = 1 << 20;
constexpr size_t MAX_RULES = 100 * 1000;

const char * skipSpace(const char * at) {
    while (*at == ' ' || *at == '\t' || *at == '\r' || *at == '\n' || *at == '#') {
        if (*at == '#') {
            at += std::strcspn(at, "\r\n");
        } else {
            at++;
        }
    }
    return at;
}

// Does the same as llama_grammar_parser::parse, but throws an error instead of printing it to stderr.
void parse(llama_grammar_parser & parser, const std::string & text) {
    try {
        const char * at = skipSpace(text.c_str());
        while (*at) {
            at = parser.parse_rule(at);
        }
    } catch (const std::exception & error) {
        throw grammarRefusal(error.what());
    }
    for (const auto & [name, id] : parser.symbol_ids) {
        if (id >= parser.rules.size() || parser.rules[id].empty()) {
            throw grammarRefusal("the rule \"" + name + "\" is not defined");
        }
    }
    if (parser.symbol_ids.find("root") == parser.symbol_ids.end()) {
        throw grammarRefusal("it has no rule \"root\"");
    }
    if (parser.rules.size() > MAX_RULES) {
        throw grammarRefusal("it expands to more than " + std::to_string(MAX_RULES) + " rules");
    }
}

void requireTokens(const llama_vocab * vocab, const llama_grammar_rules & rules) {
    const auto size = (uint32_t) llama_vocab_n_tokens(vocab);
    for (const auto & rule : rules) {
        for (const auto & element : rule) {
            if ((element.type == LLAMA_GRETYPE_TOKEN || element.type == LLAMA_GRETYPE_TOKEN_NOT) &&
                element.value >= size) {
                throw grammarRefusal(
                    "it uses the token id " + std::to_string(element.value) + ", but the highest id is " +
                    std::to_string(size - 1)
                );
            }
        }
    }
}

}  // namespace

Failure grammarRefusal(const std::string & reason) {
    return Failure("GRAMMAR_INVALID", "Expected a GBNF grammar that llama.cpp can use: " + reason.substr(0, 300));
}

void requireGrammar(const llama_vocab * vocab, const std::string & text) {
    if (text.size() > MAX_TEXT_BYTES) {
        throw grammarRefusal(
            "it has " + std::to_string(text.size()) + " bytes, but at most " + std::to_string(MAX_TEXT_BYTES) +
            " are allowed"
        );
    }
    if (text.find('\0') != std::string::npos) {
        throw grammarRefusal("it contains a NUL character");
    }
    // This llama.cpp was built without the llguidance library. A grammar for that library would end the process.
    if (std::strncmp(skipSpace(text.c_str()), "%llguidance", 11) == 0) {
        throw grammarRefusal("grammars in the llguidance language are not supported");
    }
    requireBoundedSize(text);
    llama_grammar_parser parser(vocab);
    parse(parser, text);
    if (vocab) {
        requireTokens(vocab, parser.rules);
    }
    requireShape(parser.rules, parser.symbol_ids.at("root"));
}

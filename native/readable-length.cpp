#include "readable-length.h"

#include <chat-peg-parser.h>  // of llama.cpp's common

#include <algorithm>
#include <cctype>

namespace {

// A limit above the length of any markup that closes a part, such as </tool_call>.
constexpr size_t MAX_CLOSING_BYTES = 128;

bool isCharacterStart(const std::string & text, size_t at) {
    return at >= text.size() || ((unsigned char) text[at] & 0xC0) != 0x80;
}

// One attempt to parse a text that includes the generation prompt.
class Attempt {
  public:
    // `isCut` says that the text is incomplete: it fits if some continuation would make it follow the format.
    Attempt(const ReplyGrammar & grammar, const std::string & text, bool isCut)
        : context_(text, isCut ? COMMON_PEG_PARSE_FLAG_LENIENT : COMMON_PEG_PARSE_FLAG_NONE),
          result_(grammar.parser.parse(context_)) {}

    bool fits() const { return !result_.fail(); }

    bool isWhole() const { return result_.success(); }

    size_t end() const { return result_.end; }

    // Finds the end of the last complete part and the start of an incomplete tool call.
    void measure() {
        for (const auto id : result_.nodes) {
            measure(context_.ast.get(id), nullptr);
        }
    }

    size_t partsEnd = 0;
    size_t openCall = std::string::npos;
    bool endsInReasoning = false;

  private:
    static bool isCall(const common_peg_ast_node & node) {
        return node.tag == common_chat_peg_builder::TOOL || node.rule.rfind("tool-", 0) == 0;
    }

    void measure(const common_peg_ast_node & node, const common_peg_ast_node * call) {
        if (openCall != std::string::npos) {
            return;
        }
        if (node.tag == common_chat_peg_builder::TOOL_OPEN) {
            const common_peg_ast_node & callNode = call ? *call : node;
            if (callNode.is_partial) {
                openCall = callNode.start;
            } else {
                extendTo(callNode);
            }
        } else if (node.tag == common_chat_peg_builder::REASONING || node.tag == common_chat_peg_builder::CONTENT) {
            extendTo(node);
        } else {
            for (const auto id : node.children) {
                measure(context_.ast.get(id), isCall(node) ? &node : call);
            }
        }
    }

    void extendTo(const common_peg_ast_node & node) {
        if (node.end >= partsEnd) {
            partsEnd = node.end;
            endsInReasoning = node.tag == common_chat_peg_builder::REASONING;
        }
    }

    common_peg_parse_context context_;
    common_peg_parse_result result_;
};

// Returns the length of the longest prefix that some continuation could turn into a reply. This is a binary search: if
// a text fits, all of its prefixes fit.
size_t viableLength(const ReplyGrammar & grammar, const std::string & input) {
    if (Attempt(grammar, input, true).fits()) {
        return input.size();
    }
    size_t viable = 0;
    size_t tooLong = input.size();
    while (viable + 1 < tooLong) {
        size_t middle = viable + (tooLong - viable) / 2;
        while (middle > viable && !isCharacterStart(input, middle)) {
            middle--;
        }
        if (middle == viable) {
            break;
        }
        (Attempt(grammar, input.substr(0, middle), true).fits() ? viable : tooLong) = middle;
    }
    return viable;
}

// If a tag that ends reasoning is at `at`, returns the end of that tag. Otherwise returns `at`.
size_t thinkingEnd(const ReplyGrammar & grammar, const std::string & input, size_t at) {
    size_t begin = at;
    while (begin < input.size() && std::isspace((unsigned char) input[begin])) {
        begin++;
    }
    for (const auto & tag : grammar.thinkingEndTags) {
        if (!tag.empty() && input.compare(begin, tag.size(), tag) == 0) {
            return begin + tag.size();
        }
    }
    return at;
}

// Returns the end of the markup that closes the last part.
size_t closingEnd(const ReplyGrammar & grammar, const std::string & input, const Attempt & read, size_t limit) {
    for (size_t end = std::min(limit, read.partsEnd + MAX_CLOSING_BYTES); end > read.partsEnd; end--) {
        if (isCharacterStart(input, end)) {
            const Attempt whole(grammar, input.substr(0, end), false);
            if (whole.isWhole() && whole.end() == end) {
                return end;
            }
        }
    }
    return read.endsInReasoning ? thinkingEnd(grammar, input, read.partsEnd) : read.partsEnd;
}

}  // namespace

size_t readableLength(const ReplyGrammar & grammar, const std::string & text) {
    if (grammar.parser.empty()) {
        return text.size();  // the format is plain text
    }
    const std::string input = grammar.generationPrompt + text;
    const size_t viable = viableLength(grammar, input);
    Attempt read(grammar, input.substr(0, viable), true);
    size_t end = read.end();
    if (!read.isWhole()) {
        read.measure();
        end = closingEnd(grammar, input, read, std::min(viable, read.openCall));
    }
    return std::max(end, grammar.generationPrompt.size()) - grammar.generationPrompt.size();
}

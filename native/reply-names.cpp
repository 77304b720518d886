#include "reply-names.h"

#include "guards.h"

#include <chat-peg-parser.h>

#include <algorithm>
#include <cctype>

namespace {

std::string withRealNamesIn(const std::string & text, const StandIns & standIns) {
    std::string result;
    size_t from = 0;
    for (size_t at = text.find(standIns.mark); at != std::string::npos; at = text.find(standIns.mark, at + 1)) {
        const size_t begin = at + standIns.mark.size();
        const size_t end = text.find_first_not_of("0123456789", begin);
        if (end == std::string::npos || end == begin || end - begin > 9 || text[end] != StandIns::END) {
            continue;
        }
        const size_t index = std::stoul(text.substr(begin, end - begin));
        if (index < standIns.names.size()) {
            result += text.substr(from, at - from) + standIns.names[index];
            from = end + 1;
        }
    }
    return result + text.substr(from);
}

// Whether a byte can be part of a tool name: a letter or digit of any alphabet, or "_" or "-".
bool isInWord(char c) { return std::isalnum((unsigned char) c) || c == '_' || c == '-' || (unsigned char) c >= 0x80; }

size_t endOfWord(const std::string & text, size_t at) {
    while (at < text.size() && isInWord(text[at])) {
        at++;
    }
    return at;
}

// gpt-oss writes the type of the arguments after the name, as in `to=functions.NAME json`. llama.cpp's parser accepts
// any word as this type and would read `get all` as a call of `get`. The addon therefore treats every word except
// `json` as a part of the name.
constexpr const char * NAME_AND_TYPE = "to=functions.";
constexpr const char * TYPE = "json";

std::string wholeName(const std::string & text, size_t start, size_t end) {
    end = endOfWord(text, end);
    const std::string before = NAME_AND_TYPE;
    if (start < before.size() || text.compare(start - before.size(), before.size(), before) != 0) {
        return text.substr(start, end - start);
    }
    for (;;) {
        const size_t word = text.find_first_not_of(" \t\n\v\f\r", end);
        const size_t wordEnd = word == std::string::npos ? word : endOfWord(text, word);
        if (word == wordEnd || text.substr(word, wordEnd - word) == TYPE) {
            return text.substr(start, end - start);
        }
        end = wordEnd;
    }
}

// Returns the tool names in a reply, each with its position, in the order of the text.
std::vector<std::pair<size_t, std::string>> namesIn(
    const std::string & text, const common_chat_parser_params & params
) {
    common_peg_parse_context context(text, COMMON_PEG_PARSE_FLAG_LENIENT);
    const auto result = params.parser.parse(context);
    std::vector<std::pair<size_t, std::string>> names;
    context.ast.visit(result, [&](const common_peg_ast_node & node) {
        if (node.tag == common_chat_peg_builder::TOOL_NAME) {
            names.emplace_back(node.start, std::string(node.text));
        }
    });
    return names;
}

}  // namespace

std::string withRealNames(const std::string & definition, const StandIns & standIns) {
    common_json parser = common_json::parse(definition);
    for (auto & node : parser.at("parsers")) {
        if (node.contains("literal")) {
            node["literal"] = withRealNamesIn(node.at("literal").get<std::string>(), standIns);
        } else if (node.contains("delimiters")) {
            for (auto & delimiter : node.at("delimiters")) {
                delimiter = withRealNamesIn(delimiter.get<std::string>(), standIns);
            }
        }
    }
    return parser.dump();
}

void completeToolNames(common_chat_msg & message, const std::string & text, const common_chat_parser_params & params) {
    if (message.tool_calls.empty()) {
        return;
    }
    const std::string whole = params.generation_prompt + text;
    const auto names = namesIn(whole, params);
    auto at = names.begin();
    for (auto & call : message.tool_calls) {
        at = std::find_if(at, names.end(), [&](const auto & name) { return name.second == call.name; });
        if (at == names.end()) {
            throw Failure(
                "REPLY_INVALID",
                "Expected the text of the reply to contain \"" + call.name + "\", the name of the tool that it calls"
            );
        }
        call.name = wholeName(whole, at->first, at->first + call.name.size());
        at++;
    }
}

// Measures how much of a reply follows its format. The addon must measure this itself, because common_chat_parse
// returns the parts of a reply without their positions.
#pragma once

#include <peg-parser.h>  // of llama.cpp's common

#include <string>
#include <vector>

struct ReplyGrammar {
    const common_peg_arena & parser;
    const std::string & generationPrompt;
    const std::vector<std::string> & thinkingEndTags;
};

// Returns the length in bytes of the longest prefix of `text` that follows the format and has only complete tool calls.
// The rest of the text does not follow the format, or is an incomplete tool call.
size_t readableLength(const ReplyGrammar & grammar, const std::string & text);

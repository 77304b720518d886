// How much of a reply its parts stand for. common_chat_parse takes a reply apart, and tells no places.
#pragma once

#include <peg-parser.h>  // of llama.cpp's common

#include <string>
#include <vector>

struct ReplyGrammar {
    const common_peg_arena & parser;
    const std::string & generationPrompt;
    const std::vector<std::string> & thinkingEndTags;
};

// The length in bytes of the longest beginning of `text` that is in the format and holds whole calls only. What follows it is text
// that the format does not know, or the beginning of a call.
size_t readableLength(const ReplyGrammar & grammar, const std::string & text);

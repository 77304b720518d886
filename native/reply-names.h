// The names of tools in a parser of replies, and in the replies themselves.
#pragma once

#include <chat.h>  // of llama.cpp's common

#include <string>
#include <vector>

// `common` names the rules of its parsers after tools and parameters, and two names may give one rule. Its parsers are therefore made
// with stand-ins: `mark`, the index of the real name, and END.
struct StandIns {
    static constexpr char END = 'e';

    std::string mark;
    std::vector<std::string> names;
};

// A parser's definition that expects the real names in a reply. The names of its rules stay.
std::string withRealNames(const std::string & definition, const StandIns & standIns);

// Gives each call the whole name that the reply's own text has at that place: a parser may take the beginning of a longer name for the
// name of a tool. Throws REPLY_INVALID if the text does not name the tool at all.
void readNamesAgain(common_chat_msg & message, const std::string & text, const common_chat_parser_params & params);

// The names of tools in the parser of replies, and in the replies.
#pragma once

#include <chat.h>  // of llama.cpp's common

#include <string>
#include <vector>

// `common` names the rules of its parsers after tools and parameters, and two names may lead to the same rule. So its
// parsers are made with stand-ins for the names: `mark`, the index of the real name, and END.
struct StandIns {
    static constexpr char END = 'e';

    std::string mark;
    std::vector<std::string> names;
};

// The definition of a parser that expects the real names in a reply. The names of its rules stay the same.
std::string withRealNames(const std::string & definition, const StandIns & standIns);

// Sets the name of each call to the whole name in the text of the reply, because a parser may take the beginning of a
// longer name for the name of a tool. Throws REPLY_INVALID if the text does not have the name.
void completeToolNames(common_chat_msg & message, const std::string & text, const common_chat_parser_params & params);

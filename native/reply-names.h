// Corrects the names of tools in reply parsers and in replies.
#pragma once

#include <chat.h>  // of llama.cpp's common

#include <string>
#include <vector>

// `common` names the rules of a parser after tools and parameters. Two different names may lead to the same rule. The
// parsers are therefore made with stand-ins instead of the real names. A stand-in consists of `mark`, the index of the
// real name in `names`, and END.
struct StandIns {
    static constexpr char END = 'e';

    std::string mark;
    std::vector<std::string> names;
};

// Returns the definition of a parser that expects the real names in a reply. The names of the parser's rules stay the
// same.
std::string withRealNames(const std::string & definition, const StandIns & standIns);

// Sets the name of each tool call to the whole name in the text of the reply. A parser may take the beginning of a
// longer name for the name of a tool. Throws REPLY_INVALID if the text does not contain the name.
void completeToolNames(common_chat_msg & message, const std::string & text, const common_chat_parser_params & params);

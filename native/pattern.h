// What may be given as a trigger's regular expression.
#pragma once

#include <string>

// Throws GRAMMAR_INVALID for what is no regular expression (ECMAScript, as std::regex reads it), nests too deep, or repeats
// beyond measure.
void requirePattern(const std::string & pattern);

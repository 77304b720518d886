// CMakeLists.txt includes this file at the start of a source file of `common` that prints warnings to stderr. The
// warnings go to the log instead, because stderr belongs to the user's program.
#pragma once

#include <cstdio>

int printToLog(FILE * stream, const char * format, ...);

#define fprintf printToLog

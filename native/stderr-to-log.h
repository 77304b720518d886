// CMakeLists.txt includes this in front of a source of llama.cpp's `common` that prints warnings to stderr. The
// warnings go to the log instead, because stderr belongs to the user's program.
#pragma once

#include <cstdio>

int printToLog(FILE * stream, const char * format, ...);

#define fprintf printToLog

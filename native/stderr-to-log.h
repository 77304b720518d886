// CMakeLists.txt puts this in front of a source of llama.cpp's `common` that prints warnings to stderr, which is the user's:
// they go where its log goes.
#pragma once

#include <cstdio>

int printToLog(FILE * stream, const char * format, ...);

#define fprintf printToLog

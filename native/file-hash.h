// Defines the JavaScript class FileHash. It computes a SHA-256 over ranges of files on the thread that reads files.
#pragma once

#include "thread.h"

void defineFileHash(Napi::Env env, Napi::Object exports);

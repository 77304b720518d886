// SHA-256 over ranges of files, on the thread that reads files: `new FileHash()`, `add`, `digest`.
#pragma once

#include "thread.h"

void defineFileHash(Napi::Env env, Napi::Object exports);

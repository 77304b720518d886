// ggml's backends: chooses the CPU module and the GPU module of this process, and loads each by its absolute path.
#pragma once

#include "to-js.h"

// `start({ cpu?, modules? })`: called before any other function of llama.cpp. Only the first call of the process loads;
// later calls, also those of other threads, return the result of the first. `cpu` is the name of a CPU module; by
// default the best one is loaded. `modules` are paths of GPU modules; the first that finds a GPU is loaded. Returns the
// loaded and the tried modules. A missing GPU is not an error.
void defineBackends(Napi::Env env, Napi::Object exports);

// Chooses the CPU module and the GPU module of ggml for this process, and loads each module by its absolute path.
#pragma once

#include "to-js.h"

// Defines `start({ cpu?, modules? })`, which must be called before any other function of llama.cpp. Only the first call
// in the process loads modules. Later calls return the result of the first call, even on other threads.
//
// `cpu` is the name of a CPU module. Without `cpu`, the module with the best score is loaded. `modules` are paths of
// GPU modules. The first of them that finds a GPU is loaded. `start` returns the loaded modules and all modules that
// were tried. A missing GPU is not an error.
void defineBackends(Napi::Env env, Napi::Object exports);

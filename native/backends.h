// ggml's backends: which CPU module runs here, and the modules of GPUs, each loaded by its absolute path.
#pragma once

#include "to-js.h"

// `start({ cpu?, modules? })`: once a process, before anything else of llama.cpp; later calls, other threads' too, get what the first
// loaded, whatever they ask for. `cpu` names the CPU module instead of the best one; `modules` are paths of GPUs' modules, of which the
// first that finds a GPU is loaded. Answers with what was loaded and tried: a GPU that is not to be had is no failure.
void defineBackends(Napi::Env env, Napi::Object exports);

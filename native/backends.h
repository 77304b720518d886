// ggml's backends: which CPU module runs here, and the modules of GPUs, each loaded by its absolute path.
#pragma once

#include "to-js.h"

// `start({ cpu?, modules? })`: once a process, before anything else of llama.cpp; later calls get what the first found. `cpu` names
// the CPU module instead of the best one; `modules` are paths of further modules. Answers with what was loaded and tried.
void defineBackends(Napi::Env env, Napi::Object exports);

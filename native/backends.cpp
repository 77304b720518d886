// In a portable build, ggml is a shared library, and the directory of the addon has several CPU modules. Each module is
// compiled for one generation of CPUs. This file loads the module with the best score for this CPU by its path.
//
// Never call ggml_backend_load_all(), and never call llama_backend_init() before a backend is loaded. Both functions
// search the current directory, the directory of the program and GGML_BACKEND_PATH, and run any module that they find.
#include "backends.h"

#include "guards.h"
#include "log.h"

#include <ggml-backend.h>
#include <llama.h>

#include <algorithm>
#include <filesystem>
#include <mutex>
#include <string_view>

#ifdef _WIN32
#define NOMINMAX
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace fs = std::filesystem;

namespace {

struct Candidate {
    fs::path path;
    std::string name;  // such as "haswell"; "default" for the only module of a build without variants
    int score = 0;
    std::string problem;  // why the module cannot be used; empty if there is no known problem
};

// A requested GPU module.
struct GpuModule {
    std::string path;
    std::string problem;  // why the module cannot be used; empty if the module is in use
};

struct Started {
    std::string cpu;  // empty in a static build
    std::vector<Candidate> candidates;
    std::vector<GpuModule> modules;  // the modules that were tried; only the last one can be in use
    std::string systemInfo;
};

#ifdef _WIN32
const char * const MODULE_SUFFIX = ".dll";

void * openModule(const fs::path & path) {
    return (void *) LoadLibraryExW(path.c_str(), nullptr, LOAD_WITH_ALTERED_SEARCH_PATH);
}
void * symbolOf(void * module, const char * name) { return (void *) GetProcAddress((HMODULE) module, name); }
void closeModule(void * module) { FreeLibrary((HMODULE) module); }
std::string openProblem() { return "Windows error " + std::to_string(GetLastError()); }

fs::path ownPath() {
    HMODULE self = nullptr;
    GetModuleHandleExW(
        GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT, (LPCWSTR) &ownPath, &self
    );
    std::wstring buffer(32768, L'\0');
    buffer.resize(GetModuleFileNameW(self, buffer.data(), (DWORD) buffer.size()));
    return buffer;
}
#else
const char * const MODULE_SUFFIX = ".so";  // on macOS too, because CMake gives modules this suffix

void * openModule(const fs::path & path) { return dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL); }
void * symbolOf(void * module, const char * name) { return dlsym(module, name); }
void closeModule(void * module) { dlclose(module); }
std::string openProblem() {
    const char * problem = dlerror();
    return problem ? problem : "it cannot be loaded";
}

fs::path ownPath() {
    Dl_info info;
    return dladdr((void *) &ownPath, &info) && info.dli_fname ? fs::absolute(info.dli_fname) : fs::path();
}
#endif

#ifndef HEADSTART_CPU_PREFIX  // cmake/portable.cmake defines the real prefix
#define HEADSTART_CPU_PREFIX "headstart-ggml-cpu"
#endif
constexpr std::string_view CPU_PREFIX = HEADSTART_CPU_PREFIX;

std::string nameOf(const fs::path & path) {
    const std::string stem = path.stem().string();
    return stem.size() > CPU_PREFIX.size() + 1 ? stem.substr(CPU_PREFIX.size() + 1) : "default";
}

// Reads the score that a module gives itself for this CPU. A score of 0 means that this CPU cannot run the module. A
// build without variants has a single module, which exports no score function.
Candidate scored(const fs::path & path) {
    Candidate candidate{path, nameOf(path), 0, {}};
    void * module = openModule(path);
    if (module == nullptr) {
        candidate.problem = openProblem();
        return candidate;
    }
    auto score = reinterpret_cast<int (*)()>(symbolOf(module, "ggml_backend_score"));
    candidate.score = score ? score() : 1;
    if (candidate.score == 0) {
        candidate.problem = "this CPU lacks instructions that the module needs";
    }
    closeModule(module);
    return candidate;
}

std::vector<Candidate> cpuCandidates(const fs::path & directory) {
    std::vector<Candidate> candidates;
    std::error_code error;
    for (const auto & entry : fs::directory_iterator(directory, error)) {
        const fs::path & path = entry.path();
        if (path.extension() == MODULE_SUFFIX && path.filename().string().rfind(CPU_PREFIX, 0) == 0) {
            candidates.push_back(scored(path));
        }
    }
    std::sort(candidates.begin(), candidates.end(), [](const Candidate & a, const Candidate & b) {
        return a.score != b.score ? a.score > b.score : a.name < b.name;
    });
    return candidates;
}

std::string listed(const std::vector<Candidate> & candidates) {
    std::string text;
    for (const auto & candidate : candidates) {
        text += (text.empty() ? "" : "; ") + candidate.name + ": " +
                (candidate.problem.empty() ? "score " + std::to_string(candidate.score) : candidate.problem);
    }
    return text.empty() ? "no module is there" : text;
}

bool load(Candidate & candidate) {
    LogCapture log;
    if (ggml_backend_load(candidate.path.string().c_str()) != nullptr) {
        return true;
    }
    if (candidate.problem.empty()) {
        candidate.problem = "it could not be loaded" + log.reason();
    }
    return false;
}

void loadCpu(Started & started, const std::string & name) {
    const fs::path directory = ownPath().parent_path();
    started.candidates = cpuCandidates(directory);
    for (auto & candidate : started.candidates) {
        if ((name.empty() ? candidate.score > 0 : candidate.name == name) && load(candidate)) {
            started.cpu = candidate.name;
            return;
        }
    }
    throw Failure(
        "ADDON_NOT_FOUND", (name.empty() ? std::string("No CPU module") : "No CPU module \"" + name + "\"") +
                               " could be loaded from " + directory.string() + " (" + listed(started.candidates) + ")"
    );
}

bool isGpu(ggml_backend_dev_t device) {
    const auto type = ggml_backend_dev_type(device);
    return type != GGML_BACKEND_DEVICE_TYPE_CPU && type != GGML_BACKEND_DEVICE_TYPE_ACCEL;
}

// Returns why a GPU module cannot be used, or an empty string. If a module finds no GPU, ggml loads it anyway and only
// logs a message, so this function counts the module's devices first. The module stays open, because the runtime of a
// GPU cannot be unloaded safely.
std::string gpuProblem(const fs::path & path) {
    void * module = openModule(path);
    if (module == nullptr) {
        return openProblem();
    }
    auto init = reinterpret_cast<ggml_backend_reg_t (*)()>(symbolOf(module, "ggml_backend_init"));
    if (init == nullptr) {
        return "it is not a ggml module";
    }
    LogCapture log;
    const ggml_backend_reg_t backend = init();
    for (size_t i = 0; backend != nullptr && i < ggml_backend_reg_dev_count(backend); i++) {
        if (isGpu(ggml_backend_reg_dev_get(backend, i))) {
            return "";
        }
    }
    return "it finds no GPU" + log.reason();
}

void loadGpu(Started & started, const std::vector<std::string> & modules) {
    for (const auto & path : modules) {
        GpuModule module{path, gpuProblem(fs::u8path(path))};
        if (module.problem.empty()) {
            Candidate candidate{fs::u8path(path), {}, 0, {}};
            load(candidate);
            module.problem = candidate.problem;
        }
        started.modules.push_back(module);
        if (module.problem.empty()) {
            return;
        }
    }
}

Started startProcess(const std::string & cpu, const std::vector<std::string> & modules) {
    Started started;
#ifdef GGML_BACKEND_DL
    loadCpu(started, cpu);
    loadGpu(started, modules);
#else
    if (!cpu.empty() || !modules.empty()) {
        throw Failure(
            "ADDON_NOT_FOUND", "This addon was built for one CPU, without modules, so it cannot load \"" +
                                   (cpu.empty() ? modules.front() : cpu) + "\""
        );
    }
#endif
    llama_backend_init();
    // Called only once, because each call of llama_print_system_info() rewrites the same static string.
    started.systemInfo = llama_print_system_info();
    return started;
}

// The first call starts the backends. Later calls return its result, which is never freed. After a failed start, the
// next call tries again.
const Started & startOnce(const std::string & cpu, const std::vector<std::string> & modules) {
    static std::mutex mutex;
    static const Started * started = nullptr;
    std::lock_guard<std::mutex> lock(mutex);
    if (started == nullptr) {
        started = new Started(startProcess(cpu, modules));
    }
    return *started;
}

Napi::Array devices(Napi::Env env) {
    Napi::Array list = Napi::Array::New(env);
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        size_t free = 0, total = 0;
        ggml_backend_dev_memory(device, &free, &total);
        const bool isCpu = ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
        Napi::Object object = Napi::Object::New(env);
        object.Set("name", ggml_backend_dev_name(device));
        object.Set("description", ggml_backend_dev_description(device));
        object.Set("backend", ggml_backend_reg_name(ggml_backend_dev_backend_reg(device)));
        object.Set("type", isGpu(device) ? "gpu" : isCpu ? "cpu" : "accelerator");
        object.Set("freeBytes", (double) free);
        object.Set("totalBytes", (double) total);
        list.Set((uint32_t) i, object);
    }
    return list;
}

Napi::Value orNull(Napi::Env env, const std::string & text) {
    return text.empty() ? env.Null() : Napi::Value(Napi::String::New(env, text));
}

Napi::Object toJs(Napi::Env env, const Started & started) {
    Napi::Array tried = Napi::Array::New(env);
    for (size_t i = 0; i < started.candidates.size(); i++) {
        const auto & candidate = started.candidates[i];
        Napi::Object object = Napi::Object::New(env);
        object.Set("name", candidate.name);
        object.Set("path", candidate.path.u8string());
        object.Set("score", candidate.score);
        object.Set("problem", orNull(env, candidate.problem));
        tried.Set((uint32_t) i, object);
    }
    Napi::Array modules = Napi::Array::New(env);
    for (size_t i = 0; i < started.modules.size(); i++) {
        Napi::Object object = Napi::Object::New(env);
        object.Set("path", started.modules[i].path);
        object.Set("problem", orNull(env, started.modules[i].problem));
        modules.Set((uint32_t) i, object);
    }
    Napi::Object result = Napi::Object::New(env);
    result.Set("cpu", orNull(env, started.cpu));
    result.Set("tried", tried);
    result.Set("modules", modules);
    result.Set("devices", devices(env));
    result.Set("systemInfo", started.systemInfo);
    result.Set("supportsGpuOffload", llama_supports_gpu_offload());
    return result;
}

Napi::Value start(const Napi::CallbackInfo & info) {
    return guard::call(info.Env(), [&]() -> Napi::Value {
        Napi::Object options = guard::object(info[0], "options");
        std::vector<std::string> modules;
        if (Napi::Value paths = guard::field(options, "modules"); paths.IsArray()) {
            Napi::Array array = paths.As<Napi::Array>();
            for (uint32_t i = 0; i < array.Length(); i++) {
                modules.push_back(guard::path(array.Get(i), "modules[]"));
            }
        }
        return toJs(info.Env(), startOnce(guard::optionalString(options, "cpu", ""), modules));
    });
}

}  // namespace

void defineBackends(Napi::Env env, Napi::Object exports) {
    exports.Set("start", Napi::Function::New(env, start, "start"));
}

// The baseline of the benchmarks: llama.cpp alone, with the libraries, number of threads, threadpool, greedy sampling
// and buffers of the addon. A benchmark starts this program as a child process. The program reads one command per line
// and writes the time that the command took in milliseconds. The benchmark can therefore alternate between trials of
// the baseline and trials of this package.
//
// baseline MODEL THREADS KV_CELLS SEQUENCES TOKENS_FILE STATE_FILE [unified|split]
//
// TOKENS_FILE contains raw int32 token ids. STATE_FILE is a sequence-state file of this package, or "-" if no command
// needs one.
#include "argmax.h"
#include "buffer.h"

#include <llama.h>

#define XXH_INLINE_ALL
#include <hash/xxhash/xxhash.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <iostream>
#include <sstream>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

constexpr int32_t BATCH_SIZE = 512;
constexpr size_t READ_BYTES = 256 << 10;
constexpr size_t FORK_WIDTH = 8;

[[noreturn]] void fail(const std::string & why) {
    std::fprintf(stderr, "baseline: %s\n", why.c_str());
    std::exit(1);
}

class Stopwatch {
  public:
    double ms() const {
        return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count();
    }

  private:
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

std::vector<int32_t> readTokens(const std::string & path) {
    std::vector<int32_t> tokens;
    FILE * file = std::fopen(path.c_str(), "rb");
    for (int32_t token; file && std::fread(&token, sizeof(token), 1, file) == 1;) {
        tokens.push_back(token);
    }
    if (!file || tokens.empty()) {
        fail("expected token ids in " + path);
    }
    std::fclose(file);
    return tokens;
}

struct Baseline {
    llama_model * model = nullptr;
    llama_context * ctx = nullptr;
    llama_memory_t memory = nullptr;
    int32_t vocabulary = 0;
    std::vector<int32_t> prefix;
    std::string statePath;
    Buffer state, file, copy;
    size_t stateSize = 0;
    bool unified = true;

    llama_token greedy(int32_t row) const { return argmax(llama_get_logits_ith(ctx, row), (size_t) vocabulary); }

    // Decodes one batch with one row per token. llama.cpp computes logits only for the rows that `outputs` selects. The
    // callers select at most the last row of each sequence.
    void decode(
        std::vector<int32_t> & tokens,
        std::vector<int32_t> & positions,
        std::vector<int32_t> & sequences,
        std::vector<int8_t> & outputs
    ) const {
        std::vector<int32_t> one(tokens.size(), 1);
        std::vector<llama_seq_id *> ids(tokens.size());
        for (size_t i = 0; i < ids.size(); i++) {
            ids[i] = &sequences[i];
        }
        if (llama_decode(
                ctx, {(int32_t) tokens.size(), tokens.data(), nullptr, positions.data(), one.data(), ids.data(),
                      outputs.data()}
            ) != 0) {
            fail("llama_decode failed");
        }
        llama_synchronize(ctx);
    }

    llama_token prefillInto(int32_t sequence) const {
        llama_token picked = 0;
        for (size_t start = 0; start < prefix.size(); start += BATCH_SIZE) {
            const size_t count = std::min((size_t) BATCH_SIZE, prefix.size() - start);
            const bool last = start + count == prefix.size();
            std::vector<int32_t> tokens(prefix.begin() + (long) start, prefix.begin() + (long) (start + count)),
                positions(count), sequences(count, sequence);
            std::vector<int8_t> outputs(count, 0);
            for (size_t i = 0; i < count; i++) {
                positions[i] = (int32_t) (start + i);
            }
            outputs[count - 1] = last;
            decode(tokens, positions, sequences, outputs);
            picked = last ? greedy((int32_t) count - 1) : picked;
        }
        return picked;
    }

    double prefill() const {
        llama_memory_clear(memory, false);
        Stopwatch watch;
        prefillInto(0);
        return watch.ms();
    }

    void restore(int32_t sequence) {
        if (llama_state_seq_set_data(ctx, state.data(), stateSize, sequence) == 0) {
            fail("llama_state_seq_set_data failed");
        }
    }

    // Puts the prefix into `width` sequences.
    void fork(size_t width) {
        llama_memory_clear(memory, false);
        restore(0);
        for (size_t i = 1; i < width; i++) {
            if (unified) {
                llama_memory_seq_cp(memory, 0, (int32_t) i, -1, -1);
            } else {
                restore((int32_t) i);
            }
        }
    }

    // Decodes one batch with the suffixes of `width` sequences, and chooses the token after each suffix. All sequences
    // have the same prefix. The file contains the suffixes one after another, and all suffixes have the same length.
    double fanOut(const std::string & path, size_t width) {
        std::vector<int32_t> tokens = readTokens(path), positions(tokens.size()), sequences(tokens.size());
        std::vector<int8_t> outputs(tokens.size(), 0);
        const size_t suffixLength = tokens.size() / width;
        for (size_t i = 0; i < tokens.size(); i++) {
            positions[i] = (int32_t) (prefix.size() + i % suffixLength);
            sequences[i] = (int32_t) (i / suffixLength);
            outputs[i] = i % suffixLength == suffixLength - 1;
        }
        fork(width);
        Stopwatch watch;
        decode(tokens, positions, sequences, outputs);
        volatile llama_token picked = 0;
        for (size_t i = suffixLength - 1; i < tokens.size(); i += suffixLength) {
            picked = greedy((int32_t) i);
        }
        (void) picked;
        return watch.ms();
    }

    // Generates `steps` tokens in each of `width` sequences with the same prefix.
    double generate(size_t width, size_t steps) {
        fork(width);
        std::vector<int32_t> tokens(width, prefix.back()), positions(width, (int32_t) prefix.size()), sequences(width);
        std::vector<int8_t> outputs(width, 1);
        for (size_t i = 0; i < width; i++) {
            sequences[i] = (int32_t) i;
            tokens[i] = prefix[prefix.size() - 1 - i];
        }
        Stopwatch watch;
        for (size_t step = 0; step < steps; step++) {
            decode(tokens, positions, sequences, outputs);
            for (size_t i = 0; i < width; i++) {
                tokens[i] = greedy((int32_t) i);
                positions[i]++;
            }
        }
        return watch.ms();
    }

    double setData() {
        llama_memory_clear(memory, false);
        Stopwatch watch;
        restore(0);
        return watch.ms();
    }

    double seqCp() {
        llama_memory_clear(memory, false);
        restore(0);
        Stopwatch watch;
        llama_memory_seq_cp(memory, 0, 1, -1, -1);
        return watch.ms();
    }

    double loadFile() {
        llama_memory_clear(memory, false);
        std::vector<int32_t> tokens(prefix.size() + 1);
        size_t count = 0;
        Stopwatch watch;
        if (llama_state_seq_load_file(ctx, statePath.c_str(), 0, tokens.data(), tokens.size(), &count) == 0) {
            fail("llama_state_seq_load_file failed");
        }
        return watch.ms();
    }

    double readChecksum() {
        Stopwatch watch;
        const int fd = open(statePath.c_str(), O_RDONLY | O_CLOEXEC);
        XXH3_state_t * hash = XXH3_createState();
        XXH3_128bits_reset(hash);
        size_t done = 0;
        for (ssize_t got; (got = read(fd, file.data() + done, std::min(READ_BYTES, file.size() - done))) > 0;
             done += (size_t) got) {
            XXH3_128bits_update(hash, file.data() + done, (size_t) got);
        }
        volatile uint64_t digest = XXH3_128bits_digest(hash).low64;
        (void) digest;
        XXH3_freeState(hash);
        close(fd);
        if (done != file.size()) {
            fail("the state file could not be read to its end");
        }
        return watch.ms();
    }

    double copyBytes() {
        Stopwatch watch;
        std::memcpy(copy.data(), state.data(), stateSize);
        return watch.ms();
    }
};

Baseline openBaseline(char ** arguments, bool unified) {
    Baseline baseline;
    baseline.unified = unified;
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
    baseline.model = llama_model_load_from_file(arguments[1], llama_model_default_params());
    if (!baseline.model) {
        fail("the model could not be loaded");
    }
    baseline.vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(baseline.model));
    llama_context_params params = llama_context_default_params();
    params.n_threads = params.n_threads_batch = std::atoi(arguments[2]);
    params.n_ctx = (uint32_t) std::atoi(arguments[3]);
    params.n_seq_max = (uint32_t) std::atoi(arguments[4]);
    params.n_batch = BATCH_SIZE;
    params.n_ubatch = BATCH_SIZE;
    params.n_outputs_max = BATCH_SIZE;
    params.kv_unified = unified;
    params.swa_full = false;
    params.no_perf = true;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    baseline.ctx = llama_init_from_model(baseline.model, params);
    if (!baseline.ctx) {
        fail("the context could not be created");
    }
    baseline.memory = llama_get_memory(baseline.ctx);
    ggml_threadpool_params pool = ggml_threadpool_params_default(params.n_threads);
    pool.poll = 0;
    ggml_threadpool * threads = ggml_threadpool_new(&pool);
    llama_attach_threadpool(baseline.ctx, threads, threads);

    baseline.prefix = readTokens(arguments[5]);
    if (baseline.prefix.size() < params.n_seq_max) {
        fail("expected at least SEQUENCES tokens in TOKENS_FILE");
    }

    baseline.prefillInto(0);
    baseline.stateSize = llama_state_seq_get_size(baseline.ctx, 0);
    baseline.state = Buffer(baseline.stateSize);
    baseline.copy = Buffer(baseline.stateSize);
    llama_state_seq_get_data(baseline.ctx, baseline.state.data(), baseline.stateSize, 0);
    baseline.statePath = arguments[6];
    if (baseline.statePath == "-") {
        return baseline;
    }
    FILE * stateFile = std::fopen(arguments[6], "rb");
    if (!stateFile) {
        fail("the state file could not be opened");
    }
    std::fseek(stateFile, 0, SEEK_END);
    baseline.file = Buffer((size_t) std::ftell(stateFile));
    std::fclose(stateFile);
    return baseline;
}

double fanOut(std::istringstream & words, Baseline & baseline) {
    std::string path;
    size_t width = 1;
    words >> path >> width;
    return baseline.fanOut(path, width);
}

}  // namespace

int main(int count, char ** arguments) {
    if (count != 7 && count != 8) {
        fail("expected MODEL THREADS KV_CELLS SEQUENCES TOKENS_FILE STATE_FILE [unified|split]");
    }
    Baseline baseline = openBaseline(arguments, count == 7 || std::string(arguments[7]) == "unified");
    std::cout << "ready" << std::endl;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        std::string command;
        const auto number = [&words] {
            size_t value = 0;
            words >> value;
            return value;
        };
        words >> command;
        const size_t first = command == "fanout" ? 0 : number();
        const double ms = command == "prefill"        ? baseline.prefill()
                          : command == "decode"       ? baseline.generate(1, first)
                          : command == "decode8"      ? baseline.generate(FORK_WIDTH, first)
                          : command == "generate"     ? baseline.generate(first, number())  // width, steps
                          : command == "fanout"       ? fanOut(words, baseline)
                          : command == "setData"      ? baseline.setData()
                          : command == "seqCp"        ? baseline.seqCp()
                          : command == "loadFile"     ? baseline.loadFile()
                          : command == "readChecksum" ? baseline.readChecksum()
                          : command == "memcpy"       ? baseline.copyBytes()
                                                      : -1;
        if (ms < 0) {
            fail("unknown command " + command);
        }
        std::cout << ms << std::endl;
    }
    _exit(0);
}

#include "context.h"

#include "decode.h"
#include "sequences.h"

#include <chrono>
#include <climits>

namespace {

constexpr size_t WAITER_STACK_BYTES = (size_t) 256 << 10;

// A large stack costs nothing until it is used. The trigger patterns of samplers (see sampler.cpp) need most of it.
constexpr size_t CONTEXT_STACK_BYTES = (size_t) 256 << 20;

// After a decode, JavaScript needs about 50 us until it posts the next decode. Waking a sleeping thread would take
// about 50 us more.
constexpr std::chrono::microseconds SPIN(200);

Napi::Value toUndefined(Napi::Env env, bool &) { return env.Undefined(); }

}  // namespace

Context::Context(const Napi::CallbackInfo & info)
    : Napi::ObjectWrap<Context>(info),
      state_(nativeState<std::shared_ptr<ContextState>>(info, TAG, "Contexts are made by Context.create()")) {}

Context::~Context() {
    if (state_) {
        state_->retire();
    }
}

std::shared_ptr<ContextState> Context::open() const {
    if (*state_->closing) {
        throw Failure("CLOSED", "Expected an open context, but it was closed");
    }
    return state_;
}

llama_seq_id Context::sequence(Napi::Value value, const char * what) const {
    const int64_t last = (int64_t) state_->params.n_seq_max - 1;
    const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
    if (!(number >= 0 && number <= (double) last) || number != std::floor(number)) {
        Failure failure = guard::invalid(what, "a sequence id from 0 to " + std::to_string(last), value);
        throw Failure(value.IsNumber() ? "SEQUENCE_OUT_OF_RANGE" : "INVALID_ARGUMENT", failure.what());
    }
    return (llama_seq_id) number;
}

Napi::Value Context::create(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = std::make_shared<ContextState>();
        // The options are read before the model is unwrapped, because a getter of the options may close the model.
        state->params = contextParamsFrom(guard::object(info[1], "options"));
        state->model = unwrap<Model>(info[0], "model", "a Model").state();
        state->owner = state->model.get();
        requireFits(*state->model, state->params);
        state->thread = Thread::start(CONTEXT_STACK_BYTES, [closing = state->closing] { closing->store(true); }, SPIN);
        Environment::of(env).addThread(state->thread);
        addWeak(state->model->contexts, state);
        Thread & thread = *state->thread;
        return runOn<std::shared_ptr<ContextState>>(
            env, thread,
            [state] {
                createContext(*state);
                return state;
            },
            [](Napi::Env env, std::shared_ptr<ContextState> & created) -> Napi::Value {
                return Environment::of(env).contextClass.New(
                    {Napi::External<std::shared_ptr<ContextState>>::New(env, &created)}
                );
            }
        );
    });
}

Napi::Value Context::close(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        if (closing_.IsEmpty()) {
            state_->shutDown();
            // A new thread waits until the context's thread has ended, so that no other thread has to wait.
            auto waiter = Thread::start(WAITER_STACK_BYTES);
            Napi::Value done = runOn<bool>(
                env, *waiter,
                [thread = state_->thread] {
                    thread->waitUntilEnded();
                    return true;
                },
                toUndefined
            );
            waiter->stop();
            closing_ = Napi::Persistent(done.As<Napi::Promise>());
        }
        return closing_.Value();
    });
}

Napi::Value Context::info(const Napi::CallbackInfo & info) {
    return guard::call(info.Env(), [&]() -> Napi::Value {
        auto state = open();
        Napi::Object object = Napi::Object::New(info.Env());
        object.Set("kvCells", state->cells);
        object.Set("kvCellsPerSequence", state->cellsPerSequence);
        object.Set("batchSize", state->batchSize);
        object.Set("microBatchSize", state->microBatchSize);
        object.Set("maxSequences", state->params.n_seq_max);
        object.Set("maxOutputs", state->maxOutputs);
        object.Set("nThreads", state->params.n_threads);
        object.Set("nThreadsBatch", state->params.n_threads_batch);
        object.Set("kvLayout", state->params.kv_unified ? "unified" : "split");
        object.Set(
            "flashAttention",
            Napi::Boolean::New(info.Env(), state->params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_ENABLED)
        );
        object.Set("fullSlidingWindow", Napi::Boolean::New(info.Env(), state->params.swa_full));
        object.Set("canTrim", Napi::Boolean::New(info.Env(), !state->hasPartialStates));
        object.Set("keyType", ggml_type_name(state->params.type_k));
        object.Set("valueType", ggml_type_name(state->params.type_v));
        object.Set("ropeScaling", ropeScalingName(state->params.rope_scaling_type));
        object.Set("ropeFrequencyBase", state->params.rope_freq_base);
        object.Set("ropeFrequencyScale", state->params.rope_freq_scale);
        object.Set("compatibility", state->compatibility);
        return object;
    });
}

// Wraps `work`, which fills a sequence. If the argument's flag is set before `work` starts, the wrapped function throws
// ABORTED. If the flag is set while `work` runs, the wrapped function empties the sequence before any later job runs,
// and then throws ABORTED.
template <class Work> static auto undoneIfAborted(
    const std::shared_ptr<ContextState> & state, llama_seq_id id, Napi::Value abortFlag, const Work & work
) {
    return [state, id, abort = AbortFlag::of(abortFlag), work] {
        AbortFlag::throwIfSet(*abort);
        auto result = work();
        if (*abort) {
            llama_memory_seq_rm(llama_get_memory(state->ctx), id, -1, -1);
        }
        AbortFlag::throwIfSet(*abort);
        return result;
    };
}

Napi::Value Context::loadFile(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = open();
        const auto id = sequence(info[0], "sequence");
        const std::string path = guard::path(info[1], "path");
        const auto load = [state, id, path] { return loadWithLlama(*state, id, path); };
        return runOn<std::vector<int32_t>>(
            env, *state->thread, undoneIfAborted(state, id, info[2], load), toArray<std::vector<int32_t>>
        );
    });
}

Napi::Value Context::counters(const Napi::CallbackInfo & info) {
    Napi::Object result = Napi::Object::New(info.Env());
    const Counters & c = state_->counters;
    const auto number = [&](const char * name, uint64_t value, double scale = 1) {
        result.Set(name, Napi::Number::New(info.Env(), (double) value / scale));
    };
    number("decodes", c.decodes);
    number("decodedTokens", c.decodedTokens);
    number("decodeMs", c.decodeMicros, 1000);
    number("captures", c.captures);
    number("capturedBytes", c.capturedBytes);
    number("captureMs", c.captureMicros, 1000);
    number("restores", c.restores);
    number("restoredBytes", c.restoredBytes);
    number("restoreMs", c.restoreMicros, 1000);
    number("copies", c.copies);
    return result;
}

Napi::Value Context::decode(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = open();
        auto batch = std::make_shared<Batch>(batchFrom(*state, info));
        auto abort = AbortFlag::of(info[5]);
        auto inbox = Environment::of(env).inbox;
        return runOn<std::vector<int32_t>>(
            env, *state->thread,
            releasing<std::vector<int32_t>>(
                [batch] { batch->samplers.clear(); },
                [state, batch, abort, inbox] { return decodeBatch(*state, *batch, *abort, *inbox); }
            ),
            [batch](Napi::Env env, std::vector<int32_t> & picks) -> Napi::Value {
                batch->samplers.clear();
                // A single token is returned as a number, which is one or two microseconds faster than an array.
                return picks.size() == 1 ? Napi::Value(Napi::Number::New(env, picks[0])) : copyToJs(env, picks);
            }
        );
    });
}

Napi::Value Context::logits(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = open();
        const auto row = (int32_t) guard::integer(info[0], "row", 0, state->batchSize - 1);
        return runOn<std::vector<float>>(
            env, *state->thread,
            [state, row] {
                const float * logits = logitsOfRow(*state, row);
                return std::vector<float>(logits, logits + state->vocabularySize);
            },
            toArray<std::vector<float>>
        );
    });
}

Napi::Value Context::setThreads(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = open();
        const int32_t most = state->maxThreads();
        const auto threads = (int32_t) guard::integer(info[0], "nThreads", 1, most);
        const auto batchThreads = (int32_t) guard::integerOr(info[1], "nThreadsBatch", threads, 1, most);
        return runOn<bool>(
            env, *state->thread,
            [state, threads, batchThreads] {
                state->requireOpen();
                llama_set_n_threads(state->ctx, threads, batchThreads);
                return true;
            },
            toUndefined
        );
    });
}

Napi::Value Context::removeSequence(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = open();
        const auto id = sequence(info[0], "sequence");
        const auto from = (llama_pos) (info[1].IsUndefined() ? 0 : guard::integer(info[1], "from", 0, INT32_MAX));
        const auto to = (llama_pos) (info[2].IsUndefined() ? -1 : guard::integer(info[2], "to", 0, INT32_MAX));
        return runOn<bool>(
            env, *state->thread, [state, id, from, to] { return removeRange(*state, id, from, to); },
            [](Napi::Env env, bool & removed) -> Napi::Value { return Napi::Boolean::New(env, removed); }
        );
    });
}

Napi::Value Context::copySequence(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = open();
        const auto source = sequence(info[0], "source");
        const auto target = sequence(info[1], "target");
        return runOn<bool>(
            env, *state->thread,
            [state, source, target] {
                copyWithin(*state, source, target);
                return true;
            },
            toUndefined
        );
    });
}

Napi::Value Context::keepSequence(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = open();
        const auto id = sequence(info[0], "sequence");
        return runOn<bool>(
            env, *state->thread,
            [state, id] {
                state->requireOpen();
                // llama_memory_seq_keep would clear only one stream in the split layout.
                for (llama_seq_id other = 0; other < (llama_seq_id) state->params.n_seq_max; other++) {
                    if (other != id) {
                        llama_memory_seq_rm(llama_get_memory(state->ctx), other, -1, -1);
                    }
                }
                return true;
            },
            toUndefined
        );
    });
}

Napi::Value Context::positionRange(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = open();
        const auto id = sequence(info[0], "sequence");
        return runOn<std::pair<llama_pos, llama_pos>>(
            env, *state->thread,
            [state, id] {
                state->requireOpen();
                llama_memory_t memory = llama_get_memory(state->ctx);
                return std::make_pair(llama_memory_seq_pos_min(memory, id), llama_memory_seq_pos_max(memory, id));
            },
            [](Napi::Env env, std::pair<llama_pos, llama_pos> & range) -> Napi::Value {
                Napi::Object result = Napi::Object::New(env);
                result.Set("first", range.first);
                result.Set("last", range.second);
                return result;
            }
        );
    });
}

Napi::Value Context::clear(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = open();
        return runOn<bool>(
            env, *state->thread,
            [state] {
                state->requireOpen();
                llama_memory_clear(llama_get_memory(state->ctx), true);
                return true;
            },
            toUndefined
        );
    });
}

Napi::Value Context::stateBytes(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = open();
        const auto id = sequence(info[0], "sequence");
        const bool partial = guard::booleanOr(info[1], "partial", false);
        return runOn<size_t>(
            env, *state->thread, [state, id, partial] { return stateSize(*state, id, partial); },
            [](Napi::Env env, size_t & size) -> Napi::Value { return Napi::Number::New(env, (double) size); }
        );
    });
}

Napi::Value Context::captureSequence(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = open();
        const auto id = sequence(info[0], "sequence");
        auto tokens = guard::int32s(info[1], "tokens");
        const bool partial = guard::booleanOr(info[2], "partial", false);
        constexpr int64_t max = guard::MAX_SAFE_INTEGER;
        const auto maxBytes = (uint64_t) guard::integerOr(info[3], "maxBytes", max, 0, max);
        const auto copy = [state, id, tokens, partial, maxBytes] {
            return capture(*state, id, tokens, partial, maxBytes);
        };
        return runOn<std::shared_ptr<const StateBytes>>(
            env, *state->thread, AbortFlag::unlessAborted(info[4], copy),
            [](Napi::Env env, std::shared_ptr<const StateBytes> & bytes) { return SequenceState::wrap(env, bytes); }
        );
    });
}

Napi::Value Context::restoreSequence(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = open();
        const auto id = sequence(info[0], "sequence");
        auto bytes = SequenceState::from(info[1]);
        const auto restoring = [state, id, bytes] {
            restore(*state, id, *bytes);
            return true;
        };
        return runOn<bool>(env, *state->thread, undoneIfAborted(state, id, info[2], restoring), toUndefined);
    });
}

void Context::define(Napi::Env env, Napi::Object exports) {
    Napi::Function type = DefineClass(
        env, "Context",
        {StaticMethod<&Context::create>("create"), InstanceMethod<&Context::close>("close"),
         InstanceMethod<&Context::info>("info"), InstanceMethod<&Context::counters>("counters"),
         InstanceMethod<&Context::decode>("decode"), InstanceMethod<&Context::logits>("logits"),
         InstanceMethod<&Context::logProbabilities>("logProbabilities"), InstanceMethod<&Context::setLoras>("setLoras"),
         InstanceMethod<&Context::setThreads>("setThreads"), InstanceMethod<&Context::removeSequence>("removeSequence"),
         InstanceMethod<&Context::copySequence>("copySequence"), InstanceMethod<&Context::keepSequence>("keepSequence"),
         InstanceMethod<&Context::positionRange>("positionRange"), InstanceMethod<&Context::clear>("clear"),
         InstanceMethod<&Context::stateBytes>("stateBytes"),
         InstanceMethod<&Context::captureSequence>("captureSequence"),
         InstanceMethod<&Context::restoreSequence>("restoreSequence"), InstanceMethod<&Context::loadFile>("loadFile")}
    );
    Environment::of(env).contextClass = Napi::Persistent(type);
    exports.Set("Context", type);
}

// The JavaScript class of samplers.
#include "context.h"
#include "decode.h"
#include "sampler.h"

namespace {

std::function<bool()> leasedWork(const std::shared_ptr<SamplerLease> & lease, const std::function<void()> & work) {
    return releasing<bool>(
        [lease] { lease->release(); },
        [work] {
            work();
            return true;
        }
    );
}

// Releases the lease when the promise settles, so that the sampler is free for the code after `await`.
std::function<Napi::Value(Napi::Env, bool &)> untilSettled(const std::shared_ptr<SamplerLease> & lease) {
    return [lease](Napi::Env env, bool &) {
        lease->release();
        return env.Undefined();
    };
}

}  // namespace

Sampler::Sampler(const Napi::CallbackInfo & info)
    : Napi::ObjectWrap<Sampler>(info),
      state_(nativeState<std::shared_ptr<SamplerState>>(info, TAG, "Samplers are made by Sampler.create()")) {}

Sampler::~Sampler() {
    if (state_) {
        // The state is freed on the model's thread, because freeing a large grammar takes time.
        std::shared_ptr<Thread> thread = state_->thread;
        thread->post([state = std::move(state_)]() mutable { state.reset(); });
    }
}

Napi::Value Sampler::create(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = std::make_shared<SamplerState>();
        Model & model = unwrap<Model>(info[0], "model", "a Model");
        state->vocabularySize = llama_vocab_n_tokens(model.state()->vocab);
        auto request = std::make_shared<SamplerRequest>(
            samplerRequestFrom(guard::object(info[1], "options"), state->vocabularySize)
        );
        state->model =
            model.state();  // after the options were read, because a getter of the options may close the model
        state->owner = state->model.get();
        state->thread = state->model->thread;
        addWeak<ModelChild>(state->model->children, state);
        Thread & thread = *state->thread;
        return runOn<std::shared_ptr<SamplerState>>(
            env, thread,
            AbortFlag::unlessAborted(
                info[2],
                [state, request] {
                    state->build(std::move(*request));
                    return state;
                }
            ),
            [seed = request->params.seed](Napi::Env env, std::shared_ptr<SamplerState> & made) -> Napi::Value {
                Napi::Object sampler = Environment::of(env).samplerClass.New(
                    {Napi::External<std::shared_ptr<SamplerState>>::New(env, &made)}
                );
                sampler.Set("seed", Napi::Number::New(env, seed));
                return sampler;
            }
        );
    });
}

Napi::Value Sampler::accept(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        const std::vector<int32_t> tokens = guard::int32s(info[0], "tokens");
        for (const int32_t token : tokens) {
            if (token < 0 || token >= state_->vocabularySize) {
                throw Failure(
                    "TOKEN_OUT_OF_RANGE", "Expected token ids from 0 to " + std::to_string(state_->vocabularySize - 1) +
                                              ", got " + std::to_string(token)
                );
            }
        }
        auto lease = std::make_shared<SamplerLease>(state_);
        return runOn<bool>(
            env, *state_->thread, leasedWork(lease, [lease, tokens] { (*lease)->accept(tokens); }), untilSettled(lease)
        );
    });
}

Napi::Value Sampler::reset(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto lease = std::make_shared<SamplerLease>(state_);
        return runOn<bool>(
            env, *state_->thread, leasedWork(lease, [lease] { (*lease)->rebuild(); }), untilSettled(lease)
        );
    });
}

Napi::Value Sampler::close(const Napi::CallbackInfo & info) {
    return guard::call(info.Env(), [&]() -> Napi::Value {
        // If a call still uses the sampler, the lease of that call releases the sampler when the call ends.
        if (!state_->closed.exchange(true) && !state_->busy.exchange(true)) {
            releaseLater(state_);
        }
        return info.Env().Undefined();
    });
}

Napi::Value Sampler::failure(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        const auto failure = state_->failure();
        return failure ? errorFrom(env, *failure) : env.Null();
    });
}

void Sampler::define(Napi::Env env, Napi::Object exports) {
    Napi::Function type = DefineClass(
        env, "Sampler",
        {StaticMethod<&Sampler::create>("create"), InstanceMethod<&Sampler::accept>("accept"),
         InstanceMethod<&Sampler::reset>("reset"), InstanceMethod<&Sampler::close>("close"),
         InstanceMethod<&Sampler::failure>("failure")}
    );
    Environment::of(env).samplerClass = Napi::Persistent(type);
    exports.Set("Sampler", type);
}

Napi::Value Context::logProbabilities(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        auto state = open();
        const auto row = (int32_t) guard::integer(info[0], "row", 0, state->batchSize - 1);
        const auto count = (size_t) guard::integer(info[1], "count", 1, state->vocabularySize);
        return runOn<LogProbabilities>(
            env, *state->thread,
            [state, row, count] { return logProbabilitiesOf(logitsOfRow(*state, row), state->vocabularySize, count); },
            logProbabilitiesObject
        );
    });
}

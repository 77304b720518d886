// A thread that runs a queue of jobs, and the promises that these jobs settle. Each model and each context owns one
// thread. Up to three more threads serve the whole process: one reads files, one writes files, and one converts JSON
// Schemas (schema.cpp).
//
// Lifetimes: a Thread keeps itself alive until stop() was called and its queue is empty. Jobs hold shared_ptrs to
// native state and never a JavaScript handle, so a job may outlive the object that posted it, and even the environment.
#pragma once

#include "guards.h"
#include "weak-list.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

// A message from another thread to the JavaScript thread. The JavaScript thread calls receive().
struct Message {
    virtual ~Message() = default;
    virtual void receive(Napi::Env env) = 0;
};

// Delivers messages to one JavaScript environment. Other threads may use it at any time, even after the environment has
// ended.
class Inbox {
  public:
    explicit Inbox(Napi::Env env);

    // These two functions count the open promises. They run on the JavaScript thread. The process stays alive while a
    // promise is open.
    void promiseOpened();
    void promiseSettled();

    // Any thread may call this function. After close(), the message is dropped.
    void deliver(std::shared_ptr<Message> message);
    // Any thread may call this function. It wakes the JavaScript thread early, for a message that follows within
    // microseconds, because a sleeping thread takes about 50 us to wake. It does nothing if the JavaScript thread last
    // ran on the caller's core: the JavaScript thread would wake on that core and interrupt the caller.
    void wake();
    void close();

  private:
    static void drain(napi_env env, napi_value, void * context, void *);

    std::mutex mutex_;
    std::vector<std::shared_ptr<Message>> waiting_;
    napi_threadsafe_function wake_ = nullptr;
    napi_env env_ = nullptr;
    size_t openPromises_ = 0;
    bool closed_ = false;
    std::atomic<int> core_{-1};  // the core on which JavaScript ran last
};

class Thread : public std::enable_shared_from_this<Thread> {
  public:
    // `interrupt` asks the running job, such as a decode or a model load, to end early. Any thread may call
    // `interrupt`. `spin` is the time for which the idle thread polls for another job before it sleeps. Polling helps
    // because waking a sleeping thread takes longer than a short job.
    static std::shared_ptr<Thread> start(
        size_t stackBytes, std::function<void()> interrupt = {}, std::chrono::microseconds spin = {}
    );

    // After stop(), drops the job and returns false.
    bool post(std::function<void()> job);

    // Lets the thread run the queued jobs and then end.
    void stop();

    void interrupt();
    bool stopped();
    // Waits until this thread has ended. If the process exits first, a call on the JavaScript thread returns, and a
    // call on another Thread parks that Thread.
    void waitUntilEnded();

    // Called when the process exits. No thread starts another job. Interrupts the running jobs and waits for them.
    // Returns false if a job still runs after `limitMs` milliseconds.
    static bool parkAll(int limitMs);
    static bool parking();

  private:
    Thread() = default;
    void run();
    void spin();
    [[noreturn]] void park();

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> queue_;
    std::function<void()> interrupt_;
    bool stopping_ = false;
    bool ended_ = false;
    std::atomic<bool> busy_{false};
    std::atomic<bool> wakeRequested_{false};  // makes spin() return: a job is queued, or the thread must end
    std::chrono::microseconds spin_{0};
};

// The objects that belong to one JavaScript environment (the main thread or a worker).
struct Environment {
    std::shared_ptr<Inbox> inbox;
    Napi::FunctionReference errorFactory;
    Napi::FunctionReference modelClass, contextClass, stateClass, samplerClass, loraClass, replyFormatClass, lockClass;
    std::vector<std::weak_ptr<Thread>> threads;

    // JavaScript functions by number. A job holds the number, because a reference to a function must never leave the
    // JavaScript thread.
    std::map<uint32_t, Napi::FunctionReference> callbacks;
    uint32_t lastCallback = 0;

    static Environment & of(Napi::Env env);
    void addThread(const std::shared_ptr<Thread> & thread);
    uint32_t addCallback(Napi::Function callback);
};

// Runs `work` on `thread`. The promise resolves with `convert(env, result)`, or rejects with the error that `work`
// threw. `callback` is a number from Environment::addCallback. It is released when the promise settles.
template <class Result> Napi::Value runOn(
    Napi::Env env,
    Thread & thread,
    std::function<Result()> work,
    std::function<Napi::Value(Napi::Env, Result &)> convert,
    uint32_t callback = 0
) {
    struct Job : Message {
        explicit Job(Napi::Env env) : deferred(Napi::Promise::Deferred::New(env)) {}

        void perform() {
            try {
                result.emplace(work());
            } catch (const Failure & error) {
                failure.emplace(error);
            } catch (const std::bad_alloc &) {
                failure.emplace("OUT_OF_MEMORY", "The process ran out of memory");
            } catch (const std::exception & error) {
                failure.emplace("INTERNAL", error.what());
            }
            work = nullptr;
        }

        void receive(Napi::Env env) override {
            inbox->promiseSettled();
            Environment::of(env).callbacks.erase(callback);
            if (result) {
                try {
                    deferred.Resolve(convert(env, *result));
                    return;
                } catch (const Failure & error) {
                    failure.emplace(error);
                } catch (const Napi::Error & error) {
                    deferred.Reject(error.Value());
                    return;
                }
            }
            if (failure) {
                deferred.Reject(errorFrom(env, *failure));
            }
        }

        std::shared_ptr<Inbox> inbox;
        Napi::Promise::Deferred deferred;
        std::function<Result()> work;
        std::function<Napi::Value(Napi::Env, Result &)> convert;
        std::optional<Result> result;
        std::optional<Failure> failure;
        uint32_t callback = 0;
    };

    auto job = std::make_shared<Job>(env);
    job->inbox = Environment::of(env).inbox;
    job->work = std::move(work);
    job->convert = std::move(convert);
    job->callback = callback;
    Napi::Promise promise = job->deferred.Promise();

    job->inbox->promiseOpened();
    if (!thread.post([job] {
            job->perform();
            job->inbox->deliver(job);
        })) {
        job->failure.emplace("CLOSED", "Expected an open object, but it was closed");
        job->receive(env);
    }
    return promise;
}

// Returns the native object that a JavaScript object wraps. A type tag identifies the class, because JavaScript code
// can change what `instanceof` returns.
template <class Class> Class & unwrap(Napi::Value value, const char * what, const char * expected) {
    if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&Class::TAG)) {
        throw guard::invalid(what, expected, value);
    }
    return *Class::Unwrap(value.As<Napi::Object>());
}

// For the constructor of a class whose objects only the addon creates. Returns the native state that the addon passed
// to the constructor. Throws if JavaScript code called `new`.
template <class State>
State nativeState(const Napi::CallbackInfo & info, const napi_type_tag & tag, const char * howMade) {
    if (!info[0].IsExternal()) {
        throw Napi::Error(info.Env(), errorFrom(info.Env(), Failure("INVALID_ARGUMENT", howMade)));
    }
    info.This().As<Napi::Object>().TypeTag(&tag);
    return *info[0].As<Napi::External<State>>().Data();
}

// The two threads for files. They are separate so that a restore, which reads, never waits for a sync, which writes.
Thread & fileReader();
Thread & fileWriter();

// A flag that JavaScript sets when an AbortSignal aborts. Threads read the flag between two steps of their work.
class AbortFlag : public Napi::ObjectWrap<AbortFlag> {
  public:
    static constexpr napi_type_tag TAG = {0x6865616473746172, 0x61626f7274666c67};

    explicit AbortFlag(const Napi::CallbackInfo & info) : Napi::ObjectWrap<AbortFlag>(info) {
        info.This().As<Napi::Object>().TypeTag(&TAG);
    }

    static void define(Napi::Env env, Napi::Object exports);

    // Returns the flag that the argument wraps. If the argument is undefined, returns a flag that is never set.
    static std::shared_ptr<std::atomic<bool>> of(Napi::Value value);
    static std::shared_ptr<std::atomic<bool>> from(Napi::Object options) { return of(options.Get("abort")); }

    // Wraps `work`. If the argument's flag is already set when the wrapped function runs, it throws ABORTED instead of
    // running `work`.
    template <class Work> static auto unlessAborted(Napi::Value value, Work work) {
        return [flag = of(value), work = std::move(work)] {
            throwIfSet(*flag);
            return work();
        };
    }
    static void throwIfSet(const std::atomic<bool> & flag) {
        if (flag) {
            throw Failure("ABORTED", "The operation was aborted");
        }
    }

  private:
    void set(const Napi::CallbackInfo &) { flag_->store(true); }

    std::shared_ptr<std::atomic<bool>> flag_ = std::make_shared<std::atomic<bool>>(false);
};

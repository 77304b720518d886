// A thread with a queue and its promises. Models and contexts each own one; two more, for the whole process, do file I/O.
//
// Who lives how long: a Thread keeps itself alive until its queue is drained after stop(). Jobs hold shared_ptrs to native
// state and never a JavaScript handle, so they may outlive the objects, and even the environment, that posted them.
#pragma once

#include "guards.h"

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

// What waits to happen on the JavaScript thread.
struct Delivery {
    virtual ~Delivery() = default;
    virtual void arrive(Napi::Env env) = 0;
};

// The way back into one JavaScript environment, for any thread at any time, before and after its end.
class Inbox {
  public:
    explicit Inbox(Napi::Env env);

    // JavaScript thread: one more promise is open (the process stays alive for it), or one less.
    void open();
    void settle();

    // Any thread. After close() the delivery is dropped.
    void deliver(std::shared_ptr<Delivery> delivery);
    // Any thread: a delivery follows within microseconds. A thread that sleeps takes some 50 of them to wake. Not one that fell
    // asleep on the caller's core: it would be put there again, and stop who is about to deliver.
    void wake();
    void close();

  private:
    static void drain(napi_env env, napi_value, void * context, void *);

    std::mutex mutex_;
    std::vector<std::shared_ptr<Delivery>> waiting_;
    napi_threadsafe_function wake_ = nullptr;
    napi_env env_ = nullptr;
    size_t open_ = 0;
    bool closed_ = false;
    std::atomic<int> core_{-1};  // where JavaScript ran last
};

class Thread : public std::enable_shared_from_this<Thread> {
  public:
    // `interrupt` may be called from any thread: it asks the job that runs to end early (a decode, a model load).
    // `linger`: how long it looks for the next job before it sleeps, where jobs follow each other sooner than a thread wakes.
    static std::shared_ptr<Thread> start(
        size_t stackBytes, std::function<void()> interrupt = {}, std::chrono::microseconds linger = {}
    );

    // False after stop().
    bool post(std::function<void()> job);

    // Ends after the jobs already queued.
    void stop();

    void interrupt();
    bool stopped();
    // Or until the process is exiting: then it returns to JavaScript's thread, and parks any other.
    void waitUntilEnded();

    // At process exit: no thread takes another job; those that run one are interrupted and waited for, with a time limit.
    // Whether all were found in time.
    static bool parkAll(int limitMs);
    static bool parking();

  private:
    Thread() = default;
    void run();
    void linger();
    void park();

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> queue_;
    std::function<void()> interrupt_;
    bool stopping_ = false;
    bool ended_ = false;
    std::atomic<bool> busy_{false};
    std::atomic<bool> wanted_{false};  // something is queued, or it shall end: for who lingers
    std::chrono::microseconds linger_{0};
};

// What one environment (the main thread or a worker) owns: its inbox, its error factory and the threads it started.
struct Environment {
    std::shared_ptr<Inbox> inbox;
    Napi::FunctionReference errorFactory;
    Napi::FunctionReference modelClass, contextClass, stateClass, samplerClass, loraClass, replyFormatClass, lockClass;
    std::vector<std::weak_ptr<Thread>> threads;

    // JavaScript functions that jobs refer to by number: a reference itself must never leave this thread.
    std::map<uint32_t, Napi::FunctionReference> callbacks;
    uint32_t lastCallback = 0;

    static Environment & of(Napi::Env env);
    void adopt(const std::shared_ptr<Thread> & thread);
    uint32_t keep(Napi::Function callback);
};

// Runs `work` on `thread` and settles the promise with `convert(env, result)`, or rejects it with what `work` threw.
// `callback` is a number that Environment::keep gave: it is let go when the promise settles.
template <class Result> Napi::Value runOn(
    Napi::Env env,
    Thread & thread,
    std::function<Result()> work,
    std::function<Napi::Value(Napi::Env, Result &)> convert,
    uint32_t callback = 0
) {
    struct Job : Delivery {
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

        void arrive(Napi::Env env) override {
            inbox->settle();
            Environment::of(env).callbacks.erase(callback);
            if (!failure) {
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
            deferred.Reject(errorFrom(env, *failure));
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

    job->inbox->open();
    if (!thread.post([job] {
            job->perform();
            job->inbox->deliver(job);
        })) {
        job->failure.emplace("CLOSED", "Expected an open object, but it was closed");
        job->arrive(env);
    }
    return promise;
}

// The native object behind a JavaScript one. The tag is what tells our classes from others, and from one another:
// `instanceof` believes whatever a prototype says.
template <class Class> Class & unwrap(Napi::Value value, const char * what, const char * expected) {
    if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&Class::TAG)) {
        throw guard::invalid(what, expected, value);
    }
    return *Class::Unwrap(value.As<Napi::Object>());
}

// The two threads for files: a restore on the reader never waits for a sync on the writer.
Thread & fileReader();
Thread & fileWriter();

// Set by JavaScript (an AbortSignal fired), read by a thread between two pieces of work.
class AbortFlag : public Napi::ObjectWrap<AbortFlag> {
  public:
    static constexpr napi_type_tag TAG = {0x6865616473746172, 0x61626f7274666c67};

    explicit AbortFlag(const Napi::CallbackInfo & info) : Napi::ObjectWrap<AbortFlag>(info) {
        info.This().As<Napi::Object>().TypeTag(&TAG);
    }

    static void define(Napi::Env env, Napi::Object exports);

    // The flag that was given, or one that nobody sets; of an options object that in its `abort` field.
    static std::shared_ptr<std::atomic<bool>> of(Napi::Value given);
    static std::shared_ptr<std::atomic<bool>> from(Napi::Object options) { return of(options.Get("abort")); }

    // `work`, which does not begin where the flag that was given is set by then.
    template <class Work> static auto heeded(Napi::Value given, Work work) {
        return [flag = of(given), work = std::move(work)] {
            require(*flag);
            return work();
        };
    }
    // Throws ABORTED where it is set.
    static void require(const std::atomic<bool> & flag) {
        if (flag) {
            throw Failure("ABORTED", "The operation was aborted");
        }
    }

  private:
    void set(const Napi::CallbackInfo &) { flag_->store(true); }

    std::shared_ptr<std::atomic<bool>> flag_ = std::make_shared<std::atomic<bool>>(false);
};

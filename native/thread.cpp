#include "thread.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <thread>

#ifdef _WIN32
#include <process.h>
#include <windows.h>
#else
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#endif

namespace {

// -1 where nobody tells.
int thisCore() {
#ifdef __linux__
    return sched_getcpu();
#else
    return -1;
#endif
}

}  // namespace

// --- Inbox -----------------------------------------------------------------------------------------------------------

Inbox::Inbox(Napi::Env env) : env_(env) {
    napi_value name = Napi::String::New(env, "llama-headstart");
    if (napi_create_threadsafe_function(
            env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, &Inbox::drain, &wake_
        ) != napi_ok) {
        throw Failure("INTERNAL", "Node-API refused a thread-safe function");
    }
    napi_unref_threadsafe_function(env, wake_);
}

void Inbox::open() {
    core_ = thisCore();
    if (open_++ == 0) {
        napi_ref_threadsafe_function(env_, wake_);
    }
}

void Inbox::settle() {
    if (--open_ == 0) {
        napi_unref_threadsafe_function(env_, wake_);
    }
}

void Inbox::deliver(std::shared_ptr<Delivery> delivery) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closed_ || Thread::parking()) {
        return;
    }
    waiting_.push_back(std::move(delivery));
    napi_call_threadsafe_function(wake_, nullptr, napi_tsfn_nonblocking);
}

void Inbox::wake() {
    if (core_ == thisCore() && core_ >= 0) {
        return;
    }
    std::lock_guard<std::mutex> lock(mutex_);
    if (!closed_ && !Thread::parking()) {
        napi_call_threadsafe_function(wake_, nullptr, napi_tsfn_nonblocking);
    }
}

void Inbox::close() {
    std::vector<std::shared_ptr<Delivery>> dropped;  // behind the lock: what they hold may log while it goes
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    dropped.swap(waiting_);
}

void Inbox::drain(napi_env env, napi_value, void * context, void *) {
    if (env == nullptr) {
        return;
    }
    Inbox & inbox = *static_cast<Inbox *>(context);
    std::vector<std::shared_ptr<Delivery>> arrived;
    {
        std::lock_guard<std::mutex> lock(inbox.mutex_);
        arrived.swap(inbox.waiting_);
    }
    for (auto & delivery : arrived) {
        Napi::HandleScope scope(env);
        try {
            delivery->arrive(env);
        } catch (const std::exception &) {
            // The environment is being torn down: nobody is left to hear it.
        }
    }
}

// --- Thread ----------------------------------------------------------------------------------------------------------

namespace {

// On the heap for good: threads may outlive the statics' destructors.
struct Registry {
    std::mutex mutex;
    std::set<Thread *> threads;
    std::atomic<bool> parking{false};
};

Registry & registry() {
    static Registry * instance = new Registry;
    return *instance;
}

struct Start {
    std::function<void()> body;
};

// Null on JavaScript's threads.
thread_local Thread * current = nullptr;

// With address checks a frame is several times larger. Stacks are committed as used.
#ifdef __SANITIZE_ADDRESS__
constexpr size_t STACK_FACTOR = 16;
#else
constexpr size_t STACK_FACTOR = 1;
#endif

#ifdef _WIN32
unsigned __stdcall enter(void * argument) {
    std::unique_ptr<Start> start(static_cast<Start *>(argument));
    start->body();
    return 0;
}
#else
void * enter(void * argument) {
    std::unique_ptr<Start> start(static_cast<Start *>(argument));
    start->body();
    return nullptr;
}
#endif

// std::thread cannot be given a stack size.
void startDetached(size_t stackBytes, std::function<void()> body) {
    auto start = std::make_unique<Start>(Start{std::move(body)});
#ifdef _WIN32
    const uintptr_t handle =
        _beginthreadex(nullptr, (unsigned) stackBytes, enter, start.get(), STACK_SIZE_PARAM_IS_A_RESERVATION, nullptr);
    const bool failed = handle == 0;
    if (!failed) {
        CloseHandle((HANDLE) handle);
    }
#else
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, stackBytes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    // Signals are Node's business: block them here, so that none is delivered to a thread that Node does not know.
    sigset_t all, before;
    sigfillset(&all);
    // But for those of the thread's own faults: blocked they end the process too, without a word from who reports crashes.
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) {
        sigdelset(&all, fault);
    }
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pthread_t id;
    const bool failed = pthread_create(&id, &attributes, enter, start.get()) != 0;
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_attr_destroy(&attributes);
#endif
    if (failed) {
        throw Failure("OUT_OF_MEMORY", "The system refused to start a thread");
    }
    start.release();
}

}  // namespace

std::shared_ptr<Thread> Thread::start(
    size_t stackBytes, std::function<void()> interrupt, std::chrono::microseconds linger
) {
    std::shared_ptr<Thread> thread(new Thread);
    stackBytes *= STACK_FACTOR;
    thread->interrupt_ = std::move(interrupt);
    thread->linger_ = std::thread::hardware_concurrency() > 1 ? linger : std::chrono::microseconds(0);
    startDetached(stackBytes, [thread] { thread->run(); });
    return thread;
}

void Thread::run() {
    current = this;
    {
        std::lock_guard<std::mutex> lock(registry().mutex);
        registry().threads.insert(this);
    }
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
        changed_.wait(lock, [this] { return !queue_.empty() || stopping_; });
        if (queue_.empty()) {
            break;
        }
        std::function<void()> job = std::move(queue_.front());
        queue_.pop_front();
        busy_ = true;
        lock.unlock();
        if (registry().parking) {
            new std::function<void()>(std::move(job));
            park();
        }
        job();
        job = nullptr;
        busy_ = false;
        linger();
        lock.lock();
    }
    lock.unlock();
    {
        std::lock_guard<std::mutex> guard(registry().mutex);
        registry().threads.erase(this);
    }
    lock.lock();
    ended_ = true;
    changed_.notify_all();
}

// The process is exiting: statics that jobs use may be gone already. Never returns, never frees.
void Thread::park() {
    busy_ = false;
    for (;;) {
        std::this_thread::sleep_for(std::chrono::hours(1));
    }
}

void Thread::linger() {
    const auto limit = std::chrono::steady_clock::now() + linger_;
    {
        std::lock_guard<std::mutex> lock(mutex_);
        wanted_ = !queue_.empty() || stopping_;
    }
    while (!wanted_ && std::chrono::steady_clock::now() < limit) {
        std::this_thread::yield();  // to JavaScript, where the scheduler woke it on this core
    }
}

bool Thread::post(std::function<void()> job) {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        if (stopping_) {
            return false;
        }
        queue_.push_back(std::move(job));
    }
    changed_.notify_all();
    wanted_ = true;  // last: who lingers would wait for the lock
    return true;
}

void Thread::stop() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stopping_ = true;
    }
    changed_.notify_all();
    wanted_ = true;
}

bool Thread::stopped() {
    std::lock_guard<std::mutex> lock(mutex_);
    return stopping_;
}

void Thread::interrupt() {
    if (interrupt_) {
        interrupt_();
    }
}

void Thread::waitUntilEnded() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return ended_ || registry().parking; });
    if (!ended_ && current != nullptr) {  // the other may be parked, and never end
        lock.unlock();
        current->park();
    }
}

bool Thread::parkAll(int limitMs) {
    registry().parking = true;
    const auto limit = std::chrono::steady_clock::now() + std::chrono::milliseconds(limitMs);
    for (;;) {
        bool busy = false;
        {
            std::lock_guard<std::mutex> lock(registry().mutex);
            for (Thread * thread : registry().threads) {
                // Who waits for its end; the lock, or the news could come between their look and their sleep.
                thread->mutex_.lock();
                thread->mutex_.unlock();
                thread->changed_.notify_all();
                if (thread->busy_) {
                    busy = true;
                    thread->interrupt();
                }
            }
        }
        if (!busy || std::chrono::steady_clock::now() > limit) {
            return !busy;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

bool Thread::parking() { return registry().parking; }

Thread & fileReader() {
    static std::shared_ptr<Thread> * thread = new std::shared_ptr<Thread>(Thread::start(1 << 20));
    return **thread;
}

Thread & fileWriter() {
    static std::shared_ptr<Thread> * thread = new std::shared_ptr<Thread>(Thread::start(1 << 20));
    return **thread;
}

// --- Environment -----------------------------------------------------------------------------------------------------

Environment & Environment::of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

void Environment::adopt(const std::shared_ptr<Thread> & thread) {
    threads.erase(
        std::remove_if(threads.begin(), threads.end(), [](auto & known) { return known.expired(); }), threads.end()
    );
    threads.push_back(thread);
}

uint32_t Environment::keep(Napi::Function callback) {
    callbacks[++lastCallback] = Napi::Persistent(callback);
    return lastCallback;
}

Napi::Value errorFrom(Napi::Env env, const Failure & failure) {
    Environment & environment = Environment::of(env);
    const Napi::String message = Napi::String::New(env, failure.what());
    if (environment.errorFactory.IsEmpty()) {
        Napi::Error error = Napi::Error::New(env, failure.what());
        error.Set("code", Napi::String::New(env, failure.code));
        return error.Value();
    }
    Napi::Array sequences = Napi::Array::New(env);
    for (int32_t sequence : failure.sequences) {
        sequences.Set(sequences.Length(), Napi::Number::New(env, sequence));
    }
    return environment.errorFactory.Call({Napi::String::New(env, failure.code), message, sequences});
}

// --- AbortFlag -------------------------------------------------------------------------------------------------------

void AbortFlag::define(Napi::Env env, Napi::Object exports) {
    Napi::Function type = DefineClass(env, "AbortFlag", {InstanceMethod<&AbortFlag::set>("set")});
    exports.Set("AbortFlag", type);
}

std::shared_ptr<std::atomic<bool>> AbortFlag::of(Napi::Value given) {
    if (given.IsUndefined()) {
        return std::make_shared<std::atomic<bool>>(false);
    }
    return unwrap<AbortFlag>(given, "abort", "an AbortFlag").flag_;
}

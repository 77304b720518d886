#include "thread.h"

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

// Returns the number of the core that runs this thread, or -1 if the system does not report it.
int currentCore() {
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

void Inbox::promiseOpened() {
    core_ = currentCore();
    if (openPromises_++ == 0) {
        napi_ref_threadsafe_function(env_, wake_);
    }
}

void Inbox::promiseSettled() {
    if (--openPromises_ == 0) {
        napi_unref_threadsafe_function(env_, wake_);
    }
}

void Inbox::deliver(std::shared_ptr<Message> message) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closed_ || Thread::parking()) {
        return;
    }
    waiting_.push_back(std::move(message));
    napi_call_threadsafe_function(wake_, nullptr, napi_tsfn_nonblocking);
}

void Inbox::wake() {
    if (core_ == currentCore() && core_ >= 0) {
        return;
    }
    std::lock_guard<std::mutex> lock(mutex_);
    if (!closed_ && !Thread::parking()) {
        napi_call_threadsafe_function(wake_, nullptr, napi_tsfn_nonblocking);
    }
}

void Inbox::close() {
    // Declared before the lock, so that the messages are destroyed after the lock is released: their destructors may
    // log, and logging takes the lock.
    std::vector<std::shared_ptr<Message>> dropped;
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    dropped.swap(waiting_);
}

void Inbox::drain(napi_env env, napi_value, void * context, void *) {
    if (env == nullptr) {
        return;
    }
    Inbox & inbox = *static_cast<Inbox *>(context);
    std::vector<std::shared_ptr<Message>> messages;
    {
        std::lock_guard<std::mutex> lock(inbox.mutex_);
        messages.swap(inbox.waiting_);
    }
    for (auto & message : messages) {
        Napi::HandleScope scope(env);
        try {
            message->receive(env);
        } catch (const std::exception &) {  // NOLINT(bugprone-empty-catch)
            // The environment is ending: no JavaScript code can receive the error.
        }
    }
}

// --- Thread ----------------------------------------------------------------------------------------------------------

namespace {

// The instance is never freed, because threads may still use it after static objects are destroyed.
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

// The Thread object of the thread that runs this code. Null on JavaScript threads.
thread_local Thread * current = nullptr;

// With the address sanitizer, a stack frame is several times larger. A large stack costs nothing until it is used.
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

// Does not use std::thread, because std::thread has no option for the size of the stack.
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
    // Blocks signals, so that the system never delivers one to a thread that Node.js does not know.
    sigset_t all, before;
    sigfillset(&all);
    // The signals for faults of the thread itself stay unblocked. A blocked fault would end the process before a crash
    // reporter can run.
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
    (void) start.release();  // enter() owns it now
}

}  // namespace

std::shared_ptr<Thread> Thread::start(
    size_t stackBytes, std::function<void()> interrupt, std::chrono::microseconds spin
) {
    std::shared_ptr<Thread> thread(new Thread);
    stackBytes *= STACK_FACTOR;
    thread->interrupt_ = std::move(interrupt);
    thread->spin_ = std::thread::hardware_concurrency() > 1 ? spin : std::chrono::microseconds(0);
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
            // This copy is never freed, because its destructor could use destroyed static objects.
            new std::function<void()>(std::move(job));
            park();
        }
        job();
        job = nullptr;
        busy_ = false;
        spin();
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

// Never returns. The process is exiting, and the static objects that jobs use may already be destroyed.
void Thread::park() {
    busy_ = false;
    for (;;) {
        std::this_thread::sleep_for(std::chrono::hours(1));
    }
}

void Thread::spin() {
    const auto limit = std::chrono::steady_clock::now() + spin_;
    {
        std::lock_guard<std::mutex> lock(mutex_);
        wakeRequested_ = !queue_.empty() || stopping_;
    }
    while (!wakeRequested_ && std::chrono::steady_clock::now() < limit) {
        std::this_thread::yield();  // lets the JavaScript thread run, if the scheduler woke it on this core
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
    wakeRequested_ = true;  // set after the lock is released, because a spinning thread takes the lock next
    return true;
}

void Thread::stop() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stopping_ = true;
    }
    changed_.notify_all();
    wakeRequested_ = true;
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
    if (!ended_ && current != nullptr) {  // the other thread may be parked and never end
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
                // Wakes the threads that wait in waitUntilEnded(). Taking the lock first ensures that none of them is
                // between its check and its sleep.
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

void Environment::addThread(const std::shared_ptr<Thread> & thread) { addWeak(threads, thread); }

uint32_t Environment::addCallback(Napi::Function callback) {
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

std::shared_ptr<std::atomic<bool>> AbortFlag::of(Napi::Value value) {
    if (value.IsUndefined()) {
        return std::make_shared<std::atomic<bool>>(false);
    }
    return unwrap<AbortFlag>(value, "abort", "an AbortFlag").flag_;
}

// A file lock that only one owner in all processes can hold. It uses flock(), or LockFileEx() on Windows. The kernel
// releases the lock when the process of its owner ends in any way.
#pragma once

#include "thread.h"

#include <memory>
#include <string>

// An open file that is locked while this object exists.
class LockedFile {
  public:
    // Creates the file with mode 0600 if it is missing. Returns null if another owner holds the lock. Throws DISK_FULL,
    // WRITE_FAILED, or LOCK_UNSUPPORTED if the file system has no reliable locks.
    static std::shared_ptr<LockedFile> tryLock(const std::string & path);

    ~LockedFile();
    LockedFile(const LockedFile &) = delete;

  private:
    explicit LockedFile(intptr_t handle) : handle_(handle) {}

    const intptr_t handle_;  // a descriptor, or a HANDLE
};

class FileLock : public Napi::ObjectWrap<FileLock> {
  public:
    static constexpr napi_type_tag TAG = {0x6865616473746172, 0x66696c656c6f636b};

    explicit FileLock(const Napi::CallbackInfo & info);

    static void define(Napi::Env env, Napi::Object exports);

  private:
    static Napi::Value tryAcquire(const Napi::CallbackInfo & info);

    Napi::Value release(const Napi::CallbackInfo & info);
    Napi::Value held(const Napi::CallbackInfo & info);

    std::shared_ptr<LockedFile> file_;
};

// A lock between processes, and between owners in one process: `flock`, which the kernel releases when its owner dies
// in any way.
#pragma once

#include "thread.h"

#include <memory>
#include <string>

// An open file that is locked while this object exists.
class LockedFile {
  public:
    // Creates the file (0600) if it is missing. Null if another owner holds the lock. Throws LOCK_UNSUPPORTED if the
    // file system has no reliable locks, DISK_FULL, WRITE_FAILED.
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

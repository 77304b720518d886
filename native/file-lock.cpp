#include "file-lock.h"

#include <cerrno>
#include <cstring>
#include <utility>

#ifdef _WIN32
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/vfs.h>
#else
#include <sys/mount.h>
#include <sys/param.h>
#endif
#endif

namespace {

Failure unsupported(const std::string & path, const std::string & why) {
    return Failure("LOCK_UNSUPPORTED", "The file system of \"" + path + "\" has no reliable locks: " + why);
}

#ifdef _WIN32

std::wstring wide(const std::string & text) {
    std::wstring result((size_t) MultiByteToWideChar(CP_UTF8, 0, text.data(), (int) text.size(), nullptr, 0), L'\0');
    MultiByteToWideChar(CP_UTF8, 0, text.data(), (int) text.size(), result.data(), (int) result.size());
    return result;
}

// Returns null if another owner holds the lock. CreateFileW gets no security attributes, so child processes do not
// inherit the handle.
HANDLE lockAt(const std::string & path) {
    const HANDLE file = CreateFileW(
        wide(path).c_str(), GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
        nullptr, OPEN_ALWAYS, FILE_ATTRIBUTE_NORMAL | FILE_FLAG_OPEN_REPARSE_POINT, nullptr
    );
    if (file == INVALID_HANDLE_VALUE) {
        throw Failure(
            GetLastError() == ERROR_DISK_FULL ? "DISK_FULL" : "WRITE_FAILED",
            "Could not open the lock file \"" + path + "\": Windows error " + std::to_string(GetLastError())
        );
    }
    FILE_REMOTE_PROTOCOL_INFO remote;
    if (GetFileInformationByHandleEx(file, FileRemoteProtocolInfo, &remote, sizeof(remote))) {
        CloseHandle(file);
        throw unsupported(path, "it is on another machine");
    }
    OVERLAPPED whole{};
    if (LockFileEx(file, LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY, 0, MAXDWORD, MAXDWORD, &whole)) {
        return file;
    }
    const DWORD error = GetLastError();
    CloseHandle(file);
    if (error == ERROR_LOCK_VIOLATION || error == ERROR_IO_PENDING) {
        return nullptr;
    }
    throw unsupported(path, "Windows error " + std::to_string(error));
}

#else

// If another process replaces the file between open() and flock(), lockAt() makes another attempt with the new file.
constexpr int MAX_ATTEMPTS = 100;

// Closes a file descriptor, unless take() was called.
struct Descriptor {
    int value;
    ~Descriptor() {
        if (value >= 0) {
            ::close(value);
        }
    }
    int take() { return std::exchange(value, -1); }
};

// Whether the file system is on another machine. The locks of such a file system depend on a server: a call may wait
// long, and a lock may outlive a dead client.
bool isRemote(int fd) {
    struct statfs system;
    if (fstatfs(fd, &system) != 0) {
        return false;
    }
#ifdef __linux__
    switch ((uint32_t) system.f_type) {
        case 0x6969:      // NFS
        case 0x517b:      // SMB
        case 0xff534d42:  // CIFS
        case 0xfe534d42:  // SMB2
        case 0x01021997:  // 9P
        case 0x00c36400:  // Ceph
        case 0x5346414f:  // OpenAFS
        case 0x6b414653:  // the AFS client of the Linux kernel
        case 0x0bd00bd0:  // Lustre
        case 0x47504653:  // GPFS
            return true;
        default: return false;
    }
#else
    return (system.f_flags & MNT_LOCAL) == 0;
#endif
}

int openLockFile(const std::string & path) {
    // O_CLOEXEC: a child process that inherits the descriptor would keep the lock. O_NONBLOCK: opening a FIFO must not
    // wait for another process.
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd < 0) {
        const bool full = errno == ENOSPC || errno == EDQUOT;
        throw Failure(
            full ? "DISK_FULL" : "WRITE_FAILED",
            "Could not open the lock file \"" + path + "\": " + std::strerror(errno)
        );
    }
    return fd;
}

// Returns false if another owner holds the lock.
bool lock(int fd, const std::string & path) {
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            return false;
        }
        if (errno != EINTR) {
            throw unsupported(path, std::strerror(errno));
        }
    }
    return true;
}

bool isStillAt(int fd, const std::string & path) {
    struct stat opened, named;
    return fstat(fd, &opened) == 0 && ::stat(path.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
           opened.st_dev == named.st_dev;
}

// Returns -1 if another owner holds the lock. If the file was removed or replaced before it was locked, its lock
// protects nothing. The function then locks the file that is now at the path.
int lockAt(const std::string & path) {
    for (int attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
        Descriptor file{openLockFile(path)};
        struct stat status;
        if (fstat(file.value, &status) != 0 || !S_ISREG(status.st_mode)) {
            throw Failure("WRITE_FAILED", "Expected a regular file to lock at \"" + path + "\"");
        }
        if (isRemote(file.value)) {
            throw unsupported(path, "it is on another machine");
        }
        if (!lock(file.value, path)) {
            return -1;
        }
        if (isStillAt(file.value, path)) {
            return file.take();
        }
    }
    return -1;
}

#endif

}  // namespace

std::shared_ptr<LockedFile> LockedFile::tryLock(const std::string & path) {
#ifdef _WIN32
    const HANDLE file = lockAt(path);
    return file ? std::shared_ptr<LockedFile>(new LockedFile((intptr_t) file)) : nullptr;
#else
    const int fd = lockAt(path);
    return fd >= 0 ? std::shared_ptr<LockedFile>(new LockedFile(fd)) : nullptr;
#endif
}

LockedFile::~LockedFile() {
#ifdef _WIN32
    OVERLAPPED whole{};
    UnlockFileEx((HANDLE) handle_, 0, MAXDWORD, MAXDWORD, &whole);
    CloseHandle((HANDLE) handle_);
#else
    // Closing alone may not release the lock: a child process between fork and exec has the descriptor too, and would
    // keep the lock until exec.
    flock((int) handle_, LOCK_UN);
    ::close((int) handle_);
#endif
}

// --- JavaScript ------------------------------------------------------------------------------------------------------

FileLock::FileLock(const Napi::CallbackInfo & info)
    : Napi::ObjectWrap<FileLock>(info),
      file_(nativeState<std::shared_ptr<LockedFile>>(info, TAG, "File locks are made by FileLock.tryAcquire()")) {}

Napi::Value FileLock::tryAcquire(const Napi::CallbackInfo & info) {
    Napi::Env env = info.Env();
    return guard::call(env, [&]() -> Napi::Value {
        const std::string path = guard::path(info[0], "path");
        // The reader thread takes the lock, because no job of that thread waits for a sync.
        return runOn<std::shared_ptr<LockedFile>>(
            env, fileReader(), [path] { return LockedFile::tryLock(path); },
            [](Napi::Env env, std::shared_ptr<LockedFile> & file) -> Napi::Value {
                if (!file) {
                    return env.Null();
                }
                Napi::Value lock =
                    Environment::of(env).lockClass.New({Napi::External<std::shared_ptr<LockedFile>>::New(env, &file)});
                file.reset();  // the job lives a moment longer, but only the JavaScript object may hold the lock
                return lock;
            }
        );
    });
}

Napi::Value FileLock::release(const Napi::CallbackInfo & info) {
    file_.reset();
    return info.Env().Undefined();
}

Napi::Value FileLock::held(const Napi::CallbackInfo & info) { return Napi::Boolean::New(info.Env(), file_ != nullptr); }

void FileLock::define(Napi::Env env, Napi::Object exports) {
    Napi::Function type = DefineClass(
        env, "FileLock",
        {StaticMethod<&FileLock::tryAcquire>("tryAcquire"), InstanceMethod<&FileLock::release>("release"),
         InstanceMethod<&FileLock::held>("held")}
    );
    Environment::of(env).lockClass = Napi::Persistent(type);
    exports.Set("FileLock", type);
}

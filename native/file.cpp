#include "file.h"

#include "guards.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#ifdef _WIN32
#include <io.h>
#else
#include <unistd.h>
#endif

namespace {

constexpr size_t MAX_CALL_BYTES = 1 << 30;  // one system call reads or writes at most this many bytes

Failure readFailure(const std::string & path) {
    return Failure("READ_FAILED", "Could not read \"" + path + "\": " + std::strerror(errno));
}

Failure writeFailure(const std::string & path) {
    const bool full = errno == ENOSPC || errno == EDQUOT;
    return Failure(full ? "DISK_FULL" : "WRITE_FAILED", "Could not write \"" + path + "\": " + std::strerror(errno));
}

Failure notRegular(const std::string & path, const char * what) {
    return Failure("ENTRY_CORRUPT", "Expected a regular file at \"" + path + "\", got " + what);
}

}  // namespace

File File::openToRead(const std::string & path, Links links) {
#ifdef _WIN32
    (void) links;
    const int fd = _open(path.c_str(), _O_RDONLY | _O_BINARY | _O_NOINHERIT);
#else
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | (links == Links::refused ? O_NOFOLLOW : 0));
#endif
    if (fd < 0) {
        if (errno == ENOENT) {
            throw Failure("ENTRY_MISSING", "Expected a file at \"" + path + "\", but nothing is there");
        }
        if (errno == ELOOP) {
            throw notRegular(path, "a symbolic link");
        }
        throw readFailure(path);
    }
    File file(fd, path);
    file.size();
    return file;
}

File File::create(const std::string & path) {
#ifdef _WIN32
    const int fd = _open(path.c_str(), _O_WRONLY | _O_CREAT | _O_EXCL | _O_BINARY | _O_NOINHERIT, _S_IREAD | _S_IWRITE);
#else
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
#endif
    if (fd < 0) {
        throw writeFailure(path);
    }
    return File(fd, path);
}

File::File(File && other) noexcept : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}

void File::close() {
    if (fd_ >= 0) {
        ::close(std::exchange(fd_, -1));
    }
}

uint64_t File::size() const {
#ifdef _WIN32
    struct _stat64 status;
    const bool succeeded = _fstat64(fd_, &status) == 0;
#else
    struct stat status;
    const bool succeeded = fstat(fd_, &status) == 0;
#endif
    if (!succeeded) {
        throw readFailure(path_);
    }
    if ((status.st_mode & S_IFMT) != S_IFREG) {
        throw notRegular(path_, "a directory, FIFO or device");
    }
    return (uint64_t) status.st_size;
}

void File::seek(uint64_t position) const {
#ifdef _WIN32
    const bool moved = _lseeki64(fd_, (int64_t) position, SEEK_SET) >= 0;
#else
    const bool moved = lseek(fd_, (off_t) position, SEEK_SET) >= 0;
#endif
    if (!moved) {
        throw readFailure(path_);
    }
}

size_t File::read(uint8_t * to, size_t count) const {
    size_t done = 0;
    while (done < count) {
        const auto readBytes = ::read(fd_, to + done, (unsigned) std::min(count - done, MAX_CALL_BYTES));
        if (readBytes < 0 && errno == EINTR) {
            continue;
        }
        if (readBytes < 0) {
            throw readFailure(path_);
        }
        if (readBytes == 0) {
            break;
        }
        done += (size_t) readBytes;
    }
    return done;
}

void File::write(const uint8_t * from, size_t count) const {
    while (count > 0) {
        const auto writtenBytes = ::write(fd_, from, (unsigned) std::min(count, MAX_CALL_BYTES));
        if (writtenBytes < 0 && errno == EINTR) {
            continue;
        }
        if (writtenBytes < 0) {
            throw writeFailure(path_);
        }
        from += writtenBytes;
        count -= (size_t) writtenBytes;
    }
}

void File::syncAndClose() {
#ifdef _WIN32
    const int synced = _commit(fd_);
#else
    const int synced = fsync(fd_);
#endif
    const int closed = ::close(std::exchange(fd_, -1));
    if (synced != 0 || closed != 0) {
        throw writeFailure(path_);
    }
}

void requireRegularFile(const std::string & path, const std::string & what, const char * missing, const char * other) {
    const std::string expected = "Expected " + what + " at \"" + path + "\": ";
    struct stat status;
    if (stat(path.c_str(), &status) != 0) {
        throw Failure(missing, expected + std::strerror(errno));
    }
    if ((status.st_mode & S_IFMT) != S_IFREG) {
        throw Failure(other, expected + "it is not a regular file");
    }
}

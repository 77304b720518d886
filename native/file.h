// An open file, read or written on the threads for files. Every call says what failed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

class File {
  public:
    enum class Links { followed, refused };

    // A regular file, or none: ENTRY_MISSING, ENTRY_CORRUPT (a directory, a FIFO, a link that is refused), READ_FAILED.
    static File openToRead(const std::string & path, Links links);
    // A new one, 0600: DISK_FULL, WRITE_FAILED.
    static File create(const std::string & path);

    File(File && other) noexcept;
    ~File() { close(); }
    void close();

    uint64_t size() const;
    void seek(uint64_t position) const;
    // Returns how many bytes there were: fewer than asked for at the file's end alone.
    size_t read(uint8_t * to, size_t count) const;
    void write(const uint8_t * from, size_t count) const;
    void syncAndClose();

  private:
    File(int fd, const std::string & path) : fd_(fd), path_(path) {}

    int fd_;
    std::string path_;
};

// For what llama.cpp opens itself: it would wait for a FIFO's writer for ever, and a directory opens too. Fails with the code `missing`
// where there is nothing at `path`, and with `other` where there is no regular file. `what`: "a GGUF file".
void requireRegularFile(const std::string & path, const std::string & what, const char * missing, const char * other);

// An open file. It is read and written on the threads for files. Every call throws a Failure with the path and the
// system's reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

class File {
  public:
    enum class Links { followed, refused };

    // Opens a regular file. Throws ENTRY_MISSING, ENTRY_CORRUPT (a directory, a FIFO, a refused link), READ_FAILED.
    static File openToRead(const std::string & path, Links links);
    // Creates a file with the mode 0600. Throws DISK_FULL, WRITE_FAILED, also if there is a file.
    static File create(const std::string & path);

    File(File && other) noexcept;
    ~File() { close(); }
    void close();

    uint64_t size() const;
    void seek(uint64_t position) const;
    // Returns the number of bytes read. It is less than `count` only at the end of the file.
    size_t read(uint8_t * to, size_t count) const;
    void write(const uint8_t * from, size_t count) const;
    void syncAndClose();

  private:
    File(int fd, const std::string & path) : fd_(fd), path_(path) {}

    int fd_;
    std::string path_;
};

// For files that llama.cpp opens itself: it would wait forever for the writer of a FIFO, and would open a directory.
// Throws the code `missing` if there is nothing at `path`, and the code `other` if it is not a regular file. `what`,
// such as "a GGUF file", is for the message.
void requireRegularFile(const std::string & path, const std::string & what, const char * missing, const char * other);

// An open file. Only the two threads for files read and write it. A method that fails throws a Failure with the path
// and the system's reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

class File {
  public:
    enum class Links { followed, refused };

    // Opens a regular file. Throws ENTRY_MISSING, ENTRY_CORRUPT (a directory, a FIFO, a refused link), READ_FAILED.
    static File openToRead(const std::string & path, Links links);
    // Creates a file with mode 0600. Throws DISK_FULL, WRITE_FAILED. If the file already exists, throws WRITE_FAILED.
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

// Checks the path of a file that llama.cpp will open. llama.cpp would wait forever for the writer of a FIFO, and would
// try to read a directory. Throws a Failure with the code `missing` if there is nothing at `path`, or with the code
// `other` if `path` is not a regular file. The message contains `what`, such as "a GGUF file".
void requireRegularFile(const std::string & path, const std::string & what, const char * missing, const char * other);

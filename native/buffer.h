// Memory for the bytes of a sequence state. It is outside the JavaScript heap, and in huge pages if the system has
// them. New memory costs page faults (2.8 ms for 35 MB), so one freed buffer is kept for the next use.
#pragma once

#include <cstddef>
#include <cstdint>

class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t size);  // throws std::bad_alloc
    ~Buffer();
    Buffer(Buffer && other) noexcept;
    Buffer & operator=(Buffer && other) noexcept;

    uint8_t * data() { return data_; }
    const uint8_t * data() const { return data_; }
    size_t size() const { return size_; }

  private:
    uint8_t * data_ = nullptr;
    size_t size_ = 0;
    size_t capacity_ = 0;
};

#include "buffer.h"

#include "kv-watch.h"

#include <mutex>
#include <new>
#include <utility>

#ifdef _WIN32
#include <windows.h>
#else
#include <sys/mman.h>
#endif

namespace {

constexpr size_t HUGE_PAGE = (size_t) 2 << 20;
constexpr size_t SMALL_PAGE = (size_t) 16 << 10;  // the largest base page in common use
constexpr size_t MAX_SPARE_SIZE = (size_t) 256 << 20;

struct Spare {
    std::mutex mutex;
    uint8_t * data = nullptr;
    size_t capacity = 0;
};

// The instance is never freed, because threads may still free buffers while the process exits.
Spare & spare() {
    static Spare * instance = new Spare;
    return *instance;
}

uint8_t * mapMemory(size_t capacity) {
#ifdef _WIN32
    void * memory = VirtualAlloc(nullptr, capacity, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    if (memory == nullptr) {
        throw std::bad_alloc();
    }
#else
    void * memory = mmap(nullptr, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        throw std::bad_alloc();
    }
#ifdef MADV_HUGEPAGE
    madvise(memory, capacity, MADV_HUGEPAGE);
#endif
#endif
    kv::watch(memory, capacity);
    return static_cast<uint8_t *>(memory);
}

void unmapMemory(uint8_t * data, size_t capacity) {
    kv::forget(data);
#ifdef _WIN32
    (void) capacity;
    VirtualFree(data, 0, MEM_RELEASE);
#else
    munmap(data, capacity);
#endif
}

}  // namespace

Buffer::Buffer(size_t size) : size_(size) {
    {
        std::lock_guard<std::mutex> lock(spare().mutex);
        // A spare buffer that is much larger is not used: its whole memory would be in use while this buffer exists.
        if (spare().data && spare().capacity >= size && spare().capacity <= 2 * size + HUGE_PAGE) {
            data_ = std::exchange(spare().data, nullptr);
            capacity_ = std::exchange(spare().capacity, 0);
            return;
        }
    }
    if (size > SIZE_MAX - HUGE_PAGE) {
        throw std::bad_alloc();
    }
    // Small buffers use small pages. If each had a huge page, many small buffers would take far more memory than the
    // sum of their sizes.
    const size_t page = size < HUGE_PAGE ? SMALL_PAGE : HUGE_PAGE;
    capacity_ = (size + page) / page * page;
    data_ = mapMemory(capacity_);
}

Buffer::~Buffer() {
    if (data_ == nullptr) {
        return;
    }
    if (capacity_ <= MAX_SPARE_SIZE) {
        std::lock_guard<std::mutex> lock(spare().mutex);
        if (spare().capacity < capacity_) {
            std::swap(spare().data, data_);
            std::swap(spare().capacity, capacity_);
        }
    }
    if (data_) {
        unmapMemory(data_, capacity_);
    }
}

Buffer::Buffer(Buffer && other) noexcept { *this = std::move(other); }

Buffer & Buffer::operator=(Buffer && other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    return *this;
}

// A ggml module like ggml-cuda, without a real GPU. The environment variable GPUS says how many devices the module
// reports. The devices cannot compute.
#include <stdlib.h>

#include "ggml-backend-impl.h"

static size_t gpus(ggml_backend_reg_t reg) {
    (void) reg;
    const char * count = getenv("GPUS");
    return count ? (size_t) atoi(count) : 0;
}

static const char * backend_name(ggml_backend_reg_t reg) { return reg ? "CUDA" : ""; }
static const char * name(ggml_backend_dev_t device) { return device ? "CUDA0" : ""; }
static const char * description(ggml_backend_dev_t device) { return device ? "a fake GPU" : ""; }
static enum ggml_backend_dev_type type(ggml_backend_dev_t device) { return device ? GGML_BACKEND_DEVICE_TYPE_GPU : 0; }
static void memory(ggml_backend_dev_t device, size_t * free, size_t * total) { *free = *total = device ? 1 << 30 : 0; }

static ggml_backend_dev_t device_at(ggml_backend_reg_t reg, size_t index);

static struct ggml_backend_reg backend = {
    .api_version = GGML_BACKEND_API_VERSION,
    .iface       = { .get_name = backend_name, .get_device_count = gpus, .get_device = device_at },
};

static struct ggml_backend_device device = {
    .iface = { .get_name = name, .get_description = description, .get_memory = memory, .get_type = type },
    .reg   = &backend,
};

static ggml_backend_dev_t device_at(ggml_backend_reg_t reg, size_t index) { return reg && index == 0 ? &device : NULL; }

ggml_backend_reg_t ggml_backend_init(void) { return &backend; }

// A library that tests preload into a process. For every successful fsync and rename, the library appends a line to
// $SYSCALLS_LOG, in order.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void log_call(const char * call, const char * path) {
    const char * log = getenv("SYSCALLS_LOG");
    char         line[8192];
    int          length = snprintf(line, sizeof line, "%s %s\n", call, path);
    int          fd     = log == NULL ? -1 : open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) {
        if (write(fd, line, length) != length) {
            abort();
        }
        close(fd);
    }
}

static void log_descriptor(const char * call, int fd) {
    char    link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length >= 0) {
        path[length] = 0;
        log_call(call, path);
    }
}

int fsync(int fd) {
    int (*real)(int) = (int (*)(int)) dlsym(RTLD_NEXT, "fsync");
    int result       = real(fd);
    if (result == 0) {
        log_descriptor("fsync", fd);
    }
    return result;
}

int rename(const char * from, const char * to) {
    int (*real)(const char *, const char *) = (int (*)(const char *, const char *)) dlsym(RTLD_NEXT, "rename");
    int result                              = real(from, to);
    if (result == 0) {
        log_call("rename", to);
    }
    return result;
}

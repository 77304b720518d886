// Preloaded into a process: notes what it syncs and renames, a line each, in the order in which that succeeded.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void note(const char * what, const char * path) {
    const char * log = getenv("SYSCALLS_LOG");
    char         line[8192];
    int          length = snprintf(line, sizeof line, "%s %s\n", what, path);
    int          fd     = log == NULL ? -1 : open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) {
        if (write(fd, line, length) != length) {
            abort();
        }
        close(fd);
    }
}

static void note_descriptor(const char * what, int fd) {
    char    link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length >= 0) {
        path[length] = 0;
        note(what, path);
    }
}

int fsync(int fd) {
    int (*real)(int) = (int (*)(int)) dlsym(RTLD_NEXT, "fsync");
    int result       = real(fd);
    if (result == 0) {
        note_descriptor("fsync", fd);
    }
    return result;
}

int rename(const char * from, const char * to) {
    int (*real)(const char *, const char *) = (int (*)(const char *, const char *)) dlsym(RTLD_NEXT, "rename");
    int result                              = real(from, to);
    if (result == 0) {
        note("rename", to);
    }
    return result;
}

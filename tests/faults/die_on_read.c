/* Preloaded into a worker: kills the process when it reads a named file, as a driver's fault or the
   kernel's out-of-memory killer would.

   DIE_ON_READ_OF     a part of the file's path
   DIE_ON_READ_AFTER  so many reads of it are let through; 0 by default
   DIE_ON_READ_LATER  milliseconds between the read and the end: time for a checkpoint
   DIE_ON_READ_ONCE   a file that says that it has happened: it does not happen again
   DIE_ON_READ_LOG    a file that gets a line for each read: process, offset, bytes */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int reads = 0;

static void note(const char *path, const char *text) {
    int file = open(path, O_CREAT | O_WRONLY | O_APPEND, 0644);
    if (file >= 0) {
        ssize_t written = write(file, text, strlen(text));
        (void)written;
        close(file);
    }
}

static void look(int file, size_t bytes, off_t offset) {
    const char *wanted = getenv("DIE_ON_READ_OF");
    if (!wanted)
        return;
    char link[64], path[4096], line[96];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return;
    path[length] = 0;
    if (!strstr(path, wanted))
        return;
    int count = __sync_add_and_fetch(&reads, 1);
    const char *after = getenv("DIE_ON_READ_AFTER"), *once = getenv("DIE_ON_READ_ONCE");
    const char *log = getenv("DIE_ON_READ_LOG");
    snprintf(line, sizeof line, "%d %ld %zu\n", getpid(), (long)offset, bytes);
    if (log)
        note(log, line);
    if (count <= (after ? atoi(after) : 0) || (once && access(once, F_OK) == 0))
        return;
    if (once)
        note(once, line);
    const char *later = getenv("DIE_ON_READ_LATER");
    if (later)
        usleep(atoi(later) * 1000);
    kill(getpid(), SIGKILL);
}

ssize_t pread64(int file, void *bytes, size_t count, off_t offset) {
    static ssize_t (*real)(int, void *, size_t, off_t) = 0;
    if (!real)
        real = (ssize_t (*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread64");
    look(file, count, offset);
    return real(file, bytes, count, offset);
}

ssize_t pread(int file, void *bytes, size_t count, off_t offset) {
    static ssize_t (*real)(int, void *, size_t, off_t) = 0;
    if (!real)
        real = (ssize_t (*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread");
    look(file, count, offset);
    return real(file, bytes, count, offset);
}

ssize_t read(int file, void *bytes, size_t count) {
    static ssize_t (*real)(int, void *, size_t) = 0;
    if (!real)
        real = (ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    look(file, count, -1);
    return real(file, bytes, count);
}

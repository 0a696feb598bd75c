/* Makes the calls of one process fail that touch files below a prefix. Loaded with LD_PRELOAD, armed by `fault_arm`.

   Calls are of four classes, and counted together where more than one is armed: 1 what takes space or carries bytes out,
   2 what makes them durable, 4 what makes names, 8 what reads. From call `first` on, `times` of them fail (0: all). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITES = 1, SYNCS = 2, NAMES = 4, READS = 8 };

static char prefix[PATH_MAX];
static int classes, number, first, times;
static atomic_int seen, failed, synced_again;
static char unsynced[PATH_MAX];

void fault_arm(const char *below, int of_classes, int error, int from, int count) {
    snprintf(prefix, sizeof prefix, "%s", below);
    number = error;
    first = from;
    times = count;
    seen = failed = synced_again = 0;
    unsynced[0] = 0;
    classes = of_classes;
}
int fault_seen(void) { return seen; }
int fault_failed(void) { return failed; }
/* How often a file was synced once more after its sync had failed. */
int fault_synced_again(void) { return synced_again; }

static int due(const char *path, int class) {
    if (!(classes & class) || !prefix[0] || strncmp(path, prefix, strlen(prefix)) != 0) return 0;
    if (class == SYNCS && unsynced[0] && strcmp(unsynced, path) == 0) synced_again++;
    int now = ++seen;
    if (now < first || (times && now >= first + times)) return 0;
    if (class == SYNCS) snprintf(unsynced, sizeof unsynced, "%s", path);
    failed++;
    errno = number;
    return 1;
}
static int fd_due(int fd, int class) {
    char link[64], path[PATH_MAX];
    if (!(classes & class)) return 0;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return due(path, class);
}
static int at_due(int directory, const char *name, int class) {
    char link[64], path[PATH_MAX];
    if (!(classes & class)) return 0;
    if (name[0] == '/') return due(name, class);
    int before = errno;
    if (directory == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    ssize_t length = readlink(link, path, sizeof path - 2);
    errno = before;
    if (length < 0) return 0;
    snprintf(path + length, sizeof path - length, "/%s", name);
    return due(path, class);
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)
#define ON_FD(type, name, class, declared, given, ...) \
    type name declared { \
        REAL(type, #name, __VA_ARGS__); \
        return fd_due(fd, class) ? -1 : real given; \
    }

ON_FD(ssize_t, write, WRITES, (int fd, const void *b, size_t n), (fd, b, n), int, const void *, size_t)
ON_FD(ssize_t, writev, WRITES, (int fd, const struct iovec *v, int n), (fd, v, n), int, const struct iovec *, int)
ON_FD(ssize_t, pwrite, WRITES, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o), int, const void *, size_t, off_t)
ON_FD(ssize_t, pwrite64, WRITES, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o), int, const void *, size_t, off64_t)
ON_FD(int, ftruncate, WRITES, (int fd, off_t n), (fd, n), int, off_t)
ON_FD(int, ftruncate64, WRITES, (int fd, off64_t n), (fd, n), int, off64_t)
ON_FD(int, fallocate, WRITES, (int fd, int m, off_t o, off_t n), (fd, m, o, n), int, int, off_t, off_t)
ON_FD(int, fsync, SYNCS, (int fd), (fd), int)
ON_FD(int, fdatasync, SYNCS, (int fd), (fd), int)
ON_FD(int, syncfs, SYNCS, (int fd), (fd), int)
ON_FD(ssize_t, read, READS, (int fd, void *b, size_t n), (fd, b, n), int, void *, size_t)
ON_FD(ssize_t, pread, READS, (int fd, void *b, size_t n, off_t o), (fd, b, n, o), int, void *, size_t, off_t)
ON_FD(ssize_t, pread64, READS, (int fd, void *b, size_t n, off64_t o), (fd, b, n, o), int, void *, size_t, off64_t)
ON_FD(ssize_t, preadv, READS, (int fd, const struct iovec *v, int n, off_t o), (fd, v, n, o), int, const struct iovec *, int, off_t)
ON_FD(ssize_t, preadv64, READS, (int fd, const struct iovec *v, int n, off64_t o), (fd, v, n, o), int, const struct iovec *, int, off64_t)

ssize_t copy_file_range(int from, off64_t *a, int fd, off64_t *b, size_t n, unsigned flags) {
    REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned);
    return fd_due(fd, WRITES) ? -1 : real(from, a, fd, b, n, flags);
}

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, #name, const char *, int, ...); \
        va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest); \
        if (((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) && at_due(AT_FDCWD, path, NAMES)) return -1; \
        return real(path, flags, mode); \
    }
#define OPENS_AT(name) \
    int name(int at, const char *path, int flags, ...) { \
        REAL(int, #name, int, const char *, int, ...); \
        va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest); \
        if (((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) && at_due(at, path, NAMES)) return -1; \
        return real(at, path, flags, mode); \
    }
OPENS(open) OPENS(open64) OPENS_AT(openat) OPENS_AT(openat64)

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    return at_due(AT_FDCWD, path, NAMES) ? -1 : real(path, mode);
}
int mkdirat(int at, const char *path, mode_t mode) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    return at_due(at, path, NAMES) ? -1 : real(at, path, mode);
}
int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    return at_due(AT_FDCWD, to, NAMES) ? -1 : real(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    return at_due(b, to, NAMES) ? -1 : real(a, from, b, to);
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned);
    return at_due(b, to, NAMES) ? -1 : real(a, from, b, to, flags);
}
int link(const char *from, const char *to) {
    REAL(int, "link", const char *, const char *);
    return at_due(AT_FDCWD, to, NAMES) ? -1 : real(from, to);
}
int linkat(int a, const char *from, int b, const char *to, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    return at_due(b, to, NAMES) ? -1 : real(a, from, b, to, flags);
}

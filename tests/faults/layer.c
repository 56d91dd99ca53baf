/* A layer between a program and the C library, loaded with LD_PRELOAD, that breaks one file call.

It counts the calls which change files below one directory, and at call N it

  kill     ends the process with SIGKILL, before the call;
  tear     does half of a write (the whole of another call), then ends the process;
  cut      is a power cut: every file that was written and not synced since is cut off where it
           ended before, and the process ended. Names reach the disk at once here, data only by
           fsync: the worst order.
  error    fails with an errno; ENOSPC only where a call needs space. `sticky`: and all calls after.

With FAULTS_NO_LINKS in the environment all files are on a file system as FAT is: without hard links,
files that have no name yet, and shared blocks.

Writes that go through stdio, as TensorFlow's do, never pass write() on their way out of the C
library, so fopen, fwrite, fflush and fclose are here too. layer.py arms and asks. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { NONE, KILL, TEAR, CUT, ERROR };

static char root[PATH_MAX];
static size_t root_length;
static enum kind kind;
static int error_number, sticky;
static long fault_at;
static long calls;
static int log_file = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define MAX_DIRTY 65536
static struct { dev_t device; ino_t inode; off_t synced; } dirty[MAX_DIRTY];
static int dirty_count;

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* --- which calls --- */

static int below_root(const char *path) {
  return !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static int is_ours_at(int directory, const char *path) {
  char full[2 * PATH_MAX], start[PATH_MAX] = "";
  if (!root_length || !path) return 0;
  if (path[0] == '/') return below_root(path);
  if (directory == AT_FDCWD) {
    if (!getcwd(start, sizeof start)) return 0;
  } else {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    ssize_t size = readlink(link, start, sizeof start - 1);
    if (size < 0) return 0;
    start[size] = 0;
  }
  snprintf(full, sizeof full, "%s/%s", start, path);
  return below_root(full);
}

static int is_ours(const char *path) { return is_ours_at(AT_FDCWD, path); }

static int is_ours_fd(int fd) {
  char link[64], path[PATH_MAX];
  if (!root_length) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return below_root(path);
}

static int writes(int flags) {
  return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC));
}

/* --- what is on the disk --- */

static void mark(int fd, int is_dirty) {
  struct stat status;
  if (fstat(fd, &status) || !S_ISREG(status.st_mode)) return;
  pthread_mutex_lock(&lock);
  int i = 0;
  while (i < dirty_count &&
         (dirty[i].device != status.st_dev || dirty[i].inode != status.st_ino)) i++;
  if (is_dirty && i == dirty_count && dirty_count < MAX_DIRTY) {
    dirty[dirty_count].device = status.st_dev;
    dirty[dirty_count].synced = status.st_size;
    dirty[dirty_count++].inode = status.st_ino;
  } else if (!is_dirty && i < dirty_count) {
    dirty[i] = dirty[--dirty_count];
  }
  pthread_mutex_unlock(&lock);
}

static int cut_off_if_dirty(const char *path, const struct stat *status, int type, struct FTW *at) {
  (void)at;
  if (type != FTW_F) return 0;
  for (int i = 0; i < dirty_count; i++)
    if (dirty[i].device == status->st_dev && dirty[i].inode == status->st_ino &&
        status->st_size > dirty[i].synced)
      syscall(SYS_truncate, path, dirty[i].synced);
  return 0;
}

static void die(void) {
  if (kind == CUT) {
    pthread_mutex_lock(&lock);
    nftw(root, cut_off_if_dirty, 16, FTW_PHYS);
  }
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

/* --- the fault --- */

enum fate { PASS, FAIL, HALF };

static enum fate next_call(const char *name, const char *what, int needs_space) {
  long number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
  if (log_file >= 0) dprintf(log_file, "%s %d %s\n", name, needs_space, what ? what : "");
  if (kind == NONE || number < fault_at || (number > fault_at && !sticky)) return PASS;
  if (kind == ERROR) {
    if (error_number == ENOSPC && !needs_space) return PASS;
    errno = error_number;
    return FAIL;
  }
  if (kind == TEAR) return HALF;
  die();
  return PASS;
}

static const char *fd_name(int fd) {
  static __thread char path[PATH_MAX];
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, sizeof path - 1);
  path[size < 0 ? 0 : size] = 0;
  return path;
}

/* A call that is done or not: no half. */
#define WHOLE(call, what, needs_space, failed) \
  enum fate fate = next_call(__func__, what, needs_space); \
  if (fate == FAIL) return failed; \
  __typeof__(call) result = call; \
  if (fate == HALF) die()

/* --- called from Python --- */

void faults_arm(const char *directory, int what, long at, int error, int stays) {
  strncpy(root, directory, sizeof root - 1);
  root_length = strlen(root);
  __atomic_store_n(&calls, 0, __ATOMIC_SEQ_CST);
  dirty_count = 0;
  fault_at = at;
  error_number = error;
  sticky = stays;
  kind = what;
}

void faults_log(int fd) { log_file = fd; }

void faults_disarm(void) {
  kind = NONE;
  root_length = 0;
}

long faults_calls(void) { return __atomic_load_n(&calls, __ATOMIC_SEQ_CST); }

/* --- a file system without links --- */

#define FICLONE 0x40049409

static int refuses(int error) {
  if (!getenv("FAULTS_NO_LINKS")) return 0;
  errno = error;
  return 1;
}

int ioctl(int fd, unsigned long request, ...) {
  REAL(ioctl);
  va_list list;
  va_start(list, request);
  void *argument = va_arg(list, void *);
  va_end(list);
  return request == FICLONE && refuses(EOPNOTSUPP) ? -1 : real(fd, request, argument);
}

/* --- opening --- */

#define NAMELESS(flags) (((flags) & O_TMPFILE) == O_TMPFILE && refuses(EOPNOTSUPP))

static int after_open(int fd, int flags) {
  int saved = errno;
  if (fd >= 0 && (flags & (O_CREAT | O_TRUNC))) mark(fd, 1);
  errno = saved;
  return fd;
}

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    REAL(name); \
    va_list list; \
    va_start(list, flags); \
    mode_t mode = va_arg(list, mode_t); \
    va_end(list); \
    if (NAMELESS(flags)) return -1; \
    if (!writes(flags) || !is_ours(path)) return real(path, flags, mode); \
    WHOLE(real(path, flags, mode), path, flags & O_CREAT, -1); \
    return after_open(result, flags); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
  int name(int directory, const char *path, int flags, ...) { \
    REAL(name); \
    va_list list; \
    va_start(list, flags); \
    mode_t mode = va_arg(list, mode_t); \
    va_end(list); \
    if (NAMELESS(flags)) return -1; \
    if (!writes(flags) || !is_ours_at(directory, path)) return real(directory, path, flags, mode); \
    WHOLE(real(directory, path, flags, mode), path, flags & O_CREAT, -1); \
    return after_open(result, flags); \
  }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name) \
  FILE *name(const char *path, const char *mode) { \
    REAL(name); \
    if ((mode[0] == 'r' && !strchr(mode, '+')) || !is_ours(path)) return real(path, mode); \
    WHOLE(real(path, mode), path, mode[0] != 'r', NULL); \
    if (result) after_open(fileno(result), O_CREAT); \
    return result; \
  }
FOPEN(fopen)
FOPEN(fopen64)

/* --- writing --- */

#define WRITE(signature, fd, whole, half) \
  ssize_t signature { \
    if (!is_ours_fd(fd)) return whole; \
    enum fate fate = next_call(__func__, fd_name(fd), 1); \
    if (fate == FAIL) return -1; \
    mark(fd, 1); \
    if (fate == PASS) return whole; \
    half; \
    die(); \
    return -1; \
  }

static ssize_t real_write(int fd, const void *data, size_t size) {
  REAL(write);
  return real(fd, data, size);
}
static ssize_t real_pwrite(int fd, const void *data, size_t size, off_t offset) {
  REAL(pwrite);
  return real(fd, data, size, offset);
}
static ssize_t real_writev(int fd, const struct iovec *parts, int count) {
  REAL(writev);
  return real(fd, parts, count);
}
static ssize_t real_copy(int from, off64_t *in, int to, off64_t *out, size_t size, unsigned flags) {
  REAL(copy_file_range);
  return real(from, in, to, out, size, flags);
}
static ssize_t real_sendfile(int to, int from, off_t *offset, size_t size) {
  REAL(sendfile);
  return real(to, from, offset, size);
}

WRITE(write(int fd, const void *data, size_t size), fd, real_write(fd, data, size),
      real_write(fd, data, size / 2))
WRITE(pwrite(int fd, const void *data, size_t size, off_t offset), fd,
      real_pwrite(fd, data, size, offset), real_pwrite(fd, data, size / 2, offset))
WRITE(pwrite64(int fd, const void *data, size_t size, off64_t offset), fd,
      real_pwrite(fd, data, size, offset), real_pwrite(fd, data, size / 2, offset))
WRITE(writev(int fd, const struct iovec *parts, int count), fd, real_writev(fd, parts, count),
      real_writev(fd, parts, count / 2))
WRITE(copy_file_range(int from, off64_t *in, int to, off64_t *out, size_t size, unsigned flags),
      to, real_copy(from, in, to, out, size, flags), real_copy(from, in, to, out, size / 2, flags))
WRITE(sendfile(int to, int from, off_t *offset, size_t size), to,
      real_sendfile(to, from, offset, size), real_sendfile(to, from, offset, size / 2))
WRITE(sendfile64(int to, int from, off64_t *offset, size_t size), to,
      real_sendfile(to, from, offset, size), real_sendfile(to, from, offset, size / 2))

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
  REAL(fwrite);
  if (!root_length || !is_ours_fd(fileno(file))) return real(data, size, count, file);
  enum fate fate = next_call(__func__, fd_name(fileno(file)), 1);
  if (fate == FAIL) return 0;
  mark(fileno(file), 1);
  if (fate == PASS) return real(data, size, count, file);
  real(data, 1, size * count / 2, file);
  static int (*flush)(FILE *);
  if (!flush) flush = (int (*)(FILE *))dlsym(RTLD_NEXT, "fflush");
  flush(file);
  die();
  return 0;
}

int fflush(FILE *file) {
  REAL(fflush);
  if (!file || !root_length || !is_ours_fd(fileno(file))) return real(file);
  WHOLE(real(file), fd_name(fileno(file)), 1, EOF);
  return result;
}

int fclose(FILE *file) {
  REAL(fclose);
  if (!root_length || !is_ours_fd(fileno(file)) || !writes(fcntl(fileno(file), F_GETFL)))
    return real(file);
  enum fate fate = next_call(__func__, fd_name(fileno(file)), 1);
  int result = real(file);
  if (fate == HALF) die();
  if (fate == FAIL) {
    errno = error_number;
    return EOF;
  }
  return result;
}

#define SYNC(name) \
  int name(int fd) { \
    REAL(name); \
    if (!is_ours_fd(fd)) return real(fd); \
    WHOLE(real(fd), fd_name(fd), 0, -1); \
    if (!result) mark(fd, 0); \
    return result; \
  }
SYNC(fsync)
SYNC(fdatasync)

#define CUT_OFF(name, size_type) \
  int name(int fd, size_type size) { \
    REAL(name); \
    if (!is_ours_fd(fd)) return real(fd, size); \
    WHOLE(real(fd, size), fd_name(fd), 0, -1); \
    mark(fd, 1); \
    return result; \
  }
CUT_OFF(ftruncate, off_t)
CUT_OFF(ftruncate64, off64_t)

/* --- names --- */

#define NAMES(signature, name, ours, arguments, what, needs_space) \
  int signature { \
    REAL(name); \
    if (!(ours)) return real arguments; \
    WHOLE(real arguments, what, needs_space, -1); \
    return result; \
  }
NAMES(rename(const char *from, const char *to), rename, is_ours(from) || is_ours(to), (from, to), to,
      1)
NAMES(renameat(int a, const char *from, int b, const char *to), renameat,
      is_ours_at(a, from) || is_ours_at(b, to), (a, from, b, to), to, 1)
#define LINKS(signature, name, ours, arguments, what) \
  int signature { \
    REAL(name); \
    if (!(ours)) return refuses(EPERM) ? -1 : real arguments; \
    WHOLE(refuses(EPERM) ? -1 : real arguments, what, 1, -1); \
    return result; \
  }
LINKS(link(const char *from, const char *to), link, is_ours(to), (from, to), to)
LINKS(linkat(int a, const char *from, int b, const char *to, int flags), linkat, is_ours_at(b, to),
      (a, from, b, to, flags), to)
NAMES(symlink(const char *from, const char *to), symlink, is_ours(to), (from, to), to, 1)
NAMES(unlink(const char *path), unlink, is_ours(path), (path), path, 0)
NAMES(unlinkat(int a, const char *path, int flags), unlinkat, is_ours_at(a, path), (a, path, flags),
      path, 0)
NAMES(remove(const char *path), remove, is_ours(path), (path), path, 0)
NAMES(rmdir(const char *path), rmdir, is_ours(path), (path), path, 0)
NAMES(mkdir(const char *path, mode_t mode), mkdir, is_ours(path), (path, mode), path, 1)
NAMES(mkdirat(int a, const char *path, mode_t mode), mkdirat, is_ours_at(a, path), (a, path, mode),
      path, 1)

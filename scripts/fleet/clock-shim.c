/*
 * A preloaded wall clock that can be set while the process runs: real time plus an offset in milliseconds, read from the
 * first eight bytes of the file that CLOCK_SHIM_FILE names, which is mapped. Only wall clocks move; monotonic ones stay.
 *
 * Raw system calls only, and no allocation: the first call comes before the allocator of the process is ready.
 * redis-server takes its time from gettimeofday and clock_gettime, once per turn of its event loop.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long long *offset_ms;
static int looked;

static long long offset(void) {
  if (!looked) {
    const char *path = getenv("CLOCK_SHIM_FILE");
    if (path == NULL) return 0;
    looked = 1;
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (file < 0) _exit(97);
    void *page = (void *)syscall(SYS_mmap, NULL, 4096L, PROT_READ, MAP_SHARED, file, 0L);
    syscall(SYS_close, file);
    if ((long)page < 0 && (long)page > -4096) _exit(98);
    offset_ms = page;
  }
  return offset_ms == NULL ? 0 : *offset_ms;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  int result = (int)syscall(SYS_clock_gettime, clock, time);
  if (result != 0 || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return result;
  long long ms = offset();
  time->tv_sec += ms / 1000;
  time->tv_nsec += (ms % 1000) * 1000000;
  if (time->tv_nsec >= 1000000000) {
    time->tv_nsec -= 1000000000;
    time->tv_sec++;
  } else if (time->tv_nsec < 0) {
    time->tv_nsec += 1000000000;
    time->tv_sec--;
  }
  return 0;
}

int gettimeofday(struct timeval *time, void *zone) {
  (void)zone;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *seconds) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (seconds != NULL) *seconds = now.tv_sec;
  return now.tv_sec;
}

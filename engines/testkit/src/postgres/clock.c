/* The time of day as a server is to see it: the real one and an offset that the test changes while the server runs.
 * Put before the C library by the dynamic loader. PostgreSQL takes the time of commits from gettimeofday(2);
 * time that only passes (CLOCK_MONOTONIC) stays as it is. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset;

__attribute__((constructor)) static void map_offset(void)
{
    const char *path = getenv("BACKUP_TESTKIT_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        abort();
    void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED)
        abort();
    close(file);
    offset = mapped;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec real;
    (void)zone;
    if (syscall(SYS_clock_gettime, CLOCK_REALTIME, &real) != 0)
        return -1;
    now->tv_sec = real.tv_sec + (offset ? *offset : 0);
    now->tv_usec = real.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result)
{
    struct timeval now;
    if (gettimeofday(&now, NULL) != 0)
        return (time_t)-1;
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}

/* A day in minutes: with LD_PRELOAD, a program sees every clock of its machine
 * run FAST_CLOCK times as fast from FAST_CLOCK_SINCE on (nanoseconds of the
 * clock of the day), and what it waits for by time comes as much sooner. Times
 * of the processor, of files and of other machines are the real ones.
 *
 * Debian's faketime does the same for C programs, but not for what Rust waits
 * with: futex(2), by way of syscall(2).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

typedef long (*raw_call)(long, ...);

static raw_call raw;
static int64_t speed = 1;
/* The moment from which on time is fast, on each of two clocks. */
static int64_t day_since;
static int64_t since;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static int64_t nanos(const struct timespec *time) {
    return time->tv_sec * SECOND + time->tv_nsec;
}

static struct timespec timespec(int64_t nanos) {
    return (struct timespec){ .tv_sec = nanos / SECOND, .tv_nsec = nanos % SECOND };
}

static int64_t real(clockid_t clock) {
    struct timespec time = { 0 };
    raw(SYS_clock_gettime, (long)clock, &time);
    return nanos(&time);
}

static void begin(void) {
    raw = (raw_call)dlsym(RTLD_NEXT, "syscall");
    const char *factor = getenv("FAST_CLOCK"), *from = getenv("FAST_CLOCK_SINCE");
    if (!factor || !from) {
        return;
    }
    speed = atoll(factor) > 0 ? atoll(factor) : 1;
    day_since = atoll(from);
    since = real(CLOCK_MONOTONIC) - (real(CLOCK_REALTIME) - day_since);
}

static void ready(void) {
    pthread_once(&once, begin);
}

/* Where fast time began on a clock; 0 where it is no time of the day or of the
 * machine. */
static int64_t origin(clockid_t clock) {
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
        return day_since;
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_BOOTTIME:
        return since;
    default:
        return 0;
    }
}

static int64_t fast(clockid_t clock, int64_t real) {
    int64_t from = origin(clock);
    return from ? from + (real - from) * speed : real;
}

/* The real moment at which a fast clock shows a time. */
static int64_t slow(clockid_t clock, int64_t shown) {
    int64_t from = origin(clock);
    return from && shown > from ? from + (shown - from) / speed : shown;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    ready();
    long result = raw(SYS_clock_gettime, (long)clock, time);
    if (result == 0) {
        *time = timespec(fast(clock, nanos(time)));
    }
    return (int)result;
}

time_t time(time_t *into) {
    ready();
    time_t now = fast(CLOCK_REALTIME, real(CLOCK_REALTIME)) / SECOND;
    if (into) {
        *into = now;
    }
    return now;
}

int gettimeofday(struct timeval *restrict into, void *restrict zone) {
    (void)zone;
    ready();
    struct timespec now = timespec(fast(CLOCK_REALTIME, real(CLOCK_REALTIME)));
    *into = (struct timeval){ .tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000 };
    return 0;
}

/* A wait of milliseconds; one that is not over at once is not over at once. */
static struct timespec *shorter(int milliseconds, struct timespec *into) {
    if (milliseconds < 0) {
        return NULL;
    }
    ready();
    *into = timespec(milliseconds * (SECOND / 1000) / speed);
    return into;
}

int epoll_pwait(int fd, struct epoll_event *events, int most, int wait, const sigset_t *mask) {
    struct timespec time, *until = shorter(wait, &time);
    ready();
    return (int)raw(SYS_epoll_pwait2, (long)fd, events, (long)most, until, mask, 8L);
}

int epoll_wait(int fd, struct epoll_event *events, int most, int wait) {
    return epoll_pwait(fd, events, most, wait, NULL);
}

int poll(struct pollfd *fds, nfds_t count, int wait) {
    struct timespec time, *until = shorter(wait, &time);
    ready();
    return (int)raw(SYS_ppoll, fds, (long)count, until, NULL, 8L);
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *wait,
                    struct timespec *left) {
    ready();
    int64_t until = flags & TIMER_ABSTIME
        ? slow(clock, nanos(wait))
        : real(clock) + nanos(wait) / speed;
    struct timespec moment = timespec(until);
    if (raw(SYS_clock_nanosleep, (long)clock, (long)TIMER_ABSTIME, &moment, NULL) == 0) {
        return 0;
    }
    int why = errno;
    if (left && !(flags & TIMER_ABSTIME)) {
        int64_t rest = (until - real(clock)) * speed;
        *left = timespec(rest > 0 ? rest : 0);
    }
    return why;
}

int nanosleep(const struct timespec *wait, struct timespec *left) {
    int why = clock_nanosleep(CLOCK_MONOTONIC, 0, wait, left);
    if (why != 0) {
        errno = why;
        return -1;
    }
    return 0;
}

long syscall(long number, ...) {
    ready();
    va_list list;
    va_start(list, number);
    long args[6];
    for (int n = 0; n < 6; n++) {
        args[n] = va_arg(list, long);
    }
    va_end(list);
    struct timespec time;
    const struct timespec *wait = (const struct timespec *)args[3];
    int operation = (int)args[1] & FUTEX_CMD_MASK;
    if (number == SYS_futex && wait && operation == FUTEX_WAIT_BITSET) {
        /* Until a moment. */
        clockid_t clock = args[1] & FUTEX_CLOCK_REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC;
        time = timespec(slow(clock, nanos(wait)));
        args[3] = (long)&time;
    } else if (number == SYS_futex && wait && operation == FUTEX_WAIT) {
        /* For a while. */
        time = timespec(nanos(wait) / speed);
        args[3] = (long)&time;
    }
    return raw(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

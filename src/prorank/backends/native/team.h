/* Threads that compute one batch together. The caller brings them; here they share work out and wait for each other. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#if defined(__linux__)
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
/* FUTEX_WAIT and FUTEX_WAKE, within the process. A sleeper looks again after 10 ms: nobody wakes it to be abandoned. */
#define SLEEP(place, value) syscall(SYS_futex, place, 128, value, &(struct timespec){0, 10000000}, NULL, 0)
#define WAKE(place) syscall(SYS_futex, place, 129, INT32_MAX, NULL, NULL, 0)
#elif defined(_WIN32)
__declspec(dllimport) int __stdcall SwitchToThread(void);
#define SLEEP(place, value) SwitchToThread()
#define WAKE(place)
#else
#include <sched.h>
#define SLEEP(place, value) sched_yield()
#define WAKE(place)
#endif

#if defined(__x86_64__)
#define PAUSE() __asm__ volatile("pause")
#else
#define PAUSE() __asm__ volatile("yield")
#endif

enum { PATIENCE = 2000 }; /* looks before a waiting thread gives its core away */

typedef struct {
    int32_t members;   /* how many there are */
    int32_t abandoned; /* not 0: not all of them will come */
    int32_t arrived, round, asleep;
} Team;

typedef struct {
    Team *team;
    int32_t number; /* from 0 */
} Member;

/* Of `count` things in a row, this member's: from `from` to before `to`. */
typedef struct {
    int from, to;
} Share;

static inline Share share_of(Member me, int count) {
    const int64_t members = me.team->members;
    return (Share){(int)(count * (int64_t)me.number / members), (int)(count * ((int64_t)me.number + 1) / members)};
}

/* Wait until all members are here; what they wrote can be read then. 0: the team was abandoned. */
static int meet(Member me) {
    Team *team = me.team;
    if (team->members == 1) return 1;
    const int32_t round = __atomic_load_n(&team->round, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&team->arrived, 1, __ATOMIC_ACQ_REL) == team->members) {
        __atomic_store_n(&team->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&team->round, round + 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&team->asleep, __ATOMIC_SEQ_CST)) WAKE(&team->round);
        return 1;
    }
    for (int looks = 0; __atomic_load_n(&team->round, __ATOMIC_ACQUIRE) == round; looks++) {
        if (__atomic_load_n(&team->abandoned, __ATOMIC_ACQUIRE)) return 0;
        if (looks < PATIENCE) {
            PAUSE();
            continue;
        }
        __atomic_add_fetch(&team->asleep, 1, __ATOMIC_SEQ_CST);
        SLEEP(&team->round, round);
        __atomic_sub_fetch(&team->asleep, 1, __ATOMIC_SEQ_CST);
    }
    return 1;
}

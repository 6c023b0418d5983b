/* Preloaded by tests: the wall clock of the process, moved ahead by STRONGROOM_TEST_DAYS days. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
  int answer = (int)syscall(SYS_clock_gettime, clock, time);
  const char *days = getenv("STRONGROOM_TEST_DAYS");
  if (answer == 0 && clock == CLOCK_REALTIME && days != NULL) {
    time->tv_sec += atol(days) * 86400;
  }
  return answer;
}

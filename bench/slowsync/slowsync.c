// slowsync makes each fsync and fdatasync of a program take SLOWSYNC_US microseconds
// longer, as on a slower disk: how much group commit gains depends on little else.
//
//	cc -shared -fPIC -O2 -o slowsync.so slowsync.c -ldl
//	SLOWSYNC_US=300 LD_PRELOAD=$PWD/slowsync.so mariadbd …
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void dawdle(void)
{
	const char *us = getenv("SLOWSYNC_US");
	struct timespec t = {0, us ? atol(us) * 1000 : 0};
	clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

int fsync(int fd)
{
	int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
	dawdle();
	return real(fd);
}

int fdatasync(int fd)
{
	int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
	dawdle();
	return real(fd);
}

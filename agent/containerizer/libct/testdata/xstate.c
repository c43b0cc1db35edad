/*
 * Lets a user-mode Linux run on processors whose registers it does not know all of (AMX). It gives its processes their
 * registers back with a buffer of the size that it was built for, and the kernel below takes a whole one only: EFAULT. What
 * it leaves out stays as it is here. For LD_PRELOAD; Debian 12 has Linux 6.1, which needs it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

static long (*next)(enum __ptrace_request, ...);

__attribute__((constructor)) static void find_next(void)
{
	next = dlsym(RTLD_NEXT, "ptrace");
}

long ptrace(enum __ptrace_request request, ...)
{
	/* Not on the stack, which is that of a kernel and small; one thread alone traces. */
	static char registers[1 << 16] __attribute__((aligned(64)));
	struct iovec whole = { registers, sizeof registers };
	va_list args;

	va_start(args, request);
	long pid = va_arg(args, long);
	void *addr = va_arg(args, void *);
	void *data = va_arg(args, void *);
	va_end(args);
	if (request == PTRACE_SETREGSET && addr == (void *)NT_X86_XSTATE) {
		struct iovec *given = data;

		if (next(PTRACE_GETREGSET, pid, addr, &whole) == 0 && whole.iov_len > given->iov_len) {
			memcpy(registers, given->iov_base, given->iov_len);
			data = &whole;
		}
	}
	return next(request, pid, addr, data);
}

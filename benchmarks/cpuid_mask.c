/* Preloaded by as_processor.py: answers `cpuid` as a processor with fewer instruction sets would.
 *
 * `cpuid` does not trap in user space on most machines, so as_processor.py replaces it in copies of the runtimes by
 * `ud2`, an instruction of the same length that does. The handler below runs the real `cpuid`, clears the bits in
 * CPUID_MASK ("leaf.subleaf.register.mask", comma-separated, hexadecimal; registers 0 to 3 are eax to edx) and goes on
 * behind it. Whoever opens /proc/cpuinfo gets the file CPUID_CPUINFO. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define MOST_MASKS 32

static struct { uint32_t leaf, subleaf, reg, bits; } masks[MOST_MASKS];
static int mask_count;
static struct sigaction previous;

/* Nobody else (Python's faulthandler, say) may take the signal away. */
int sigaction(int signal, const struct sigaction *action, struct sigaction *old) {
    int (*next)(int, const struct sigaction *, struct sigaction *) = dlsym(RTLD_NEXT, "sigaction");
    return next(signal, signal == SIGILL ? NULL : action, old);
}

static int take_signal(const struct sigaction *action, struct sigaction *old) {
    int (*next)(int, const struct sigaction *, struct sigaction *) = dlsym(RTLD_NEXT, "sigaction");
    return next(SIGILL, action, old);
}

static void emulate(int signal, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *at = (const uint8_t *)registers[REG_RIP];
    if (at[0] != 0x0f || at[1] != 0x0b) { /* not one of ours */
        take_signal(&previous, NULL);
        return;
    }
    uint32_t leaf = registers[REG_RAX], subleaf = registers[REG_RCX], r[4];
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(subleaf));
    for (int i = 0; i < mask_count; i++)
        if (masks[i].leaf == leaf && masks[i].subleaf == subleaf) r[masks[i].reg] &= ~masks[i].bits;
    registers[REG_RAX] = r[0], registers[REG_RBX] = r[1], registers[REG_RCX] = r[2], registers[REG_RDX] = r[3];
    registers[REG_RIP] += 2;
}

__attribute__((constructor(101))) static void install(void) {
    const char *text = getenv("CPUID_MASK");
    for (; text && mask_count < MOST_MASKS; text = strchr(text, ','), text = text ? text + 1 : NULL)
        if (sscanf(text, "%x.%x.%x.%x", &masks[mask_count].leaf, &masks[mask_count].subleaf, &masks[mask_count].reg,
                   &masks[mask_count].bits) == 4)
            mask_count++;
    struct sigaction action = {.sa_sigaction = emulate, .sa_flags = SA_SIGINFO | SA_NODEFER};
    take_signal(&action, &previous);
}

static const char *masked(const char *path) {
    const char *instead = getenv("CPUID_CPUINFO");
    return instead && path && !strcmp(path, "/proc/cpuinfo") ? instead : path;
}

#define OPEN(name)                                                        \
    int name(const char *path, int flags, ...) {                          \
        int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);    \
        va_list rest;                                                     \
        va_start(rest, flags);                                            \
        int mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, int) : 0; \
        va_end(rest);                                                     \
        return next(masked(path), flags, mode);                           \
    }
OPEN(open)
OPEN(open64)

#define FOPEN(name)                                                             \
    FILE *name(const char *path, const char *mode) {                            \
        FILE *(*next)(const char *, const char *) = dlsym(RTLD_NEXT, #name);    \
        return next(masked(path), mode);                                        \
    }
FOPEN(fopen)
FOPEN(fopen64)

/* Runs recorded calls of kernels: driver IN OUT.

   IN is a row of calls: the kernel's number; how many buffers, and of each its size and bytes; how many addresses,
   and of each the buffer and the byte in it where it stands, and the buffer and the byte in it to which it points;
   the two buffers that the kernel is given. All numbers are int64. OUT has all buffers as they are after their call. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KERNEL(name) extern void name(void *, void *);
#include "kernels.h"
#undef KERNEL

static void (*kernels[])(void *, void *) = {
#define KERNEL(name) name,
#include "kernels.h"
};

static FILE *in;

static int get(void *to, size_t size) { return size == 0 || fread(to, size, 1, in) == 1; }

static int64_t number(void) {
    int64_t value;
    if (!get(&value, sizeof value)) exit(3);
    return value;
}

int main(int count, char **names) {
    if (count != 3) return 2;
    in = fopen(names[1], "rb");
    FILE *out = fopen(names[2], "wb");
    if (!in || !out) return 2;
    int64_t kernel;
    while (get(&kernel, sizeof kernel)) {
        int64_t buffers = number();
        char **data = malloc(buffers * sizeof *data);
        int64_t *sizes = malloc(buffers * sizeof *sizes);
        for (int64_t i = 0; i < buffers; i++) {
            sizes[i] = number();
            data[i] = malloc(sizes[i] + 1);
            if (!get(data[i], sizes[i])) return 3;
        }
        for (int64_t left = number(); left > 0; left--) {
            int64_t buffer = number(), place = number(), to = number(), at = number();
            char *address = data[to] + at;
            memcpy(data[buffer] + place, &address, sizeof address);
        }
        int64_t first = number(), second = number();
        kernels[kernel](data[first], data[second]);
        for (int64_t i = 0; i < buffers; i++) {
            fwrite(data[i], 1, sizes[i], out);
            free(data[i]);
        }
        free(data), free(sizes);
    }
    return fclose(out) ? 3 : 0;
}

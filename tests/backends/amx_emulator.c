/* AMX-TILE and AMX-BF16 on a processor that has none of it: each instruction is illegal there, and is done here by the
   handler of the signal that it raises, as Intel's manual describes it. A shared object for one process:

       install(wrong)   from now on; with `wrong`, the product of one pair of numbers is left out
       done(which)      how many were done: 0 configurations, 1 releases, 2 loads, 3 stores, 4 products
       in_use()         whether this thread has configured tiles and not released them

   What a processor would refuse ends the process with status 99: tiles that are not configured, or whose shapes do not
   fit together. */
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>
#include <xmmintrin.h>

enum { TILES = 8, ROWS = 16, BYTES = 64 };
static const int REGISTERS[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static __thread struct {
    int configured;
    uint8_t rows[TILES];
    uint16_t bytes[TILES];
    uint8_t data[TILES][ROWS][BYTES];
} state;

static int is_wrong;
static long counts[5];
static struct sigaction before;

long done(int which) { return counts[which]; }

int in_use(void) { return state.configured; }

static void refuse(const char *what) {
    dprintf(2, "AMX: %s\n", what);
    _exit(99);
}

static int shown(int tile) {
    if (!state.configured || state.rows[tile] == 0) refuse("a tile is used that is not configured");
    return tile;
}

static void configure(const uint8_t *at) {
    if (at[0] != 1 || at[1] != 0) refuse("this palette is not known");
    for (int i = 2; i < 16; i++)
        if (at[i]) refuse("a reserved byte is not zero");
    memset(&state, 0, sizeof state);
    state.configured = 1;
    for (int i = 0; i < 16; i++) {
        uint16_t bytes = at[16 + 2 * i] | at[17 + 2 * i] << 8;
        uint8_t rows = at[48 + i];
        if (i >= TILES && (bytes || rows)) refuse("there are eight tiles");
        if (i < TILES) {
            if (bytes > BYTES || rows > ROWS || !bytes != !rows) refuse("a tile has no such shape");
            state.bytes[i] = bytes, state.rows[i] = rows;
        }
    }
}

static float number(const uint8_t *at) {
    uint32_t bits = (uint32_t)(at[0] | at[1] << 8) << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static void multiply(int c, int a, int b) {
    shown(a), shown(b), shown(c);
    if (a == b || a == c || b == c) refuse("a product of a tile with itself");
    if (state.rows[c] != state.rows[a] || state.bytes[c] != state.bytes[b] || state.bytes[a] / 4 != state.rows[b])
        refuse("the shapes of a product do not fit");
    _mm_setcsr(0x9fc0); /* nearest, subnormal numbers are zero; what the thread had comes back with the signal's end */
    for (int m = 0; m < state.rows[c]; m++) {
        float even[ROWS] = {0}, odd[ROWS] = {0};
        for (int k = 0; k < state.bytes[a] / 4; k++)
            for (int n = 0; n < state.bytes[c] / 4; n++) {
                const uint8_t *left = &state.data[a][m][4 * k], *right = &state.data[b][k][4 * n];
                if (is_wrong && m == 3 && k == 5 && n == 7) continue;
                even[n] = fmaf(number(left), number(right), even[n]);
                odd[n] = fmaf(number(left + 2), number(right + 2), odd[n]);
            }
        for (int n = 0; n < state.bytes[c] / 4; n++) {
            float sum;
            memcpy(&sum, &state.data[c][m][4 * n], 4);
            sum += even[n] + odd[n];
            memcpy(&state.data[c][m][4 * n], &sum, 4);
        }
    }
}

/* Does the instruction at `at` and returns how long it is; 0 if it is none of these. */
static int execute(const uint8_t *at, greg_t *registers) {
    if (at[0] != 0xc4 || (at[1] & 0x1f) != 2 || (at[2] & 0x84)) return 0;
    int prefix = at[2] & 3, vector = ~at[2] >> 3 & 15, code = at[3];
    int mode = at[4] >> 6, reg = at[4] >> 3 & 7, rm = at[4] & 7, length = 5;
    if (code == 0x5c && prefix == 2 && mode == 3) {
        counts[4]++;
        multiply(reg, rm, vector);
        return length;
    }
    if (code == 0x49 && mode == 3) {
        if (prefix == 0 && reg == 0 && rm == 0) {
            counts[1]++;
            memset(&state, 0, sizeof state);
            return length;
        }
        if (prefix == 3 && rm == 0) {
            memset(state.data[shown(reg)], 0, sizeof state.data[reg]);
            return length;
        }
        return 0;
    }
    if ((code != 0x49 && code != 0x4b) || mode == 3) return 0;
    uint64_t address = 0, stride = 0;
    if (rm == 4) {
        int scale = at[5] >> 6, index = (at[5] >> 3 & 7) | (at[1] & 0x40 ? 0 : 8);
        int base = (at[5] & 7) | (at[1] & 0x20 ? 0 : 8);
        length++;
        if (index != 4) stride = (uint64_t)registers[REGISTERS[index]] << scale;
        if ((at[5] & 7) == 5 && mode == 0) {
            int32_t far;
            memcpy(&far, at + length, 4);
            address = (int64_t)far, length += 4;
        } else
            address = registers[REGISTERS[base]];
    } else {
        if (code == 0x4b || (rm == 5 && mode == 0)) return 0; /* tiles are addressed by base and index */
        address = registers[REGISTERS[rm | (at[1] & 0x20 ? 0 : 8)]];
    }
    if (mode == 1) address += (int8_t)at[length], length += 1;
    if (mode == 2) {
        int32_t far;
        memcpy(&far, at + length, 4);
        address += (int64_t)far, length += 4;
    }
    if (code == 0x49) {
        if (prefix != 0 || reg != 0) return 0;
        counts[0]++;
        configure((const uint8_t *)(address + stride));
        return length;
    }
    if (prefix != 2 && prefix != 3) return 0;
    shown(reg);
    counts[prefix == 3 ? 2 : 3]++;
    for (int row = 0; row < state.rows[reg]; row++) {
        uint8_t *memory = (uint8_t *)(address + row * stride), *tile = state.data[reg][row];
        if (prefix == 3)
            memcpy(tile, memory, state.bytes[reg]);
        else
            memcpy(memory, tile, state.bytes[reg]);
    }
    return length;
}

static void handle(int signal, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    int length = execute((const uint8_t *)registers[REG_RIP], registers);
    if (length == 0) {
        sigaction(signal, &before, 0); /* it is met again, by whoever was here before */
        return;
    }
    registers[REG_RIP] += length;
    (void)info;
}

int install(int wrong) {
    is_wrong = wrong;
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    return sigaction(SIGILL, &action, &before);
}

// What a kernel does to memory, looked at one access at a time: g++ is asked to make every read and write of its text a
// call (-fsanitize=thread), and what it calls stands at the end of this file, in place of a library.
//
// What blocks tell each other by posting has rules of its own, in emulation.h.
#include <dlfcn.h>
enum Fault {
  MISALIGNED = 1,  // an address that is no multiple of a number's size: a GPU stops there, a CPU does not
  OUTSIDE,         // of what the launch was given and of the block's shared memory; or a write to what is only read
  RACE,            // two threads at one place, one of them writing, and no barrier of their block between
  STALE,           // what this launch wrote is read by a way that sees no writes (ld.global.nc, cp.async)
  OVERFLOWN        // an int that is too large
};
enum Way { PLAIN, APART, POSTED };
struct Range { uintptr_t from, to, is_written; };
// Of two bytes: the thread that wrote to them last, and the one that read them since, both by their number in the grid
// from 1 on, and how many barriers came before; whether other threads read them as well, and those of other blocks.
struct Touched { int writer, written, reader, read; bool by_others, by_blocks; };
static const Range* ranges;
static int ranges_count, threads_each;
static bool in_kernel;
static char fault[600];
static void* site;  // in the machine code, where a number is read or written
static Touched** touched;  // of each range, and of each block's shared memory behind these

static void give_up();
// Nothing more is run of the launch: what was asked for is not done.
UNSEEN static void found(int kind, uintptr_t at, int size, bool writes) {
  const char* names[] = {"", "misaligned", "outside", "race", "stale", "overflow"};
  Dl_info library;
  if (!fault[0] && dladdr(site, &library))
    snprintf(fault, sizeof fault, "%s: %s of %d bytes at %#zx by thread %d of block (%d, %d); addr2line -e %s %#zx",
             names[kind], writes ? "write" : "read", size, (size_t)at, now->thread.x, now->block.x, now->block.y,
             library.dli_fname, (char*)site - (char*)library.dli_fbase - 1);
  give_up();
}
UNSEEN static bool is_before(int other, int barriers, int me) {
  return !other || other == me || ((other - 1) / threads_each == (me - 1) / threads_each && barriers < now->all->turn);
}
UNSEEN static void touch(Touched* it, uintptr_t at, int size, bool writes, Way way) {
  const int block = now->block.y * gridDim_.x + now->block.x, me = block * threads_each + now->thread.x + 1;
  const int turn = now->all->turn;
  for (int left = (size + 1) / 2; left; --left, ++it) {
    if (way == APART && it->writer) found(STALE, at, size, writes);
    if (!is_before(it->writer, it->written, me)) found(RACE, at, size, writes);
    if (writes) {
      const bool others = it->by_blocks || (it->by_others && it->read == turn);
      if (others || !is_before(it->reader, it->read, me)) found(RACE, at, size, writes);
      *it = Touched{me, turn, 0, 0, false, false};
    } else {
      it->by_blocks |= it->reader && (it->reader - 1) / threads_each != block;
      it->by_others = it->reader && it->read == turn && (it->by_others || it->reader != me);
      it->reader = me, it->read = turn;
    }
  }
}
UNSEEN static void look(uintptr_t at, int size, bool writes, Way way = PLAIN) {
  if (!in_kernel || now->inside) return;
  const uintptr_t stack = (uintptr_t)now->stack, shared = (uintptr_t)now->shared;
  if (at >= stack && at < stack + STACK) return;
  if (at % (size & -size)) found(MISALIGNED, at, size, writes);
  Touched* place = nullptr;  // by the first range, of those of the same memory
  bool may = false;
  if (at >= shared && at + size <= shared + shared_bytes) {
    place = touched[ranges_count + now->block.y * gridDim_.x + now->block.x] + (at - shared) / 2;
    may = true;
  }
  for (int i = 0; i < ranges_count && !may; ++i)
    if (at >= ranges[i].from && at + size <= ranges[i].to) {
      if (!place) place = touched[i] + (at / 2 - ranges[i].from / 2);
      may = ranges[i].is_written || !writes;
    }
  if (!may) found(OUTSIDE, at, size, writes);
  else if (way != POSTED) touch(place, at, size, writes, way);
}
UNSEEN static void begin_to_look(int blocks) {
  fault[0] = 0;
  touched = (Touched**)calloc(ranges_count + blocks, sizeof(Touched*));
  for (int i = 0; i < ranges_count; ++i)
    touched[i] = (Touched*)calloc((ranges[i].to - ranges[i].from) / 2 + 1, sizeof(Touched));
  for (int i = 0; i < blocks; ++i)
    touched[ranges_count + i] = (Touched*)calloc(shared_bytes / 2 + 1, sizeof(Touched));
}
UNSEEN static void end_to_look(int blocks) {
  for (int i = 0; i < ranges_count + blocks; ++i) free(touched[i]);
  free(touched);
}
extern "C" {
#define HOOK(NAME, N, WRITES) \
  UNSEEN void __tsan_##NAME##N(void* at) { site = __builtin_return_address(0); look((uintptr_t)at, N, WRITES); }
#define ACCESS(N) \
  HOOK(read, N, false) HOOK(write, N, true) HOOK(unaligned_read, N, false) HOOK(unaligned_write, N, true)
ACCESS(1) ACCESS(2) ACCESS(4) ACCESS(8) ACCESS(16)
UNSEEN void __tsan_read_range(void* at, size_t n) { site = __builtin_return_address(0); look((uintptr_t)at, n, false); }
UNSEEN void __tsan_write_range(void* at, size_t n) { site = __builtin_return_address(0); look((uintptr_t)at, n, true); }
UNSEEN void __tsan_func_entry(void*) {}
UNSEEN void __tsan_func_exit() {}
UNSEEN void __tsan_init() {}
#define OVERFLOW_OF(OP, ...) \
  UNSEEN void __ubsan_handle_##OP##_overflow(__VA_ARGS__) { \
    site = __builtin_return_address(0); \
    if (in_kernel && !now->inside) found(OVERFLOWN, 0, 4, false); \
  }
OVERFLOW_OF(add, void*, void*, void*)
OVERFLOW_OF(sub, void*, void*, void*)
OVERFLOW_OF(mul, void*, void*, void*)
OVERFLOW_OF(divrem, void*, void*, void*)
OVERFLOW_OF(negate, void*, void*)
}

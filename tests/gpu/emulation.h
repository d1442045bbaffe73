// Kernels for a GPU on a CPU: what prelude.cuh calls of a device, for g++. Every thread is a fiber that runs until it
// meets others: in a block, in a warp, in a matrix product, or in vain before memory that is not there yet.
//
// In turn, or as badly as a device might (`adverse`): a warp or a block runs far ahead while others stand still, and
// every word that is posted arrives by itself, some time later, in any order.
#include <ucontext.h>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#define EMULATED
// What stands for the device: not looked at (sanitizer.h), and no slower than it must be.
#define UNSEEN __attribute__((no_sanitize("thread", "signed-integer-overflow"), optimize("O2")))
#define MOST_LOOKS (most_looks())
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;
typedef long long i64;
#define DEVICE static inline
#define __global__
#define __launch_bounds__(...)
#define __restrict__
struct alignas(16) Quad { u32 w[4]; };
#define STACK 65536
struct Place { int x, y; };
struct Meeting { int wanted = 0, here = 0, turn = 0; };
struct Copy { u32* to; const u32* from; bool there; int group; };
#ifdef __x86_64__
// What ucontext.h does without two calls of the system each time, which took most of the time.
typedef void* Context;
extern "C" void swap_stacks(Context* from, Context to);
asm(".text\nswap_stacks:\n pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
    " movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
    " popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
UNSEEN static void swap(Context* from, Context* to) { swap_stacks(from, *to); }
UNSEEN static void make(Context* context, void* stack, void (*body)()) {
  void** top = (void**)((char*)stack + STACK);  // a place to return to, which nobody does, and registers
  for (int i = 1; i <= 8; ++i) top[-i] = i == 2 ? (void*)body : nullptr;
  *context = top - 8;
}
#else
typedef ucontext_t Context;
UNSEEN static void swap(Context* from, Context* to) { swapcontext(from, to); }
UNSEEN static void make(Context* context, void* stack, void (*body)()) {
  getcontext(context);
  context->uc_stack = {stack, 0, STACK};
  makecontext(context, body, 0);
}
#endif
struct Fiber {
  Context context;
  void* stack;
  Place thread, block;
  Meeting *warp, *all;
  u32 (*slots)[32][8];
  unsigned char* shared;
  bool done = false;
  Meeting* at = nullptr;  // where it waits, and for what turn to be over
  int turn = 0;
  int inside = 0;  // of what stands for the device
  int group = 0;   // of copies to shared memory
  std::vector<Copy> copies;  // that are under way
};
struct Posted { u32* to; u32 value; };
static Fiber* now;
static Context home;
static Place gridDim_;
static int shared_bytes;
static bool given_up;
static u32 adverse;  // not zero: where the numbers begin by which it is decided
static int broken;  // rules of docs/decisions/0039: 1, a place was not marked, or is written twice; 2, a number is ABSENT
static std::vector<Posted> under_way;
static u32 chance(u32 below) {
  adverse ^= adverse << 13, adverse ^= adverse >> 17, adverse ^= adverse << 5;
  return adverse % below;
}
#include "sanitizer.h"
// What threads do in here is the device's, and not looked at.
struct Inside {
  Fiber* const fiber;
  UNSEEN Inside() : fiber(now) { ++fiber->inside; }
  UNSEEN ~Inside() { --fiber->inside; }
};
UNSEEN static Place thread_here() { return now->thread; }
UNSEEN static Place block_here() { return now->block; }
UNSEEN static Place grid_here() { return gridDim_; }
UNSEEN static unsigned char* shared_here() { return now->shared; }
#define threadIdx (thread_here())
#define blockIdx (block_here())
#define gridDim (grid_here())
#define SHARED_MEMORY unsigned char* shared = shared_here()
UNSEEN static int most_looks() { return adverse ? 200000 : 3000; }
#define LANE (now->thread.x & 31)
UNSEEN static void give_way() { swap(&now->context, &home); }
UNSEEN static void give_up() {
  for (given_up = true;;) give_way();
}
UNSEEN static void say_late(int* late) { *late = 1; }  // by many at once, the same
#define GIVE_UP { say_late(late); give_up(); }
UNSEEN static void meet(Meeting* m) {
  if (++m->here == m->wanted) { m->here = 0; ++m->turn; return; }
  now->at = m, now->turn = m->turn;
  while (m->turn == now->turn) give_way();
  now->at = nullptr;
}
UNSEEN static void __syncthreads() { meet(now->all); }
UNSEEN static long long clock64() { static long long c = 0; return c += 1000; }
UNSEEN static u32* slot(int lane) { return (*now->slots)[lane]; }
UNSEEN static u32 __shfl_xor_sync(u32, u32 v, int x) {
  slot(LANE)[0] = v;
  meet(now->warp);
  const u32 r = slot(LANE ^ x)[0];
  meet(now->warp);
  return r;
}
UNSEEN static bool __any_sync(u32, bool v) {
  slot(LANE)[0] = v;
  meet(now->warp);
  bool r = false;
  for (int i = 0; i < 32; ++i) r |= slot(i)[0];
  meet(now->warp);
  return r;
}
DEVICE float AS_FLOAT(u32 v) { float f; memcpy(&f, &v, 4); return f; }
DEVICE u32 AS_BITS(float v) { u32 f; memcpy(&f, &v, 4); return f; }
UNSEEN static void arrive(size_t i) {
  *under_way[i].to = under_way[i].value;
  under_way[i] = under_way.back();
  under_way.pop_back();
}
UNSEEN DEVICE Quad load_posted(const void* p) {
  site = __builtin_return_address(0);
  look((uintptr_t)p, 16, false, POSTED);
  Inside device;
  Quad found;
  for (int i = 0; i < 4; ++i) {
    if (adverse && !under_way.empty() && chance(4) == 0) arrive(chance(under_way.size()));
    found.w[i] = ((const u32*)p)[i];
  }
  return found;
}
UNSEEN DEVICE void post(void* p, u32 v) {
  site = __builtin_return_address(0);
  look((uintptr_t)p, 4, true, POSTED);
  Inside device;
  if (*(u32*)p != 0xffffffffu) broken |= 1;
  if (v == 0xffffffffu) broken |= 2;
  if (adverse) under_way.push_back({(u32*)p, v});
  else *(u32*)p = v;
}
UNSEEN DEVICE u32 load_u16(const void* p) {
  site = __builtin_return_address(0);
  look((uintptr_t)p, 2, false, APART);
  return *(const u16*)p;
}
UNSEEN DEVICE u32 load_u32(const void* p) {
  site = __builtin_return_address(0);
  look((uintptr_t)p, 4, false, APART);
  return *(const u32*)p;
}
// Done at once, or no sooner than somebody waits for it.
UNSEEN DEVICE void copy_ahead(u32* to, const void* from, bool there) {
  site = __builtin_return_address(0);
  look((uintptr_t)to, 4, true);
  if (there) look((uintptr_t)from, 4, false, APART);
  else if ((uintptr_t)from % 4) found(MISALIGNED, (uintptr_t)from, 4, false);
  if (adverse) { Inside device; now->copies.push_back({to, (const u32*)from, there, now->group}); }
  else *to = there ? *(const u32*)from : 0;
}
UNSEEN DEVICE void end_group() { ++now->group; }
template <int N> UNSEEN DEVICE void wait_until_left() {
  Inside device;
  std::vector<Copy> left;
  for (const Copy& each : now->copies)
    if (each.group >= now->group - N) left.push_back(each);
    else *each.to = each.there ? *each.from : 0;
  now->copies = left;
}
DEVICE float bf16_f(u32 v) { return AS_FLOAT(v << 16); }
DEVICE u32 f_bf16(float v) {
  if (v != v) return 0x7fff;
  const u32 u = AS_BITS(v);
  return (u + 0x7fff + ((u >> 16) & 1)) >> 16;
}
DEVICE float f16_f(u32 v) { const u16 b = v; _Float16 h; memcpy(&h, &b, 2); return h; }
DEVICE u32 f_f16(float v) { if (v != v) return 0x7fff; _Float16 h = v; u16 b; memcpy(&b, &h, 2); return b; }
DEVICE u32 f_tf32(float v) { return v != v ? 0x7fffe000u : (AS_BITS(v) + 0x1000) & 0xffffe000u; }
DEVICE float tanh_fast(float v) { return tanhf(v); }
DEVICE float exp_quick(float v) { return expf(v); }
DEVICE float quotient_quick(float a, float b) { return a / b; }
template <int K, class F> UNSEEN DEVICE void mma(float* d, const u32* a, u32 b0, u32 b1, F number) {
  const int each = K / 8;  // numbers of a word
  u32* mine = slot(LANE);
  for (int i = 0; i < 4; ++i) mine[i] = a[i];
  mine[4] = b0;
  mine[5] = b1;
  meet(now->warp);
  const int g = LANE >> 2, q = LANE & 3;
  for (int i = 0; i < 4; ++i) {
    const int row = i >> 1, column = 2 * q + (i & 1);
    float sum = d[i];
    for (int half = 0; half < 2; ++half)
      for (int k = 0; k < 4; ++k)
        for (int e = 0; e < each; ++e)
          sum += number(slot(g * 4 + k)[2 * half + row], e) * number(slot(column * 4 + k)[4 + half], e);
    d[i] = sum;
  }
  meet(now->warp);
}
DEVICE void mma_bf16(float* d, const u32* a, u32 b0, u32 b1) {
  mma<16>(d, a, b0, b1, [](u32 w, int i) { return bf16_f(i ? w >> 16 : w & 0xffff); });
}
DEVICE void mma_f16(float* d, const u32* a, u32 b0, u32 b1) {
  mma<16>(d, a, b0, b1, [](u32 w, int i) { return f16_f(i ? w >> 16 : w & 0xffff); });
}
DEVICE void mma_tf32(float* d, const u32* a, u32 b0, u32 b1) {
  mma<8>(d, a, b0, b1, [](u32 w, int) { return AS_FLOAT(w & 0xffffe000u); });
}
UNSEEN static void run(Fiber* f) {
  now = f;
  in_kernel = true;
  swap(&home, &f->context);
  in_kernel = false;
}
UNSEEN static bool waits(const Fiber* f) { return f->at && f->at->turn == f->turn; }
// Some block some of whose warps run, one after the other, up to where they wait for others: at most so far.
UNSEEN static void run_badly(const std::vector<Fiber*>& all, int threads) {
  const size_t block = chance(all.size() / threads) * threads;
  const int far[] = {1, 4, 20, 100};
  for (int bursts = 1 + chance(12); bursts; --bursts) {
    Fiber* const* warp = &all[block + chance(threads / 32) * 32];
    for (int turns = far[chance(4)]; turns && !given_up; --turns) {
      bool moved = false;
      for (int l = 0; l < 32; ++l)
        if (!warp[l]->done && !waits(warp[l])) {
          moved = true;
          run(warp[l]);
        }
      if (!moved) break;
    }
  }
  for (size_t some = chance(under_way.size() + 1); some; --some) arrive(chance(under_way.size()));
}
static void (*entry)();
UNSEEN static void begin() {
  entry();
  now->done = true;
  give_way();
}
// Every block runs, each fiber in its turn, until all are done or one gives up.
UNSEEN static void run_grid(Place grid, int threads, int shared, void (*body)()) {
  entry = body;
  gridDim_ = grid;
  shared_bytes = shared;
  threads_each = threads;
  begin_to_look(grid.x * grid.y);
  given_up = false;
  broken = 0;
  under_way.clear();
  std::vector<Fiber*> all;
  for (int y = 0; y < grid.y; ++y)
    for (int x = 0; x < grid.x; ++x) {
      Meeting* block = new Meeting{threads};
      auto memory = (unsigned char*)aligned_alloc(128, (shared + 128) / 128 * 128);
      memset(memory, 255, shared);
      for (int w = 0; w < threads / 32; ++w) {
        Meeting* warp = new Meeting{32};
        auto slots = (u32(*)[32][8])calloc(1, sizeof(u32[32][8]));
        for (int l = 0; l < 32; ++l) {
          Fiber* f = new Fiber;
          f->thread = {w * 32 + l, 0};
          f->block = {x, y};
          f->warp = warp;
          f->all = block;
          f->slots = slots;
          f->shared = memory;
          f->stack = aligned_alloc(16, STACK);
          make(&f->context, f->stack, begin);
          all.push_back(f);
        }
      }
    }
  for (bool left = true; left && !given_up;) {
    left = false;
    if (adverse) run_badly(all, threads);
    for (Fiber* f : all)
      if (!f->done) {
        left = true;
        if (!adverse && !waits(f)) run(f);
      }
  }
  while (!under_way.empty()) arrive(0);
  for (size_t i = 0; i < all.size(); ++i) {
    Fiber* f = all[i];
    if (f->thread.x % 32 == 0) { free(f->slots); delete f->warp; }
    if (f->thread.x == 0) { free(f->shared); delete f->all; }
  }
  for (Fiber* f : all) { free(f->stack); delete f; }
  end_to_look(grid.x * grid.y);
}

// Kernels for a GPU on a CPU: what prelude.cuh calls of a device, for g++. Every thread is a fiber that runs until it
// meets others: in a block, in a warp, in a matrix product, or in vain before memory that is not there yet.
//
// In turn, or as badly as a device might (`adverse`): a warp or a block runs far ahead while others stand still, and
// every word that is posted arrives by itself, some time later, in any order.
#include <ucontext.h>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>
#define EMULATED
#define MOST_LOOKS (adverse ? 200000 : 3000)
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;
typedef long long i64;
#define DEVICE static inline
#define __global__
#define __launch_bounds__(...)
#define __restrict__
struct alignas(16) Quad { u32 w[4]; };
struct Place { int x, y; };
struct Meeting { int wanted = 0, here = 0, turn = 0; };
struct Fiber {
  ucontext_t context;
  void* stack;
  Place thread, block;
  Meeting *warp, *all;
  u32 (*slots)[32][8];
  unsigned char* shared;
  bool done = false;
  Meeting* at = nullptr;  // where it waits, and for what turn to be over
  int turn = 0;
};
struct Posted { u32* to; u32 value; };
static Fiber* now;
static ucontext_t home;
static Place gridDim;
static bool given_up;
static u32 adverse;  // not zero: where the numbers begin by which it is decided
static int broken;  // rules of docs/decisions/0039: 1, a place was not marked, or is written twice; 2, a number is ABSENT
static std::vector<Posted> under_way;
static u32 chance(u32 below) {
  adverse ^= adverse << 13, adverse ^= adverse >> 17, adverse ^= adverse << 5;
  return adverse % below;
}
#define threadIdx (now->thread)
#define blockIdx (now->block)
#define SHARED_MEMORY unsigned char* shared = now->shared
#define LANE (now->thread.x & 31)
static void give_way() { swapcontext(&now->context, &home); }
#define GIVE_UP { *late = 1; given_up = true; for (;;) give_way(); }
static void meet(Meeting* m) {
  if (++m->here == m->wanted) { m->here = 0; ++m->turn; return; }
  now->at = m, now->turn = m->turn;
  while (m->turn == now->turn) give_way();
  now->at = nullptr;
}
static void __syncthreads() { meet(now->all); }
static long long clock64() { static long long c = 0; return c += 1000; }
static u32* slot(int lane) { return (*now->slots)[lane]; }
static u32 __shfl_xor_sync(u32, u32 v, int x) {
  slot(LANE)[0] = v;
  meet(now->warp);
  const u32 r = slot(LANE ^ x)[0];
  meet(now->warp);
  return r;
}
static bool __any_sync(u32, bool v) {
  slot(LANE)[0] = v;
  meet(now->warp);
  bool r = false;
  for (int i = 0; i < 32; ++i) r |= slot(i)[0];
  meet(now->warp);
  return r;
}
DEVICE float AS_FLOAT(u32 v) { float f; memcpy(&f, &v, 4); return f; }
DEVICE u32 AS_BITS(float v) { u32 f; memcpy(&f, &v, 4); return f; }
static void arrive(size_t i) {
  *under_way[i].to = under_way[i].value;
  under_way[i] = under_way.back();
  under_way.pop_back();
}
DEVICE Quad load_posted(const void* p) {
  Quad found;
  for (int i = 0; i < 4; ++i) {
    if (adverse && !under_way.empty() && chance(4) == 0) arrive(chance(under_way.size()));
    found.w[i] = ((const u32*)p)[i];
  }
  return found;
}
DEVICE void post(void* p, u32 v) {
  if (*(u32*)p != 0xffffffffu) broken |= 1;
  if (v == 0xffffffffu) broken |= 2;
  if (adverse) under_way.push_back({(u32*)p, v});
  else *(u32*)p = v;
}
DEVICE u32 load_u16(const void* p) { return *(const u16*)p; }
DEVICE u32 load_u32(const void* p) { return *(const u32*)p; }
DEVICE void copy_ahead(u32* to, const void* from, bool there) { *to = there ? *(const u32*)from : 0; }
DEVICE void end_group() {}
template <int N> DEVICE void wait_until_left() {}
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
template <int K, class F> DEVICE void mma(float* d, const u32* a, u32 b0, u32 b1, F number) {
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
static void run(Fiber* f) {
  now = f;
  swapcontext(&home, &f->context);
}
// Some block some of whose warps run, one after the other, up to where they wait for others: at most so far.
static void run_badly(const std::vector<Fiber*>& all, int threads) {
  const size_t block = chance(all.size() / threads) * threads;
  const int far[] = {1, 4, 20, 100};
  for (int bursts = 1 + chance(12); bursts; --bursts) {
    Fiber* const* warp = &all[block + chance(threads / 32) * 32];
    for (int turns = far[chance(4)]; turns && !given_up; --turns) {
      bool moved = false;
      for (int l = 0; l < 32; ++l)
        if (!warp[l]->done && !(warp[l]->at && warp[l]->at->turn == warp[l]->turn)) {
          moved = true;
          run(warp[l]);
        }
      if (!moved) break;
    }
  }
  for (size_t some = chance(under_way.size() + 1); some; --some) arrive(chance(under_way.size()));
}
// Every block runs, each fiber in its turn, until all are done or one gives up.
template <class F> static void run_grid(Place grid, int threads, int shared, F* body) {
  static F* entry;
  entry = body;
  gridDim = grid;
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
          f->stack = malloc(65536);
          getcontext(&f->context);
          f->context.uc_stack = {f->stack, 0, 65536};
          f->context.uc_link = &home;
          makecontext(&f->context, (void (*)())(+[]() { (*entry)(); now->done = true; }), 0);
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
        if (!adverse) run(f);
      }
  }
  while (!under_way.empty()) arrive(0);
  for (size_t i = 0; i < all.size(); ++i) {
    Fiber* f = all[i];
    if (f->thread.x % 32 == 0) { free(f->slots); delete f->warp; }
    if (f->thread.x == 0) { free(f->shared); delete f->all; }
  }
  for (Fiber* f : all) { free(f->stack); delete f; }
}

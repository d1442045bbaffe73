// What generated kernels call. No headers: NVRTC needs nothing but this text. Where EMULATED is defined another text has
// come before, with the same words for a CPU (tests/gpu/emulation.h).
#ifndef EMULATED
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef long long i64;
#define DEVICE __device__ __forceinline__
#define SHARED_MEMORY extern __shared__ __align__(16) unsigned char shared[]
#define AS_FLOAT(x) __uint_as_float(x)
#define AS_BITS(x) __float_as_uint(x)
struct __align__(16) Quad { u32 w[4]; };

// Values that other blocks wait for: written and read in L2, past L1; each 32-bit word says by itself that it is there.
DEVICE Quad load_posted(const void* p) {
  Quad r;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(r.w[0]), "=r"(r.w[1]), "=r"(r.w[2]), "=r"(r.w[3]) : "l"(p) : "memory");
  return r;
}
DEVICE void post(void* p, u32 v) { asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" :: "l"(p), "r"(v) : "memory"); }

// Values that nobody writes while the kernel runs.
DEVICE u32 load_u16(const void* p) { u16 v; asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(v) : "l"(p)); return v; }
DEVICE u32 load_u32(const void* p) { u32 v; asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(p)); return v; }
DEVICE void copy_ahead(u32* to, const void* from, bool there) {  // 4 bytes, zero if they are not there
  const u32 at = (u32)__cvta_generic_to_shared(to), size = there ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" :: "r"(at), "l"(from), "r"(size) : "memory");
}
DEVICE void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> DEVICE void wait_until_left() { asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory"); }

DEVICE float bf16_f(u32 v) { return __uint_as_float(v << 16); }
DEVICE u32 f_bf16(float v) { u16 r; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(v)); return r; }
DEVICE float f16_f(u32 v) { float r; asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"((u16)v)); return r; }
DEVICE u32 f_f16(float v) { u16 r; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(v)); return r; }
DEVICE u32 f_tf32(float v) { u32 r; asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(v)); return r; }
DEVICE float tanh_fast(float v) { float r; asm("tanh.approx.f32 %0, %1;" : "=f"(r) : "f"(v)); return r; }
DEVICE float exp_quick(float v) { return __expf(v); }
DEVICE float quotient_quick(float a, float b) { return __fdividef(a, b); }

// d (16 units, 8 rows) += a (16 units, K) b (K, 8 rows), by all lanes of a warp together.
#define MATRIX_PRODUCT(NAME, SHAPE, T) \
DEVICE void NAME(float* d, const u32* a, u32 b0, u32 b1) { \
  asm("mma.sync.aligned." SHAPE ".row.col.f32." T "." T ".f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};" \
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1)); }
MATRIX_PRODUCT(mma_bf16, "m16n8k16", "bf16")
MATRIX_PRODUCT(mma_f16, "m16n8k16", "f16")
MATRIX_PRODUCT(mma_tf32, "m16n8k8", "tf32")
#define MOST_LOOKS 4000000
#define GIVE_UP { *late = 1; return; }
#endif

// A word that nobody has posted yet: memory that is waited for is filled with it. No number is written as it: the
// conversions make 0x7fff of every NaN of 16 bits, and f_f32 a NaN of another pattern.
#define ABSENT 0xffffffffu
DEVICE u32 f_f32(float v) { return v != v ? 0x7fffffffu : AS_BITS(v); }
DEVICE float f32_f(u32 v) { return AS_FLOAT(v); }
DEVICE bool has_absent(const Quad& v) {
  const u32 a = v.w[0] > v.w[1] ? v.w[0] : v.w[1], b = v.w[2] > v.w[3] ? v.w[2] : v.w[3];
  return (a > b ? a : b) == ABSENT;
}

DEVICE void mma_tf32_once(float* d, const u32* a, u32 b0, u32 b1) {
  u32 r[4];
  for (int i = 0; i < 4; ++i) r[i] = f_tf32(AS_FLOAT(a[i]));
  mma_tf32(d, r, f_tf32(AS_FLOAT(b0)), f_tf32(AS_FLOAT(b1)));
}
// Near float32: each operand as the sum of two TF32 numbers, their product without that of the two small parts
// (Markidis et al. 2018, "NVIDIA tensor core programmability, performance and precision").
DEVICE void mma_tf32_thrice(float* d, const u32* a, u32 b0, u32 b1) {
  u32 high[4], low[4];
  for (int i = 0; i < 4; ++i) {
    high[i] = f_tf32(AS_FLOAT(a[i]));
    low[i] = f_tf32(AS_FLOAT(a[i]) - AS_FLOAT(high[i]));
  }
  const u32 h0 = f_tf32(AS_FLOAT(b0)), h1 = f_tf32(AS_FLOAT(b1));
  const u32 l0 = f_tf32(AS_FLOAT(b0) - AS_FLOAT(h0)), l1 = f_tf32(AS_FLOAT(b1) - AS_FLOAT(h1));
  mma_tf32(d, low, h0, h1);
  mma_tf32(d, high, l0, l1);
  mma_tf32(d, high, h0, h1);
}

// Four lanes have each a part of the sums of so many rows. Lane q gets the sum of row q % ROWS, added up in one order.
DEVICE float of_lane(float v, int x) { return AS_FLOAT(__shfl_xor_sync(0xffffffffu, AS_BITS(v), x)); }
template <int ROWS> DEVICE float total_of_lanes(const float* parts, int q) {
  if (ROWS == 1) {
    const float pair = parts[0] + of_lane(parts[0], 1);
    return pair + of_lane(pair, 2);
  }
  const bool odd = q & 1, upper = q & 2;
  const float pair = (odd ? parts[1] : parts[0]) + of_lane(odd ? parts[0] : parts[1], 1);
  if (ROWS == 2) return pair + of_lane(pair, 2);
  const float other = (odd ? parts[3] : parts[2]) + of_lane(odd ? parts[2] : parts[3], 1);
  return (upper ? other : pair) + of_lane(upper ? pair : other, 2);
}

// NaN stays NaN in all of them, as in torch.
DEVICE float sigmoid_exact(float v) { return quotient_quick(1.f, 1.f + exp_quick(-v)); }
DEVICE float tanh_exact(float v) {
  const float s = v * v;  // near zero a polynomial, where the quotient would lose digits
  const float small = v * (1.f + s * (-0.333333333f + s * (0.133333333f + s * (-0.053968254f + s * 0.021869489f))));
  const float large = 1.f - quotient_quick(2.f, 1.f + exp_quick(2.f * v));
  return s < 0.0225f ? small : large;
}
DEVICE float sigmoid_fast(float v) { return 0.5f + 0.5f * tanh_fast(0.5f * v); }
DEVICE float relu(float v) { return v < 0.f ? 0.f : v; }
DEVICE float softplus(float v) { return v > 20.f ? v : log1pf(expf(v)); }
DEVICE float least(float a, float b) { return a < b || a != a ? a : b; }
DEVICE float greatest(float a, float b) { return a > b || a != a ? a : b; }
DEVICE float gelu(float v) { return 0.5f * v * (1.f + erff(0.70710678f * v)); }
DEVICE float silu_exact(float v) { return v * sigmoid_exact(v); }
DEVICE float silu_fast(float v) { return v * sigmoid_fast(v); }
DEVICE float elu(float v) { return v > 0.f ? v : expm1f(v); }
DEVICE float hard_sigmoid(float v) { return least(greatest(v + 3.f, 0.f), 6.f) * (1.f / 6.f); }
DEVICE float sign(float v) { return v > 0.f ? 1.f : v < 0.f ? -1.f : 0.f; }

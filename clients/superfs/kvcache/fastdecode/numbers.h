/* Vectors of float32, and the types in which numbers are kept. */
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#define LANES 16
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t halves __attribute__((vector_size(32), aligned(2), may_alias));
typedef int8_t bytes __attribute__((vector_size(16), aligned(1), may_alias));
typedef float __attribute__((may_alias)) f32;
typedef uint16_t __attribute__((may_alias)) u16;
typedef uint32_t __attribute__((may_alias, aligned(2))) u32;

enum type { F32, BF16, F16, I8 };
static const int SIZE[] = {4, 2, 2, 1};

INLINE float from_half(uint16_t h) {
#if defined(__F16C__)
    return _cvtsh_ss(h);
#else
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 1023, out;
    if (e == 31) out = sign | 0x7f800000u | m << 13;
    else if (e) out = sign | (e + 112) << 23 | m << 13;
    else { float f = (float)m * 0x1p-24f; memcpy(&out, &f, 4); out |= sign; }
    float f;
    memcpy(&f, &out, 4);
    return f;
#endif
}

INLINE uint16_t to_half(float f) {
#if defined(__F16C__)
    return _cvtss_sh(f, 0);
#else
    uint32_t x;
    memcpy(&x, &f, 4);
    uint32_t sign = x >> 16 & 0x8000, a = x & 0x7fffffff;
    if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
    if (a < 0x38800000) {
        float g;
        memcpy(&g, &a, 4);
        return (uint16_t)(sign | (uint32_t)lrintf(g * 0x1p24f));
    }
    a += 0xfff + (a >> 13 & 1);
    return (uint16_t)(sign | (a - 0x38000000) >> 13);
#endif
}

INLINE float from_bf16(uint16_t h) {
    uint32_t x = (uint32_t)h << 16;
    float f;
    memcpy(&f, &x, 4);
    return f;
}

INLINE uint16_t to_bf16(float f) {
    uint32_t x;
    memcpy(&x, &f, 4);
    if ((x & 0x7fffffff) > 0x7f800000) return (uint16_t)(x >> 16 | 0x40);
    return (uint16_t)((x + 0x7fff + (x >> 16 & 1)) >> 16);
}

INLINE vec load(enum type type, const char *at) {
    switch (type) {
    case F32: return *(const vec *)at;
    case BF16: {
#if defined(__AVX512F__)
        __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)at));
        return (vec)_mm512_slli_epi32(wide, 16);
#else
        uvec wide = __builtin_convertvector(*(const halves *)at, uvec) << 16;
        return (vec)wide;
#endif
    }
    case F16: {
#if defined(__AVX512F__)
        return (vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)at));
#else
        vec out;
        for (int i = 0; i < LANES; i++) out[i] = from_half(((const u16 *)at)[i]);
        return out;
#endif
    }
    default:
#if defined(__AVX512F__)
        return (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)at)));
#else
        return __builtin_convertvector(__builtin_convertvector(*(const bytes *)at, ivec), vec);
#endif
    }
}

INLINE float get(enum type type, const char *from, int64_t at) {
    switch (type) {
    case F32: return ((const f32 *)from)[at];
    case BF16: return from_bf16(((const u16 *)from)[at]);
    default: return from_half(((const u16 *)from)[at]);
    }
}

INLINE void put(enum type type, char *to, int64_t at, float value) {
    switch (type) {
    case F32: ((f32 *)to)[at] = value; break;
    case BF16: ((u16 *)to)[at] = to_bf16(value); break;
    default: ((u16 *)to)[at] = to_half(value);
    }
}

INLINE float sum_of(vec v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#else
    float t[LANES];
    memcpy(t, &v, sizeof t);
    for (int w = LANES / 2; w; w /= 2)
        for (int i = 0; i < w; i++) t[i] += t[i + w];
    return t[0];
#endif
}

INLINE float max_of(vec v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#else
    float t[LANES];
    memcpy(t, &v, sizeof t);
    for (int w = LANES / 2; w; w /= 2)
        for (int i = 0; i < w; i++) t[i] = t[i] > t[i + w] ? t[i] : t[i + w];
    return t[0];
#endif
}

INLINE vec choose(ivec which, vec a, vec b) {
    return (vec)(((ivec)a & which) | ((ivec)b & ~which));
}

/* exp of what is not positive; below -87 it is nothing. Coefficients of Cephes. */
INLINE vec exp_of(vec x) {
    ivec nothing = (ivec)(x < -87.0f);
    x = choose(nothing, x * 0.0f, x);
    vec n = x * 1.44269504088896341f + 12582912.0f;
    n = n - 12582912.0f;
    vec r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    ivec e = (__builtin_convertvector(n, ivec) + 127) << 23;
    return choose(nothing, x * 0.0f, p * (vec)e);
}


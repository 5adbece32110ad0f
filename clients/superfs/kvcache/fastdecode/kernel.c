/* Attention over paged keys and values, one token of each sequence, accumulated in float32.
 *
 * The reference of what the memory of an R-worker holds. For each layer and each page (PAGE tokens of
 * one sequence), for each head of keys and values:
 *
 *     keys    [dim][PAGE]   numbers of the storage type: a page's scores are sums over whole vectors
 *     values  [PAGE][dim]
 *     scales  [2][PAGE]     float32, with int8 only: of a token's key, of its value
 *
 * A row is one new token of one sequence: its key and value are written to their place, then its
 * queries attend everything up to and with itself. Rows touch only their own pages, so that threads
 * take rows as they like. What comes out for a row does not depend on the other rows.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#define PAGE 32
#define LANES 16
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t halves __attribute__((vector_size(32), aligned(2), may_alias));
typedef int8_t bytes __attribute__((vector_size(16), aligned(1), may_alias));
typedef float __attribute__((may_alias)) f32;
typedef uint16_t __attribute__((may_alias)) u16;

enum type { F32, BF16, F16, I8 };
static const int SIZE[] = {4, 2, 2, 1};

struct form {  /* the same in kernel.py */
    int64_t heads, kv_heads, dim, storage, wire, page_bytes, head_bytes;
    float scale;
};

/* ---- numbers */

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

/* ---- one page, for `count` queries of one head of keys */

static const ivec FIRST = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

INLINE void values_of(enum type type, int count, int blocks, const char *values, int64_t dim,
                      int64_t d, int tokens, const float (*weights)[PAGE], const float *faded,
                      float *sums) {
    vec a[4][4];
    for (int n = 0; n < count; n++)
        for (int b = 0; b < blocks; b++)
            a[n][b] = *(const vec *)(sums + n * dim + d + b * LANES) * faded[n];
    for (int t = 0; t < tokens; t++) {
        const char *row = values + (t * dim + d) * SIZE[type];
        vec v[4];
        for (int b = 0; b < blocks; b++) v[b] = load(type, row + b * LANES * SIZE[type]);
        for (int n = 0; n < count; n++)
            for (int b = 0; b < blocks; b++) a[n][b] += v[b] * weights[n][t];
    }
    for (int n = 0; n < count; n++)
        for (int b = 0; b < blocks; b++) *(vec *)(sums + n * dim + d + b * LANES) = a[n][b];
}

INLINE void page_of(enum type type, int count, const char *page, int64_t dim, int tokens,
                    const float *queries, float *sums, float *highest, float *total) {
    const char *values = page + dim * PAGE * SIZE[type];
    const f32 *scales = (const f32 *)(values + dim * PAGE * SIZE[type]);
    vec s[4][2];
    for (int n = 0; n < count; n++) s[n][0] = s[n][1] = (vec){0};
    for (int64_t d = 0; d < dim; d++) {
        vec k0 = load(type, page + d * PAGE * SIZE[type]);
        vec k1 = load(type, page + (d * PAGE + LANES) * SIZE[type]);
        for (int n = 0; n < count; n++) {
            float q = queries[n * dim + d];
            s[n][0] += k0 * q;
            s[n][1] += k1 * q;
        }
    }
    float weights[4][PAGE], faded[4];
    ivec in0 = (ivec)(FIRST < tokens), in1 = (ivec)(FIRST + LANES < tokens);
    for (int n = 0; n < count; n++) {
        vec least = (vec){0} - 1e30f, none = (vec){0};
        if (type == I8) {
            s[n][0] *= *(const vec *)scales;
            s[n][1] *= *(const vec *)(scales + LANES);
        }
        s[n][0] = choose(in0, s[n][0], least);
        s[n][1] = choose(in1, s[n][1], least);
        float a = max_of(s[n][0]), b = max_of(s[n][1]);
        float high = a > b ? a : b;
        high = high > highest[n] ? high : highest[n];
        vec w0 = choose(in0, exp_of(s[n][0] - high), none);
        vec w1 = choose(in1, exp_of(s[n][1] - high), none);
        faded[n] = exp_of(none + (highest[n] - high))[0];
        highest[n] = high;
        total[n] = total[n] * faded[n] + sum_of(w0 + w1);
        if (type == I8) {
            w0 *= choose(in0, *(const vec *)(scales + PAGE), none);
            w1 *= choose(in1, *(const vec *)(scales + PAGE + LANES), none);
        }
        *(vec *)weights[n] = w0;
        *(vec *)(weights[n] + LANES) = w1;
    }
    int64_t d = 0;
    for (; d + 4 * LANES <= dim; d += 4 * LANES)
        values_of(type, count, 4, values, dim, d, tokens, weights, faded, sums);
    for (; d < dim; d += LANES)
        values_of(type, count, 1, values, dim, d, tokens, weights, faded, sums);
}

/* ---- keys and values to their place */

INLINE void store_one(enum type type, enum type wire, char *head, int64_t dim, int at,
                      const char *key, const char *value, int64_t from) {
    char *values = head + dim * PAGE * SIZE[type];
    if (type != I8) {
        for (int64_t d = 0; d < dim; d++) put(type, head, d * PAGE + at, get(wire, key, from + d));
        for (int64_t d = 0; d < dim; d++) put(type, values, at * dim + d, get(wire, value, from + d));
        return;
    }
    f32 *scales = (f32 *)(values + dim * PAGE);
    for (int side = 0; side < 2; side++) {
        const char *row = side ? value : key;
        float most = 0;
        for (int64_t d = 0; d < dim; d++) {
            float x = fabsf(get(wire, row, from + d));
            most = x > most ? x : most;
        }
        float scale = most / 127.0f, inverse = most > 0 ? 127.0f / most : 0;
        scales[side * PAGE + at] = scale;
        for (int64_t d = 0; d < dim; d++) {
            int8_t x = (int8_t)lrintf(get(wire, row, from + d) * inverse);
            if (side) ((int8_t *)values)[at * dim + d] = x;
            else ((int8_t *)head)[d * PAGE + at] = x;
        }
    }
}

INLINE void store_token(enum type type, const struct form *f, char *page, int at, const char *k,
                        const char *v, int64_t row) {
    for (int64_t h = 0; h < f->kv_heads; h++) {
        int64_t from = (row * f->kv_heads + h) * f->dim;
        char *head = page + h * f->head_bytes;
        switch (f->wire) {
        case F32: store_one(type, F32, head, f->dim, at, k, v, from); break;
        case BF16: store_one(type, BF16, head, f->dim, at, k, v, from); break;
        default: store_one(type, F16, head, f->dim, at, k, v, from);
        }
    }
}

/* ---- whole rows */

INLINE void attend_row(enum type type, const struct form *f, const char *layer,
                       const int32_t *table, int64_t length, const char *q, char *o, int64_t row,
                       float *scratch) {
    const int64_t dim = f->dim, width = f->heads * dim, group = f->heads / f->kv_heads;
    float *queries = scratch, *sums = queries + width, *highest = sums + width;
    float *total = highest + f->heads;
    for (int64_t i = 0; i < width; i++) queries[i] = get(f->wire, q, row * width + i) * f->scale;
    memset(sums, 0, sizeof(float) * width);
    for (int64_t h = 0; h < f->heads; h++) highest[h] = -1e30f, total[h] = 0;
    const int64_t pages = (length + PAGE - 1) / PAGE;
    for (int64_t p = 0; p < pages; p++) {
        const char *page = layer + table[p] * f->page_bytes;
        int tokens = length - p * PAGE < PAGE ? (int)(length - p * PAGE) : PAGE;
        if (p + 1 < pages) __builtin_prefetch(layer + table[p + 1] * f->page_bytes);
        for (int64_t k = 0; k < f->kv_heads; k++, page += f->head_bytes) {
            int64_t h = k * group, end = h + group;
            for (; h + 4 <= end; h += 4)
                page_of(type, 4, page, dim, tokens, queries + h * dim, sums + h * dim, highest + h,
                        total + h);
            for (; h + 2 <= end; h += 2)
                page_of(type, 2, page, dim, tokens, queries + h * dim, sums + h * dim, highest + h,
                        total + h);
            for (; h < end; h++)
                page_of(type, 1, page, dim, tokens, queries + h * dim, sums + h * dim, highest + h,
                        total + h);
        }
    }
    for (int64_t h = 0; h < f->heads; h++)
        for (int64_t d = 0; d < dim; d++)
            put(f->wire, o, row * width + h * dim + d, sums[h * dim + d] / total[h]);
}

INLINE void rows_of(enum type type, const struct form *f, char *layer, const int32_t *tables,
                    int64_t stride, const int32_t *slots, const int64_t *lengths, const char *q,
                    const char *k, const char *v, char *o, int64_t first, int64_t last,
                    float *scratch) {
    for (int64_t row = first; row < last; row++) {
        const int32_t *table = tables + slots[row] * stride;
        int64_t length = lengths[row], width = f->heads * f->dim * SIZE[f->wire];
        if (!length) {  /* it found no room */
            memset(o + row * width, 0, width);
            continue;
        }
        int64_t at = length - 1;
        char *page = layer + table[at / PAGE] * f->page_bytes;
        store_token(type, f, page, (int)(at % PAGE), k, v, row);
        attend_row(type, f, layer, table, length, q, o, row, scratch);
    }
}

/* `lengths` with the new token; `scratch`: 2 * heads * (dim + 1) floats, of this thread. */
void superfs_rows(const struct form *f, char *layer, const int32_t *tables, int64_t stride,
                  const int32_t *slots, const int64_t *lengths, const char *q, const char *k,
                  const char *v, char *o, int64_t first, int64_t last, float *scratch) {
#define ROWS(type) rows_of(type, f, layer, tables, stride, slots, lengths, q, k, v, o, first, last, scratch)
    switch (f->storage) {
    case F32: ROWS(F32); break;
    case BF16: ROWS(BF16); break;
    case F16: ROWS(F16); break;
    default: ROWS(I8);
    }
}

/* Tokens `first` to `first + count` of one sequence; row 0 of k and v is token `first`. */
void superfs_fill(const struct form *f, char *layer, const int32_t *table, int64_t first,
                  int64_t count, const char *k, const char *v) {
    for (int64_t row = 0; row < count; row++) {
        int64_t at = first + row;
        char *page = layer + table[at / PAGE] * f->page_bytes;
        switch (f->storage) {
        case F32: store_token(F32, f, page, (int)(at % PAGE), k, v, row); break;
        case BF16: store_token(BF16, f, page, (int)(at % PAGE), k, v, row); break;
        case F16: store_token(F16, f, page, (int)(at % PAGE), k, v, row); break;
        default: store_token(I8, f, page, (int)(at % PAGE), k, v, row);
        }
    }
}

/* Attention over paged keys and values, one token of each sequence, accumulated in float32.
 *
 * The reference of what the memory of an R-worker holds. For each layer and each page (PAGE tokens
 * of one sequence), for each head of keys and values:
 *
 *     keys    [dim][PAGE]          numbers of the storage type: a page's scores are whole vectors
 *     values  [PAGE][dim]
 *     scales  [2][PAGE]            float32, with int8 only: of a token's key, of its value
 *
 * and of bfloat16, where two numbers that are added up one after the other lie in one word:
 *
 *     keys    [dim / 2][PAGE][2]
 *     values  [PAGE / 2][dim][2]   a token that has no second one beside it yet has zeros there
 *
 * A row is one new token of one sequence: its key and value are written to their place, then its
 * queries attend everything up to and with itself. Rows touch only their own pages, and heads of
 * keys their own part of these, so that threads take heads of rows as they like. What comes out for
 * a row does not depend on the other rows.
 *
 * Memory is read once for all queries that share a head of keys: BLOCK pages at a time, whose
 * scores become weights together. What comes later is fetched meanwhile. Where the processor
 * multiplies bfloat16 (and q is of that type) weights are rounded to it, like on GPUs; sums are
 * float32.
 */
#include "numbers.h"

#define PAGE 32
#define BLOCK 4
#define AHEAD 2  /* pages that are fetched before they are read */
#define TOKENS (BLOCK * PAGE)
#define TOGETHER 4  /* queries, at most */

struct form {  /* the same in kernel.py */
    int64_t heads, kv_heads, dim, storage, wire, page_bytes, head_bytes;
    float scale;
};

/* ---- BLOCK pages, for `count` queries of one head of keys */

static const ivec FIRST = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

struct queries {  /* of one head of keys: as they came, and float32 */
    const u32 *pairs;
    const float *plain;
};

struct weights {
    float plain[TOGETHER][TOKENS] __attribute__((aligned(64)));  /* scores, before */
    u16 pairs[TOGETHER][TOKENS] __attribute__((aligned(64)));
};

/* Into the second cache: the first would be full of what is not read yet. */
INLINE void fetch(const char *at, int64_t size) {
    for (int64_t n = 0; n < size; n += 64) __builtin_prefetch(at + n, 0, 2);
}

#if defined(__AVX512BF16__) && defined(__AVX512F__)
#define PAIRS 1
INLINE vec add_pairs(vec sum, uvec a, uint32_t b) {
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)_mm512_set1_epi32((int)b));
}
INLINE vec round_pairs(vec w, u16 *to) {
    __m256i low = (__m256i)_mm512_cvtneps_pbh((__m512)w);
    _mm256_storeu_si256((__m256i *)to, low);
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(low), 16);
}
#else
#define PAIRS 0
INLINE vec add_pairs(vec sum, uvec a, uint32_t b) { (void)a; (void)b; return sum; }
INLINE vec round_pairs(vec w, u16 *to) { (void)to; return w; }
#endif

/* Sums over dim of one page's keys. `ahead`: what is read later. */
INLINE void scores_of(enum type type, int pairs, int count, const char *keys, const char *ahead,
                      int64_t dim, struct queries q, float (*scores)[TOKENS]) {
    const int64_t step = type == BF16 ? 2 : 1, size = step * PAGE * SIZE[type];
    vec s[TOGETHER][2];
    for (int n = 0; n < count; n++) s[n][0] = s[n][1] = (vec){0};
    for (int64_t d = 0; d < dim; d += step, keys += size, ahead += size) {
        fetch(ahead, size);
        if (type == BF16) {
            uvec a = *(const uvec *)keys, b = *(const uvec *)(keys + 64);
            if (pairs) {
                for (int n = 0; n < count; n++) {
                    uint32_t two = q.pairs[(n * dim + d) / 2];
                    s[n][0] = add_pairs(s[n][0], a, two);
                    s[n][1] = add_pairs(s[n][1], b, two);
                }
                continue;
            }
            vec a0 = (vec)(a << 16), a1 = (vec)(a & 0xffff0000u);
            vec b0 = (vec)(b << 16), b1 = (vec)(b & 0xffff0000u);
            for (int n = 0; n < count; n++) {
                float one = q.plain[n * dim + d], two = q.plain[n * dim + d + 1];
                s[n][0] += a0 * one;
                s[n][1] += b0 * one;
                s[n][0] += a1 * two;
                s[n][1] += b1 * two;
            }
            continue;
        }
        vec a = load(type, keys), b = load(type, keys + LANES * SIZE[type]);
        for (int n = 0; n < count; n++) {
            s[n][0] += a * q.plain[n * dim + d];
            s[n][1] += b * q.plain[n * dim + d];
        }
    }
    for (int n = 0; n < count; n++) {
        *(vec *)scores[n] = s[n][0];
        *(vec *)(scores[n] + LANES) = s[n][1];
    }
}

/* Scores to weights; of what was summed before with other weights, `faded` is left. */
INLINE void weights_of(enum type type, int pairs, int count, const char *const *pages, int64_t dim,
                       int tokens, float scale, struct weights *w, float *faded, float *highest,
                       float *total) {
    const vec least = (vec){0} - 1e30f, none = (vec){0};
    const int64_t scales = 2 * dim * PAGE * SIZE[type];
    for (int n = 0; n < count; n++) {
        vec most = least, sum = none;
        for (int t = 0; t < tokens; t += LANES) {
            vec *s = (vec *)(w->plain[n] + t);
            if (type == I8) *s *= *(const vec *)(pages[t / PAGE] + scales + t % PAGE * 4);
            *s = choose((ivec)(FIRST + t < tokens), *s * scale, least);
            most = choose((ivec)(*s > most), *s, most);
        }
        float high = max_of(most);
        high = high > highest[n] ? high : highest[n];
        for (int t = 0; t < tokens; t += LANES) {
            vec *s = (vec *)(w->plain[n] + t);
            ivec in = (ivec)(FIRST + t < tokens);
            vec e = choose(in, exp_of(*s - high), none);
            if (pairs) e = round_pairs(e, w->pairs[n] + t);
            sum += e;
            if (type == I8) {
                const vec *of = (const vec *)(pages[t / PAGE] + scales + (PAGE + t % PAGE) * 4);
                e *= choose(in, *of, none);
            }
            *s = e;
        }
        faded[n] = exp_of(none + (highest[n] - high))[0];
        highest[n] = high;
        total[n] = total[n] * faded[n] + sum_of(sum);
    }
}

/* Of `width` vectors of dim, from `d` on. */
INLINE void values_of(enum type type, int pairs, int count, int width, const char *const *pages,
                      int64_t dim, int64_t d, int tokens, const struct weights *w,
                      const float *faded, float *sums) {
    const int64_t side = dim * PAGE * SIZE[type], step = type == BF16 ? 2 : 1;
    const int64_t vector = LANES * SIZE[type] * step, row = dim * SIZE[type] * step;
    vec a[TOGETHER][4];
    for (int n = 0; n < count; n++)
        for (int b = 0; b < width; b++)
            a[n][b] = *(const vec *)(sums + n * dim + d + b * LANES) * faded[n];
    for (int first = 0; first < tokens; first += PAGE) {
        const char *at = pages[first / PAGE] + side + d * SIZE[type] * step;
        const char *next = pages[first / PAGE + AHEAD];
        next += side + d * SIZE[type] * step;
        const int last = tokens - first < PAGE ? tokens : first + PAGE;
        for (int t = first; t < last; t += step, at += row, next += row) {
            fetch(next, width * vector);
            for (int b = 0; b < width; b++) {
                if (type != BF16) {
                    vec v = load(type, at + b * vector);
                    for (int n = 0; n < count; n++) a[n][b] += v * w->plain[n][t];
                    continue;
                }
                uvec v = *(const uvec *)(at + b * vector);
                if (pairs) {
                    for (int n = 0; n < count; n++)
                        a[n][b] = add_pairs(a[n][b], v, *(const u32 *)(w->pairs[n] + t));
                    continue;
                }
                vec one = (vec)(v << 16), two = (vec)(v & 0xffff0000u);
                for (int n = 0; n < count; n++) {
                    a[n][b] += one * w->plain[n][t];
                    a[n][b] += two * w->plain[n][t + 1];
                }
            }
        }
    }
    for (int n = 0; n < count; n++)
        for (int b = 0; b < width; b++) *(vec *)(sums + n * dim + d + b * LANES) = a[n][b];
}

/* `pages`: AHEAD more of them than are read. */
INLINE void block_of(enum type type, int pairs, int count, const char *const *pages, int64_t dim,
                     int tokens, float scale, struct queries q, float *sums, float *highest,
                     float *total) {
    struct weights w;
    float faded[TOGETHER];
    for (int t = 0; t < tokens; t += PAGE) {
        float (*scores)[TOKENS] = (float (*)[TOKENS])(w.plain[0] + t);
        scores_of(type, pairs, count, pages[t / PAGE], pages[t / PAGE + AHEAD], dim, q, scores);
    }
    weights_of(type, pairs, count, pages, dim, tokens, scale, &w, faded, highest, total);
    int64_t d = 0;
    for (; d + 4 * LANES <= dim; d += 4 * LANES)
        values_of(type, pairs, count, 4, pages, dim, d, tokens, &w, faded, sums);
    for (; d < dim; d += LANES)
        values_of(type, pairs, count, 1, pages, dim, d, tokens, &w, faded, sums);
}

/* ---- keys and values to their place */

INLINE int64_t key_at(enum type type, int64_t d, int at) {
    return type == BF16 ? (d / 2 * PAGE + at) * 2 + d % 2 : d * PAGE + at;
}

INLINE int64_t value_at(enum type type, int64_t dim, int at, int64_t d) {
    return type == BF16 ? (at / 2 * dim + d) * 2 + at % 2 : at * dim + d;
}

INLINE void store_one(enum type type, enum type wire, char *head, int64_t dim, int at,
                      const char *key, const char *value, int64_t from) {
    char *values = head + dim * PAGE * SIZE[type];
    if (type != I8) {
        for (int64_t d = 0; d < dim; d++) {
            put(type, head, key_at(type, d, at), get(wire, key, from + d));
            int64_t to = value_at(type, dim, at, d);
            put(type, values, to, get(wire, value, from + d));
            if (type == BF16 && at % 2 == 0) ((u16 *)values)[to + 1] = 0;
        }
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

/* `from`: where its key and its value begin, in numbers of the wire's type. */
INLINE void store_token(enum type type, const struct form *f, char *head, int at, const char *k,
                        const char *v, int64_t from) {
    switch (f->wire) {
    case F32: store_one(type, F32, head, f->dim, at, k, v, from); break;
    case BF16: store_one(type, BF16, head, f->dim, at, k, v, from); break;
    default: store_one(type, F16, head, f->dim, at, k, v, from);
    }
}

/* ---- whole rows */

INLINE void attend(enum type type, int pairs, const struct form *f, const char *head,
                   const int32_t *table, int64_t length, const char *q, char *o, float *scratch) {
    const int64_t dim = f->dim, group = f->heads / f->kv_heads, width = group * dim;
    float *plain = scratch, *sums = plain + width, *highest = sums + width;
    float *total = highest + group;
    if (!pairs)
        for (int64_t i = 0; i < width; i++) plain[i] = get(f->wire, q, i);
    memset(sums, 0, sizeof(float) * width);
    for (int64_t h = 0; h < group; h++) highest[h] = -1e30f, total[h] = 0;
    const int64_t count = (length + PAGE - 1) / PAGE;
    for (int64_t p = 0; p < count; p += BLOCK) {
        const char *pages[BLOCK + AHEAD];
        for (int n = 0; n < BLOCK + AHEAD; n++)
            pages[n] = head + table[p + n < count ? p + n : count - 1] * f->page_bytes;
        const int64_t left = length - p * PAGE;
        const int tokens = left < TOKENS ? (int)left : TOKENS;
#define SOME(number)                                                                              \
    for (; h + number <= group; h += number)                                                      \
        block_of(type, pairs, number, pages, dim, tokens, f->scale,                               \
                 (struct queries){(const u32 *)q + h * dim / 2, plain + h * dim}, sums + h * dim, \
                 highest + h, total + h)
        int64_t h = 0;
        SOME(4);
        SOME(2);
        SOME(1);
#undef SOME
    }
    for (int64_t h = 0; h < group; h++)
        for (int64_t d = 0; d < dim; d++)
            put(f->wire, o, h * dim + d, sums[h * dim + d] / total[h]);
}

INLINE void rows_of(enum type type, int pairs, const struct form *f, char *layer,
                    const int32_t *tables, int64_t stride, const int32_t *slots,
                    const int64_t *lengths, const char *q, const char *k, const char *v, char *o,
                    int64_t *next, int64_t count, float *scratch) {
    const int64_t items = count * f->kv_heads;
    const int64_t size = f->heads / f->kv_heads * f->dim * SIZE[f->wire];
    for (;;) {
        const int64_t item = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
        if (item >= items) return;
        const int64_t row = item / f->kv_heads, at = lengths[row] - 1;
        if (at < 0) {  /* it found no room */
            memset(o + item * size, 0, size);
            continue;
        }
        const int32_t *table = tables + slots[row] * stride;
        char *head = layer + item % f->kv_heads * f->head_bytes;
        store_token(type, f, head + table[at / PAGE] * f->page_bytes, (int)(at % PAGE), k, v,
                    item * f->dim);
        attend(type, pairs, f, head, table, at + 1, q + item * size, o + item * size, scratch);
    }
}

/* `lengths` with the new token. `next`: of all threads together; how many heads of rows are taken.
 * `scratch`: 2 * heads * (dim + 1) floats, of this thread. */
void superfs_rows(const struct form *f, char *layer, const int32_t *tables, int64_t stride,
                  const int32_t *slots, const int64_t *lengths, const char *q, const char *k,
                  const char *v, char *o, int64_t *next, int64_t count, float *scratch) {
#define ROWS(type, pairs)                                                                       \
    rows_of(type, pairs, f, layer, tables, stride, slots, lengths, q, k, v, o, next, count, scratch)
    switch (f->storage) {
    case F32: ROWS(F32, 0); break;
    case BF16:
        if (PAIRS && f->wire == BF16) ROWS(BF16, PAIRS);
        else ROWS(BF16, 0);
        break;
    case F16: ROWS(F16, 0); break;
    default: ROWS(I8, 0);
    }
}

/* Tokens `first` to `first + count` of one sequence. k and v are where token `first` begins;
 * `token_step` and `head_step`, in numbers, are from one to the next. */
void superfs_fill(const struct form *f, char *layer, const int32_t *table, int64_t first,
                  int64_t count, const char *k, const char *v, int64_t token_step,
                  int64_t head_step) {
    for (int64_t h = 0; h < f->kv_heads; h++)
        for (int64_t row = 0; row < count; row++) {
            const int64_t at = first + row, from = row * token_step + h * head_step;
            char *head = layer + table[at / PAGE] * f->page_bytes + h * f->head_bytes;
            switch (f->storage) {
            case F32: store_token(F32, f, head, (int)(at % PAGE), k, v, from); break;
            case BF16: store_token(BF16, f, head, (int)(at % PAGE), k, v, from); break;
            case F16: store_token(F16, f, head, (int)(at % PAGE), k, v, from); break;
            default: store_token(I8, f, head, (int)(at % PAGE), k, v, from);
            }
        }
}

/* The compiled loops: step with fused significance filter, evaluation, merge, codec, assembly of mini-batches.
 *
 * twin.py states each function's contract and computes the same with NumPy; this file is about
 * speed alone. What it holds to:
 *
 * - One step touches a row of a table once to gather it and once to change it. A row is
 *       shared[columns] | residual[columns] | state[columns] | last
 *   so that shared, residual and optimizer state travel in the same cache lines. `last` is the
 *   int32 bit pattern of the step that touched the row last.
 * - Every result is the same bits on every processor: lanes and the order of sums are spelled
 *   out, contraction to fused multiply-add is switched off (setup.py), exp is our own. Hence any
 *   compiler may build it, and any instruction set may be picked at run time.
 * - Every index that is followed has been checked; a bad one is a ValueError.
 *
 * The limited API makes one wheel serve every CPython from 3.11 on.
 */
#include <pyconfig.h>
#ifndef Py_GIL_DISABLED /* a free-threaded Python has no stable ABI, and takes its lock again for this module */
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* native_avx2.c and native_avx512.c are this file once more, for newer processors; PyInit_native picks.
 * Not target_clones: compilers differ in the targets they know there, some run the slowest clone without
 * a word, and it needs a loader that not every C library has. */
#ifndef NEWER
#define VERSION plain
#define TARGETED /* what a loop is compiled for; what is inlined into it goes along */
#endif
#define INLINE static inline __attribute__((always_inline))

enum { LANES = 8, MAX_COLUMNS = 256, BLOCKS = (MAX_COLUMNS + LANES) / LANES, MAX_STRIDE = 1 << 16 };
/* How many lanes a comparison takes at once: compilers do those wider than the target's one by one. */
#ifdef WIDE
#elif defined(__x86_64__)
#define WIDE 8
#else
#define WIDE 4
#endif
#define VECTOR(type, count) __attribute__((vector_size((count) * sizeof(type)), aligned(sizeof(type)), may_alias))
typedef float lanes VECTOR(float, LANES), quad VECTOR(float, 4);
typedef float part VECTOR(float, WIDE);
typedef int32_t truths VECTOR(int32_t, WIDE); /* -1 and 0, or whole numbers */
typedef uint32_t words VECTOR(uint32_t, WIDE);
typedef int32_t marks VECTOR(int32_t, LANES);
typedef uint16_t shorts VECTOR(uint16_t, LANES);
typedef uint8_t octet VECTOR(uint8_t, LANES);

/* ---- lanes. Vectors are handed over by address: how they are passed depends on the target. ---- */

/* For each byte of a mask: the places of its set bits, in order (to pack lanes together); for each
 * bit the number of set ones below it (to spread packed lanes out again); how many are set. */
static marks packing[256], spreading[256];
static uint8_t counting[256];

static void fill_mask_tables(void)
{
    memset(counting, 0, sizeof(counting));
    for (int byte = 0; byte < 256; byte++)
        for (int i = 0; i < LANES; i++) {
            spreading[byte][i] = counting[byte];
            if (byte >> i & 1)
                packing[byte][counting[byte]++] = i;
        }
}

/* Lane i of the result is lane places[i] of `from`; the two may be one. */
INLINE void pick(marks *to, const marks *from, const marks *places)
{
#if !defined(__clang__) /* one instruction, which no compiler sees in the loop */
    *to = __builtin_shuffle(*from, *places);
#elif defined(NEWER)
    *to = (marks)__builtin_ia32_permvarsi256(*from, *places);
#else
    marks picked;
    for (int i = 0; i < LANES; i++)
        picked[i] = (*from)[(*places)[i]];
    *to = picked;
#endif
}

/* True in every lane whose bit is set. */
INLINE void spread_bits(marks *set, uint32_t byte)
{
    const marks bit = {1, 2, 4, 8, 16, 32, 64, 128};
    *set = (((marks){0} + (int32_t)byte) & bit) == bit;
}

/* The other way round. */
INLINE uint32_t gather_bits(const marks *set)
{
    octet bytes = __builtin_convertvector(*set, octet);
    uint64_t u;
    memcpy(&u, &bytes, 8);
    return (uint32_t)((u & 0x0101010101010101u) * 0x0102040810204080u >> 56);
}

INLINE void choose(truths *to, const truths *set, const truths *yes, const truths *no)
{
    *to = (*yes & *set) | (*no & ~*set);
}

INLINE float sum_of(const lanes *x)
{
    quad half = *(const quad *)x + *((const quad *)x + 1);
    return (half[0] + half[2]) + (half[1] + half[3]);
}

/* ---- scratch memory, kept between calls: fresh pages would cost more than the step ---- */

typedef struct { void *base; size_t size; } Scratch;

static void *scratch(Scratch *s, size_t size)
{
    if (s->size < size) {
        free(s->base);
        s->base = NULL;
        s->size = 0;
        size_t rounded = (size + size / 2 + 63) & ~(size_t)63;
        if (posix_memalign(&s->base, 64, rounded)) {
            PyErr_NoMemory();
            return NULL;
        }
        s->size = rounded;
    }
    return s->base;
}

/* ---- half precision, rounding to nearest even, saturating at the largest finite value ---- */

INLINE uint32_t bits_of(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
INLINE float float_of(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }

INLINE uint32_t word_at(const uint8_t *bytes) { uint32_t u; memcpy(&u, bytes, 4); return u; }

INLINE uint16_t half_of(float value)
{
    uint32_t u = bits_of(value), sign = u & 0x80000000u;
    u ^= sign;
    u = u > 0x477fe000u ? 0x477fe000u : u;                        /* 65504 */
    uint32_t tiny = bits_of(float_of(u) + 0.5f) - 0x3f000000u;    /* subnormal: the addition rounds */
    uint32_t normal = (u + 0xc8000fffu + ((u >> 13) & 1)) >> 13;  /* rebias, round, cut */
    return (uint16_t)((u < 0x38800000u ? tiny : normal) | sign >> 16);
}

INLINE float of_half(uint16_t half)
{
    uint32_t u = (uint32_t)(half & 0x7fff) << 13, exponent = u & 0x0f800000u;
    float normal = float_of(u + 0x38000000u);
    float tiny = float_of(u + 0x38800000u) - float_of(0x38800000u);
    return float_of(bits_of(exponent ? normal : tiny) | (uint32_t)(half & 0x8000) << 16);
}

/* ---- optimizer and filter: what happens to one touched row ---- */

enum { ADAGRAD = 0, NESTEROV = 1 };
enum { FLOATS = 0, HALVES = 1, MERGED = 2 }; /* what becomes of a change, see arrays.py */

typedef struct {
    int kind, step;
    float rate, epsilon, momentum, decay;
} Rule;

typedef struct {
    float *data;
    Py_ssize_t rows, stride;
    int columns;
} Table;

typedef struct {
    uint32_t *rows;
    uint8_t *masks;
    void *values;
    Py_ssize_t n_rows, n_values, room; /* room: how many values there is place for */
    float threshold, scale, unscale;
    int mode;
    marks largest, finite; /* sizes of floats order like their bits */
} Outbox;

/* The change of one entry, `g` being the direction of descent. `steps` > 0 with `decay`: the L2
 * pull of every step since the row was last touched, in proximal form. */
INLINE float moved(const Rule *rule, float shared, float residual, float *state, float g, float steps)
{
    float eta = rule->rate, change;
    if (rule->kind == ADAGRAD) {
        float s = *state + g * g;
        float root = sqrtf(s) + rule->epsilon;
        *state = s;
        eta = root > 0.0f ? rule->rate / root : 0.0f;
        change = eta * g;
    } else {
        float before = *state, v = rule->momentum * before + rule->rate * g;
        *state = v;
        change = (1.0f + rule->momentum) * v - rule->momentum * before;
    }
    if (rule->decay > 0.0f)
        return (shared + residual + change) / (1.0f + eta * rule->decay * steps) - shared;
    return residual + change;
}

/* Where a row's lanes begin, LANES at a time. The last ones end with the row, so that nothing past
 * it is read or written: they may repeat some of those before, with the same results. */
INLINE int start_of(int block, const int columns)
{
    return (block + 1) * LANES <= columns ? block * LANES : columns - LANES;
}

/* `moved`, for WIDE entries at once: the residual becomes the new one. */
INLINE void move_part(const Rule *rule, const part *shared, part *residual, part *state, const part *g, const part *steps)
{
    part eta, change, zero = {0};
    if (rule->kind == ADAGRAD) {
        part s = *state + *g * *g, root;
        *state = s;
        for (int i = 0; i < WIDE; i++)
            root[i] = sqrtf(s[i]);
        root += rule->epsilon;
        eta = (zero + rule->rate) / root;
        truths positive = root > zero;
        eta = (part)((truths)eta & positive);
        change = eta * *g;
    } else {
        part before = *state, v = rule->momentum * before + rule->rate * *g;
        eta = zero + rule->rate;
        *state = v;
        change = (1.0f + rule->momentum) * v - rule->momentum * before;
    }
    if (rule->decay > 0.0f)
        *residual = (*shared + *residual + change) / (1.0f + eta * rule->decay * *steps) - *shared;
    else
        *residual += change;
}

/* Each value as half precision, and rounded to it; as `half_of` and `of_half` do. */
INLINE void round_to_half(const part *value, words *half, part *rounded)
{
    const truths largest = (truths){0} + 0x477fe000;
    truths u = (truths)*value, sign = u & INT32_MIN, size = u & INT32_MAX, large = size > largest;
    choose(&size, &large, &largest, &size);
    truths is_tiny = size < 0x38800000;
    part tiny = (part)size + 0.5f;
    words normal = (words)size + 0xfff + (((words)size >> 13) & 1);
    truths bits = (truths)tiny - 0x3f000000, other = (truths)((normal + 0xc8000000u) >> 13);
    choose(&bits, &is_tiny, &bits, &other);
    *half = (words)bits | (words)sign >> 16;
    part exact = tiny - 0.5f;
    bits = (truths)exact;
    other = (truths)(normal & ~(words)((words){0} + 0x1fff));
    choose(&bits, &is_tiny, &bits, &other);
    *rounded = (part)(bits | sign);
}

/* Move some entries, in place, by a rule if there is one; say which are significant and what of them is to be sent. */
INLINE void change_part(part *shared, part *residual, part *state, const part *g, const Rule *rule, Outbox *out,
                        truths *finite, truths *largest, truths *sent, truths *values, const part *steps)
{
    if (rule)
        move_part(rule, shared, residual, state, g, steps);
    truths size = (truths)*residual & INT32_MAX, kept = {0}, larger;
    *finite &= size < 0x7f800000;
    if (out->mode == MERGED) {
        *shared += *residual;
        *residual = (part){0};
        return;
    }
    part least = out->threshold * (part)((truths)*shared & INT32_MAX);
    *sent = (part)size > least;
    *values = (truths)*residual;
    if (out->mode == HALVES) {
        part scaled = *residual * out->scale, rounded;
        words half;
        round_to_half(&scaled, &half, &rounded);
        *values = (truths)half;
        *sent &= (half & 0x7fff) != 0;
        kept = (truths)(*residual - rounded * out->unscale);
    }
    choose((truths *)residual, sent, &kept, (truths *)residual);
    size &= *sent;
    larger = size > *largest;
    choose(largest, &larger, &size, largest);
}

/* Move one row of at least LANES columns along `g`, if there is a rule; then publish its significant entries. */
INLINE void change_lanes(float *row, const int columns, const float *g, const Rule *rule, Outbox *out, uint32_t id)
{
    const int blocks = (columns + LANES - 1) / LANES, repeated = blocks * LANES - columns;
    float *shared = row, *residual = row + columns, *state = row + 2 * columns;
    int32_t *last = (int32_t *)(row + 3 * columns);
    const part steps = (part){0} + (rule ? (float)((int64_t)rule->step - *last) : 0.0f);
    uint8_t *mask = out->masks + out->n_rows * blocks;
    Py_ssize_t n = out->n_values;
    float spare[MAX_COLUMNS + LANES]; /* lanes are written whole: not past the end of the outbox */
    void *values = out->values;
    const int half = out->mode == HALVES, tight = n + blocks * LANES > out->room;
    if (tight)
        values = half ? (void *)((uint16_t *)spare - n) : (void *)(spare - n);
    if (rule)
        *last = rule->step;

    /* Those that may repeat others are read before any is written. */
    lanes x_last = *(const lanes *)(shared + columns - LANES), r_last = *(const lanes *)(residual + columns - LANES);
    lanes s_last = *(const lanes *)(state + columns - LANES), g_last = {0};
    if (rule)
        g_last = *(const lanes *)(g + columns - LANES);
    for (int b = 0; b < blocks; b++) {
        const int at = start_of(b, columns), is_last = b == blocks - 1;
        lanes x = is_last ? x_last : *(const lanes *)(shared + at), r = is_last ? r_last : *(const lanes *)(residual + at);
        lanes s = is_last ? s_last : *(const lanes *)(state + at), d = g_last;
        if (rule && !is_last)
            d = *(const lanes *)(g + at);
        marks sent = {0}, picked = {0};
        for (int w = 0; w < LANES / WIDE; w++)
            change_part((part *)&x + w, (part *)&r + w, (part *)&s + w, (part *)&d + w, rule, out,
                        (truths *)&out->finite + w, (truths *)&out->largest + w, (truths *)&sent + w,
                        (truths *)&picked + w, &steps);
        *(lanes *)(residual + at) = r;
        *(lanes *)(state + at) = s;
        if (out->mode == MERGED) {
            *(lanes *)(shared + at) = x;
            continue;
        }

        uint32_t bits = gather_bits(&sent), fresh = is_last ? bits >> repeated << repeated : bits;
        mask[b] = (uint8_t)(is_last ? bits >> repeated : bits);
        pick(&picked, &picked, &packing[fresh]);
        if (half)
            *(shorts *)((uint16_t *)values + n) = __builtin_convertvector(picked, shorts);
        else
            *(marks *)((float *)values + n) = picked;
        n += counting[fresh];
    }
    if (out->mode == MERGED)
        return;
    if (tight && half)
        memcpy((uint16_t *)out->values + out->n_values, spare, sizeof(uint16_t) * (size_t)(n - out->n_values));
    else if (tight)
        memcpy((float *)out->values + out->n_values, spare, sizeof(float) * (size_t)(n - out->n_values));
    out->rows[out->n_rows] = id;
    out->n_rows += n > out->n_values;
    out->n_values = n;
}

/* The same for a row of fewer columns, entry by entry. */
INLINE void change_entries(float *row, const int columns, const float *g, const Rule *rule, Outbox *out, uint32_t id)
{
    float *shared = row, *residual = row + columns, *state = row + 2 * columns;
    int32_t *last = (int32_t *)(row + 3 * columns);
    float steps = rule ? (float)((int64_t)rule->step - *last) : 0.0f;
    uint32_t mask = 0;
    Py_ssize_t n = out->n_values;
    if (rule)
        *last = rule->step;
    for (int i = 0; i < columns; i++) {
        float r = rule ? moved(rule, shared[i], residual[i], state + i, g[i], steps) : residual[i], kept = 0.0f;
        int32_t size = (int32_t)(bits_of(r) & 0x7fffffff);
        out->finite[0] &= size < 0x7f800000 ? -1 : 0;
        if (out->mode == MERGED) {
            shared[i] += r;
            residual[i] = 0.0f;
            continue;
        }
        uint32_t sent = fabsf(r) > out->threshold * fabsf(shared[i]);
        /* Every entry is written and only a sent one moves on: the outbox has room for one too many. */
        if (out->mode == HALVES) {
            uint16_t half = half_of(r * out->scale);
            ((uint16_t *)out->values)[n] = half;
            kept = r - of_half(half) * out->unscale;
            sent &= (half & 0x7fff) != 0;
        } else {
            ((float *)out->values)[n] = r;
        }
        residual[i] = sent ? kept : r;
        size = sent ? size : 0;
        out->largest[0] = size > out->largest[0] ? size : out->largest[0];
        mask |= sent << i;
        n += sent;
    }
    if (out->mode == MERGED)
        return;
    out->masks[out->n_rows] = (uint8_t)mask;
    out->rows[out->n_rows] = id;
    out->n_rows += mask != 0;
    out->n_values = n;
}

INLINE void change_row(float *row, const int columns, const float *g, const Rule *rule, Outbox *out, uint32_t id)
{
    if (columns >= LANES)
        change_lanes(row, columns, g, rule, out, id);
    else
        change_entries(row, columns, g, rule, out, id);
}

/* Publish what is significant of the residuals of some rows, or of all if `ids` is NULL; MERGED puts it into shared. */
TARGETED static void flush_rows(Table table, const uint32_t *ids, Py_ssize_t count, Outbox *out)
{
    for (Py_ssize_t n = 0; n < count; n++) {
        const uint32_t id = ids ? ids[n] : (uint32_t)n;
        change_row(table.data + (size_t)id * table.stride, table.columns, NULL, NULL, out, id);
    }
}

/* LANES rows of one column at once. Rows, masks and values are written whole, too: there is room for as many. */
INLINE void change_column(Table table, const uint32_t *ids, const float *g, const Rule *rule, Outbox *out)
{
    float x[LANES], r[LANES], s[LANES], steps[LANES];
    int32_t sent[LANES], values[LANES];
    for (int i = 0; i < LANES; i++) {
        float *row = table.data + (size_t)ids[i] * table.stride;
        int32_t *last = (int32_t *)(row + 3);
        x[i] = row[0];
        r[i] = row[1];
        s[i] = row[2];
        steps[i] = (float)((int64_t)rule->step - *last);
        *last = rule->step;
    }
    for (int w = 0; w < LANES; w += WIDE)
        change_part((part *)(x + w), (part *)(r + w), (part *)(s + w), (const part *)(g + w), rule, out,
                    (truths *)&out->finite + w / WIDE, (truths *)&out->largest + w / WIDE, (truths *)(sent + w),
                    (truths *)(values + w), (const part *)(steps + w));
    for (int i = 0; i < LANES; i++) {
        float *row = table.data + (size_t)ids[i] * table.stride;
        row[0] = x[i];
        row[1] = r[i];
        row[2] = s[i];
    }
    if (out->mode == MERGED)
        return;
    uint32_t bits = gather_bits((const marks *)sent);
    marks picked;
    pick(&picked, (const marks *)ids, &packing[bits]);
    *(marks *)(out->rows + out->n_rows) = picked;
    memset(out->masks + out->n_rows, 1, LANES);
    pick(&picked, (const marks *)values, &packing[bits]);
    if (out->mode == HALVES)
        *(shorts *)((uint16_t *)out->values + out->n_values) = __builtin_convertvector(picked, shorts);
    else
        *(marks *)((float *)out->values + out->n_values) = picked;
    out->n_rows += counting[bits];
    out->n_values += counting[bits];
}

static float largest_of(const Outbox *out)
{
    int32_t largest = 0;
    for (int i = 0; i < LANES; i++)
        largest = out->largest[i] > largest ? out->largest[i] : largest;
    return float_of((uint32_t)largest);
}

static int finite_of(const Outbox *out)
{
    int32_t finite = -1;
    for (int i = 0; i < LANES; i++)
        finite &= out->finite[i];
    return finite != 0;
}

/* ---- batches ---- */

typedef struct { const void *ids; Py_ssize_t count; int wide; } LocalIds;

INLINE uint32_t local_id(const LocalIds *l, Py_ssize_t n)
{
    return l->wide ? ((const uint32_t *)l->ids)[n] : ((const uint16_t *)l->ids)[n];
}

TARGETED static int ascending(const uint32_t *ids, Py_ssize_t count, Py_ssize_t rows)
{
    uint32_t falls = 0;
    for (Py_ssize_t i = 1; i < count; i++)
        falls |= ids[i - 1] >= ids[i];
    return !count || (!falls && (Py_ssize_t)ids[count - 1] < rows);
}

TARGETED static int spans(const uint32_t *starts, Py_ssize_t groups, Py_ssize_t total)
{
    for (Py_ssize_t i = 0; i < groups; i++)
        if (starts[i] > starts[i + 1])
            return 0;
    return starts[0] == 0 && (Py_ssize_t)starts[groups] == total;
}

TARGETED static int below(const LocalIds *l, Py_ssize_t limit)
{
    uint32_t largest = 0;
    for (Py_ssize_t i = 0; i < l->count; i++) {
        uint32_t id = local_id(l, i);
        largest = id > largest ? id : largest;
    }
    return !l->count || (Py_ssize_t)largest < limit;
}

/* ---- matrix factorisation ---- */

typedef struct {
    const uint32_t *users, *starts, *items;
    LocalIds index;
    const float *ratings;
    Py_ssize_t n_users, n_items, n;
} Ratings;

/* A gathered row holds the factors, a lane of the user's bias and a lane of the item's; the other
 * side's bias lane is 1, so that one dot product gives factors and both biases. */
INLINE void gather(float *to, const float *row, const int columns, const int width, int bias_lane)
{
    for (int i = 0; i < columns - 1; i++)
        to[i] = row[i] + row[columns + i];
    to[columns - 1] = to[columns] = 1.0f;
    to[bias_lane] = row[columns - 1] + row[2 * columns - 1];
    for (int i = columns + 1; i < width; i++)
        to[i] = 0.0f;
}

/* Ask for a row that is due a few rows from now: batches jump through tables larger than the cache. */
INLINE void prefetch(Table table, const uint32_t *ids, Py_ssize_t at, Py_ssize_t count, const int floats)
{
    if (at < count)
        for (int line = 0; line < floats; line += 16)
            __builtin_prefetch(table.data + (size_t)ids[at] * table.stride + line, 1);
}

INLINE double factorize(Table users, Table items, const Ratings *batch, const int columns, float centre,
                        float scale, float l2, float gradient_scale, const Rule *user_rule, const Rule *item_rule,
                        Outbox *user_out, Outbox *item_out, float *memory)
{
    const int blocks = (columns + 1 + LANES - 1) / LANES, width = blocks * LANES;
    /* memory: for every item its gathered row and its gradient side by side; then the user's */
    uint32_t *counts = (uint32_t *)(memory + (size_t)batch->n_items * 2 * width + 3 * width);
    float *p = memory + (size_t)batch->n_items * 2 * width, *gradient = p + width, *g = gradient + width;
    double loss = 0.0;

    for (Py_ssize_t j = 0; j < batch->n_items; j++) {
        float *q = memory + j * 2 * width;
        prefetch(items, batch->items, j + 12, batch->n_items, 2 * columns);
        gather(q, items.data + (size_t)batch->items[j] * items.stride, columns, width, columns);
        for (int i = 0; i < width; i++)
            q[width + i] = 0.0f;
        counts[j] = 0;
    }
    for (Py_ssize_t u = 0; u < batch->n_users; u++) {
        float *row = users.data + (size_t)batch->users[u] * users.stride;
        prefetch(users, batch->users, u + 8, batch->n_users, 3 * columns + 1);
        gather(p, row, columns, width, columns - 1);
        lanes mine[BLOCKS], sum[BLOCKS]; /* the user's row and gradient: registers, where width is a constant */
        for (int b = 0; b < blocks; b++) {
            mine[b] = *(const lanes *)(p + b * LANES);
            sum[b] = (lanes){0};
        }
        for (uint32_t n = batch->starts[u]; n < batch->starts[u + 1]; n++) {
            if ((Py_ssize_t)n + 8 < batch->n) { /* the gathered rows of a large batch do not fit the nearest caches */
                const float *due = memory + (size_t)local_id(&batch->index, n + 8) * 2 * width;
                for (int line = 0; line < 2 * width; line += 16)
                    __builtin_prefetch(due + line, 1);
            }
            uint32_t j = local_id(&batch->index, n);
            lanes *q = (lanes *)(memory + (size_t)j * 2 * width), product = {0};
            for (int b = 0; b < blocks; b++)
                product += mine[b] * q[b];
            float error = (batch->ratings[n] - centre) * scale - sum_of(&product);
            loss += (double)error * error;
            counts[j]++;
            for (int b = 0; b < blocks; b++) {
                sum[b] += q[b] * error;
                q[blocks + b] += mine[b] * error;
            }
        }
        for (int b = 0; b < blocks; b++)
            *(lanes *)(gradient + b * LANES) = sum[b];
        float pull = l2 * (float)(batch->starts[u + 1] - batch->starts[u]);
        for (int i = 0; i < columns; i++)
            g[i] = (gradient[i] - pull * p[i]) * gradient_scale;
        change_row(row, columns, g, user_rule, user_out, batch->users[u]);
    }
    for (Py_ssize_t j = 0; j < batch->n_items; j++) {
        float *q = memory + j * 2 * width, pull = l2 * (float)counts[j];
        prefetch(items, batch->items, j + 8, batch->n_items, 3 * columns + 1);
        q[columns - 1] = q[columns];                  /* the item's bias and its gradient */
        q[width + columns - 1] = q[width + columns];
        for (int i = 0; i < columns; i++)
            g[i] = (q[width + i] - pull * q[i]) * gradient_scale;
        change_row(items.data + (size_t)batch->items[j] * items.stride, columns, g, item_rule, item_out, batch->items[j]);
    }
    return loss;
}

/* The usual numbers of factors get loops of constant length. */
#define FOR_COLUMNS(columns, CALL) \
    switch (columns) {             \
    case 11: CALL(11);             \
    case 21: CALL(21);             \
    case 33: CALL(33);             \
    case 65: CALL(65);             \
    default: CALL(columns);        \
    }

TARGETED static double factorize_any(Table users, Table items, const Ratings *batch, int columns, float centre,
                                     float scale, float l2, float gradient_scale, const Rule *user_rule,
                                     const Rule *item_rule, Outbox *user_out, Outbox *item_out, float *memory)
{
#define CALL(constant)                                                                                       \
    return factorize(users, items, batch, constant, centre, scale, l2, gradient_scale, user_rule, item_rule, \
                     user_out, item_out, memory)
    FOR_COLUMNS(columns, CALL)
#undef CALL
}

INLINE double square_error(Table users, Table items, const Ratings *batch, const int columns, float centre,
                           float deviation, float low, float high)
{
    double sum = 0.0;
    for (Py_ssize_t u = 0; u < batch->n_users; u++) {
        const float *p = users.data + (size_t)batch->users[u] * users.stride;
        for (uint32_t n = batch->starts[u]; n < batch->starts[u + 1]; n++) {
            const float *q = items.data + (size_t)batch->items[local_id(&batch->index, n)] * items.stride;
            float part[4] = {p[columns - 1], q[columns - 1], 0.0f, 0.0f};
            for (int i = 0; i < columns - 1; i++)
                part[i & 3] += p[i] * q[i];
            float predicted = centre + deviation * ((part[0] + part[1]) + (part[2] + part[3]));
            predicted = predicted < low ? low : predicted > high ? high : predicted;
            float error = batch->ratings[n] - predicted;
            sum += (double)error * error;
        }
    }
    return sum;
}

TARGETED static double square_error_any(Table users, Table items, const Ratings *batch, int columns, float centre,
                                        float deviation, float low, float high)
{
#define CALL(constant) return square_error(users, items, batch, constant, centre, deviation, low, high)
    FOR_COLUMNS(columns, CALL)
#undef CALL
}

/* ---- logistic regression ---- */

typedef struct {
    const uint32_t *features, *starts;
    LocalIds index;
    const float *values;  /* NULL: all 1 */
    const float *weights; /* of the rows; NULL: all 1 */
    const uint8_t *labels;
    Py_ssize_t n_features, n;
} Clicks;

/* exp within 2 ulp for |x| <= 700, from additions and multiplications alone. */
INLINE double exponential(double x)
{
    double shifted = x * 1.4426950408889634 + 0x1.8p52, n = shifted - 0x1.8p52, e = 1.0; /* n: to the nearest */
    double r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
    for (int k = 13; k > 0; k--)
        e = 1.0 + e * r * (1.0 / k);
    uint64_t u;
    memcpy(&u, &shifted, 8);
    u = (u + 1023) << 52;
    double power;
    memcpy(&power, &u, 8);
    return e * power;
}

/* log(1 + x) for x from 0 to 1, to about an ulp: 2 artanh(x / (2 + x)). Our own, as exp is. */
INLINE double log_one_plus(double x)
{
    double s = x / (2.0 + x), square = s * s, sum = 0.0;
    for (int k = 15; k >= 0; k--)
        sum = sum * square + 1.0 / (2 * k + 1);
    return 2.0 * s * sum;
}

INLINE float weighted_sum(const float *weights, int step, const Clicks *batch, Py_ssize_t from, Py_ssize_t to)
{
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    Py_ssize_t e = from;
    for (; e + 4 <= to; e += 4)
        for (int i = 0; i < 4; i++) {
            float w = weights[(size_t)local_id(&batch->index, e + i) * step];
            sum[i] += batch->values ? w * batch->values[e + i] : w;
        }
    for (int i = 0; e < to; i++, e++) {
        float w = weights[(size_t)local_id(&batch->index, e) * step];
        sum[i] += batch->values ? w * batch->values[e] : w;
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

enum { ROWS = 32 }; /* whose margins go through exp and log together */

INLINE double classify(Table features, float intercept, const Clicks *batch, const Rule *rule, Outbox *out,
                       float *memory, const int wide, const int valued, double *intercept_gradient)
{
    Clicks view = *batch;
    view.index.wide = wide;
    view.values = valued ? batch->values : NULL;
    double loss = 0.0, total = 0.0;
    for (Py_ssize_t j = 0; j < view.n_features; j++) {
        prefetch(features, view.features, j + 24, view.n_features, 1);
        const float *row = features.data + (size_t)view.features[j] * features.stride;
        memory[2 * j] = row[0] + row[1];
        memory[2 * j + 1] = 0.0f;
    }
    for (Py_ssize_t first = 0; first < view.n; first += ROWS) {
        const int rows = view.n - first < ROWS ? (int)(view.n - first) : ROWS;
        double margins[ROWS] = {0.0}, probabilities[ROWS], losses[ROWS];
        for (int i = 0; i < rows; i++)
            margins[i] = (double)(intercept + weighted_sum(memory, 2, &view, view.starts[first + i], view.starts[first + i + 1]));
        for (int i = 0; i < ROWS; i++) {
            double size = fabs(margins[i]), e = exponential(size < 700.0 ? -size : -700.0), larger = 1.0 / (1.0 + e);
            probabilities[i] = margins[i] >= 0.0 ? larger : e * larger;
            losses[i] = log_one_plus(e);
        }
        for (int i = 0; i < rows; i++) {
            double margin = margins[i], probability = probabilities[i], label = view.labels[first + i];
            if (margin != margin) /* what is not a number must not pass for a loss of log 1 */
                loss = probability = margin;
            double row_loss = losses[i] + (label > 0.0 ? (margin < 0.0 ? -margin : 0.0) : (margin > 0.0 ? margin : 0.0));
            float error = (float)(label - probability);
            if (view.weights) {
                row_loss *= (double)view.weights[first + i];
                error *= view.weights[first + i];
            }
            loss += row_loss;
            total += error;
            for (Py_ssize_t k = view.starts[first + i]; k < view.starts[first + i + 1]; k++)
                memory[2 * (size_t)local_id(&view.index, k) + 1] += view.values ? error * view.values[k] : error;
        }
    }
    *intercept_gradient = total;
    float mean = (float)(1.0 / (double)view.n), g[LANES];
    Py_ssize_t j = 0;
    for (; j + LANES <= view.n_features; j += LANES) {
        for (int i = 0; i < LANES; i++) {
            prefetch(features, view.features, j + 24 + i, view.n_features, 1);
            g[i] = memory[2 * (j + i) + 1] * mean;
        }
        change_column(features, view.features + j, g, rule, out);
    }
    for (; j < view.n_features; j++) {
        g[0] = memory[2 * j + 1] * mean;
        change_row(features.data + (size_t)view.features[j] * features.stride, 1, g, rule, out, view.features[j]);
    }
    return loss;
}

TARGETED static double classify_any(Table features, float intercept, const Clicks *batch, const Rule *rule,
                                    Outbox *out, float *memory, double *gradient)
{
#define CALL(wide, valued) classify(features, intercept, batch, rule, out, memory, wide, valued, gradient)
    if (batch->values)
        return batch->index.wide ? CALL(1, 1) : CALL(0, 1);
    return batch->index.wide ? CALL(1, 0) : CALL(0, 0);
#undef CALL
}

TARGETED static void change_one(float *row, float g, const Rule *rule, Outbox *out)
{
    change_row(row, 1, &g, rule, out, 0);
}

/* ---- merge ---- */

enum { BLOCK_ENTRIES = 4096 }; /* sums and counts of a block of rows stay in the first-level cache */

/* An update's part of one table. The values are float32 at any address. */
typedef struct {
    const uint32_t *rows;
    const uint8_t *masks, *values;
    Py_ssize_t n_rows, n_values, row, value;
} Update;

/* Add an update's row to the sums (and counts) of its entries; return how many it marks. Nothing
 * branches on the mask, whose bits are as good as random: an entry that is not marked adds zero. */
INLINE Py_ssize_t add_row(float *sum, int32_t *seen, const uint8_t *mask, const uint8_t *values, Py_ssize_t left,
                          const int columns, const int by_count)
{
    if (columns < LANES) {
        Py_ssize_t n = 0;
        for (int i = 0; i < columns; i++) {
            uint32_t marked = *mask >> i & 1;
            sum[i] += float_of(word_at(values + 4 * (n < left - 1 ? n : left - 1)) & (0u - marked));
            n += marked;
            if (by_count)
                seen[i] += (int32_t)marked;
        }
        return n;
    }
    const int blocks = (columns + LANES - 1) / LANES;
    uint8_t spare[4 * BLOCKS * LANES]; /* lanes are read whole: not past the end of the values */
    if (left < blocks * LANES) {
        memcpy(spare, values, 4 * (size_t)(left > 0 ? left : 0));
        values = spare;
    }
    Py_ssize_t n = 0;
    for (int b = 0; b < blocks; b++) {
        marks x, set;
        memcpy(&x, values + 4 * n, sizeof(x));
        pick(&x, &x, &spreading[mask[b]]);
        spread_bits(&set, mask[b]);
        *(lanes *)(sum + b * LANES) += (lanes)(x & set);
        if (by_count)
            *(marks *)(seen + b * LANES) -= set;
        n += counting[mask[b]];
    }
    return n;
}

/* Where rows are summed to be sent on: which ones, ascending, and the largest size of an entry. */
typedef struct {
    uint32_t *rows;
    Py_ssize_t n_rows;
    int32_t largest; /* sizes of floats order like their bits */
} Summed;

/* Add a row's sums to what was kept of it. What is no finite number any more becomes the largest one. */
INLINE void keep_row(float *kept, const float *sum, const int32_t *seen, const float *coefficients, const int columns,
                     const int by_count, int32_t *largest)
{
    const float limit = float_of(0x7f7fffffu);
    for (int i = 0; i < columns; i++) {
        float x = kept[i] + sum[i] * coefficients[by_count ? seen[i] : 0];
        x = x < -limit ? -limit : x <= limit ? x : limit;
        const int32_t size = (int32_t)(bits_of(x) & 0x7fffffff);
        *largest = size > *largest ? size : *largest;
        kept[i] = x;
    }
}

/* Rows of all updates ascend, so blocks of rows are summed in the cache, one update after the
 * other: every entry sees its publishers in order of worker id. Sums and counts are zero between
 * blocks: the last to read them clears them. */
INLINE void merge(Table table, const int columns, Update *updates, Py_ssize_t count, const float *coefficients,
                  const int by_count, float *memory, Summed *summed)
{
    const int bytes = (columns + 7) / 8, width = columns < LANES ? columns : bytes * LANES;
    const uint32_t block = (uint32_t)(BLOCK_ENTRIES / width);
    float *sums = memory;
    int32_t *counts = (int32_t *)(sums + BLOCK_ENTRIES);
    uint32_t *touched = (uint32_t *)(counts + BLOCK_ENTRIES);
    uint8_t *is_touched = (uint8_t *)(touched + BLOCK_ENTRIES + 1);
    memset(sums, 0, sizeof(float) * BLOCK_ENTRIES);
    memset(counts, 0, sizeof(int32_t) * BLOCK_ENTRIES);
    memset(is_touched, 0, block);
    for (;;) {
        uint32_t first = UINT32_MAX, n_touched = 0;
        for (Py_ssize_t u = 0; u < count; u++)
            if (updates[u].row < updates[u].n_rows && updates[u].rows[updates[u].row] < first)
                first = updates[u].rows[updates[u].row];
        if (first == UINT32_MAX)
            return;
        for (Py_ssize_t u = 0; u < count; u++) {
            Update *up = updates + u;
            Py_ssize_t value = up->value, row = up->row;
            for (; row < up->n_rows && up->rows[row] - first < block; row++) {
                uint32_t at = up->rows[row] - first;
                touched[n_touched] = at;
                n_touched += !is_touched[at];
                is_touched[at] = 1;
                for (int line = 0; line < columns; line += 16)
                    __builtin_prefetch(table.data + (size_t)(first + at) * table.stride + line, 1);
                value += add_row(sums + (size_t)at * width, counts + (size_t)at * width, up->masks + row * bytes,
                                 up->values + 4 * value, up->n_values - value, columns, by_count);
            }
            up->value = value;
            up->row = row;
        }
        for (uint32_t n = 0, at = 0; n < n_touched; n++) {
            while (summed && !is_touched[at])
                at++;
            at = summed ? at : touched[n];
            float *shared = table.data + (size_t)(first + at) * table.stride, *sum = sums + (size_t)at * width;
            int32_t *seen = counts + (size_t)at * width;
            is_touched[at] = 0;
            if (summed) {
                summed->rows[summed->n_rows++] = first + at;
                keep_row(shared, sum, seen, coefficients, columns, by_count, &summed->largest);
            } else {
                for (int i = 0; i < columns; i++)
                    shared[i] += sum[i] * coefficients[by_count ? seen[i] : 0];
            }
            for (int i = 0; i < width; i++)
                sum[i] = 0.0f;
            for (int i = 0; by_count && i < width; i++)
                seen[i] = 0;
        }
    }
}

/* Add an update to the sums, and the counts if there are any, of a whole table. */
TARGETED static void add_rows(const Update *update, const int columns, float *sums, int32_t *counts, uint8_t *touched)
{
    const int bytes = (columns + 7) / 8, width = columns < LANES ? columns : bytes * LANES;
    Py_ssize_t value = 0;
    for (Py_ssize_t row = 0; row < update->n_rows; row++) {
        const size_t at = update->rows[row];
        const uint8_t *mask = update->masks + row * bytes, *values = update->values + 4 * value;
        const Py_ssize_t left = update->n_values - value;
        touched[at] = 1;
        value += counts ? add_row(sums + at * width, counts + at * width, mask, values, left, columns, 1)
                        : add_row(sums + at * width, NULL, mask, values, left, columns, 0);
    }
}

/* How many entries the masks mark; -1 if one is marked past the last column. */
TARGETED static Py_ssize_t marked_in(const uint8_t *masks, Py_ssize_t rows, int columns)
{
    const Py_ssize_t bytes = (columns + 7) / 8, size = rows * bytes;
    Py_ssize_t marked = 0, at = 0;
    for (; at + 8 <= size; at += 8) {
        uint64_t u;
        memcpy(&u, masks + at, 8);
        marked += __builtin_popcountll(u);
    }
    for (; at < size; at++)
        marked += __builtin_popcount(masks[at]);
    uint32_t past = 0;
    for (Py_ssize_t r = 0; columns % 8 && r < rows; r++)
        past |= (uint32_t)masks[r * bytes + bytes - 1] >> columns % 8;
    return past ? -1 : marked;
}

TARGETED static void merge_any(Table table, int columns, Update *updates, Py_ssize_t count,
                               const float *coefficients, int by_count, float *memory)
{
#define CALL(constant)                                                                  \
    if (by_count)                                                                       \
        merge(table, constant, updates, count, coefficients, 1, memory, NULL);          \
    else                                                                                \
        merge(table, constant, updates, count, coefficients, 0, memory, NULL);          \
    return
    if (columns == 1) {
        CALL(1);
    }
    FOR_COLUMNS(columns, CALL)
#undef CALL
}

TARGETED static void sum_any(Table table, Update *updates, Py_ssize_t count, const float *coefficients, int by_count,
                             float *memory, Summed *summed)
{
    if (by_count)
        merge(table, table.columns, updates, count, coefficients, 1, memory, summed);
    else
        merge(table, table.columns, updates, count, coefficients, 0, memory, summed);
}

/* Publish what is significant of what is kept of some rows; the rest stays kept. */
TARGETED static void publish_kept(Table table, float *kept, const uint32_t *ids, Py_ssize_t count, Outbox *out)
{
    float row[3 * MAX_COLUMNS + 1] = {0};
    const int columns = table.columns;
    const size_t size = sizeof(float) * (size_t)columns;
    for (Py_ssize_t n = 0; n < count; n++) {
        float *own = kept + (size_t)ids[n] * (size_t)columns;
        memcpy(row, table.data + (size_t)ids[n] * table.stride, size);
        memcpy(row + columns, own, size);
        change_row(row, columns, NULL, NULL, out, ids[n]);
        memcpy(own, row + columns, size);
    }
}

/* Put rows, their masks and values in order of their shards, in each as they were; return 0 if masks mark other values. */
TARGETED static int cut_rows(const uint32_t *ids, const uint8_t *masks, const uint8_t *values, Py_ssize_t count,
                             Py_ssize_t bytes, Py_ssize_t width, Py_ssize_t marked, uint32_t shards, uint32_t block,
                             Py_ssize_t (*sizes)[2], uint32_t *to_ids, uint8_t *to_masks, uint8_t *to_values)
{
    Py_ssize_t at[UINT8_MAX + 1][2], all[2] = {0}, value = 0;
    for (Py_ssize_t n = 0; n < count; n++) {
        Py_ssize_t *size = sizes[ids[n] / block % shards];
        size[0]++;
        for (Py_ssize_t i = 0; i < bytes; i++)
            size[1] += counting[masks[n * bytes + i]];
    }
    for (uint32_t s = 0; s < shards; s++)
        for (int i = 0; i < 2; i++) {
            at[s][i] = all[i];
            all[i] += sizes[s][i];
        }
    if (all[1] != marked)
        return 0;
    for (Py_ssize_t n = 0; n < count; n++) {
        Py_ssize_t *place = at[ids[n] / block % shards], more = 0;
        for (Py_ssize_t i = 0; i < bytes; i++)
            more += counting[masks[n * bytes + i]];
        to_ids[place[0]] = ids[n];
        memcpy(to_masks + place[0] * bytes, masks + n * bytes, (size_t)bytes);
        memcpy(to_values + place[1] * width, values + value * width, (size_t)(more * width));
        place[0]++;
        place[1] += more;
        value += more;
    }
    return 1;
}

/* ---- updates as bytes: exchange/codec.py tells their layout ---- */

enum { HEAD = 9, PART = 13, HALF = 1, PLANES = 2, LARGEST_EXPONENT = 100 };
static const uint8_t magic[3] = {'M', 'U', 1}; /* and the version */

/* One table's part, as it is announced. */
typedef struct {
    Py_ssize_t rows, values, row_bytes;
    int exponent;
} Part;

TARGETED static int all_finite(const uint8_t *floats, Py_ssize_t n)
{
    uint32_t special = 0;
    for (Py_ssize_t i = 0; i < n; i++)
        special |= (word_at(floats + 4 * i) & 0x7f800000u) == 0x7f800000u;
    return !special;
}

/* Halves, at any address, to floats; 0 if one is not finite. */
TARGETED static int widen(const uint8_t *halves, float *floats, Py_ssize_t n, float unscale)
{
    uint32_t special = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, halves + 2 * i, 2);
        special |= (half & 0x7c00) == 0x7c00;
        floats[i] = of_half(half) * unscale;
    }
    return !special;
}

/* Values of `width` bytes regrouped by place: all first bytes, all second bytes, ... */
TARGETED static void split_planes(const uint8_t *from, uint8_t *to, Py_ssize_t n, Py_ssize_t width)
{
    if (width == 2)
        for (Py_ssize_t i = 0; i < n; i++) {
            to[i] = from[2 * i];
            to[n + i] = from[2 * i + 1];
        }
    else
        for (Py_ssize_t w = 0; w < width; w++)
            for (Py_ssize_t i = 0; i < n; i++)
                to[w * n + i] = from[i * width + w];
}

TARGETED static void join_planes(const uint8_t *from, uint8_t *to, Py_ssize_t n, Py_ssize_t width)
{
    if (width == 2)
        for (Py_ssize_t i = 0; i < n; i++) {
            to[2 * i] = from[i];
            to[2 * i + 1] = from[n + i];
        }
    else
        for (Py_ssize_t w = 0; w < width; w++)
            for (Py_ssize_t i = 0; i < n; i++)
                to[i * width + w] = from[w * n + i];
}

/* Ascending rows as gaps of 7 bits a byte, low first; return the bytes used, at most 5 a row. */
static Py_ssize_t pack_rows(const uint32_t *rows, Py_ssize_t n, uint8_t *bytes)
{
    Py_ssize_t size = 0;
    uint32_t next = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t gap = rows[i] - next;
        for (; gap >= 128; gap >>= 7)
            bytes[size++] = (uint8_t)(gap | 128);
        bytes[size++] = (uint8_t)gap;
        next = rows[i] + 1;
    }
    return size;
}

/* The other way round; 0 unless they are as many and below `limit`. */
static int unpack_rows(const uint8_t *bytes, Py_ssize_t size, uint32_t *rows, Py_ssize_t n, Py_ssize_t limit)
{
    Py_ssize_t used = 0;
    int64_t next = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        int64_t gap = 0;
        int shift = 0, more = 1;
        for (; more && used < size && shift < 35; shift += 7) {
            gap |= (int64_t)(bytes[used] & 127) << shift;
            more = bytes[used++] & 128;
        }
        next += gap;
        if (more || next >= limit || next > UINT32_MAX)
            return 0;
        rows[i] = (uint32_t)next++;
    }
    return used == size;
}

/* Read what an update announces; return how many floats `take_apart` may need, -1 if it is none of these tables. */
static Py_ssize_t announced(const uint8_t *data, Py_ssize_t size, const Table *tables, Py_ssize_t count, Part *parts)
{
    if (size < HEAD + PART * count || memcmp(data, magic, sizeof(magic)) || data[3] > (HALF | PLANES) || data[4] != count)
        return -1;
    const int width = data[3] & HALF ? 2 : 4;
    Py_ssize_t all = HEAD + PART * count, floats = 0;
    for (Py_ssize_t t = 0; t < count; t++) {
        const uint8_t *at = data + HEAD + PART * t;
        Part *part = parts + t;
        *part = (Part){word_at(at), word_at(at + 4), word_at(at + 8), (int8_t)at[12]};
        if (part->rows > tables[t].rows || part->row_bytes < part->rows || part->row_bytes > 5 * part->rows ||
            part->values > part->rows * tables[t].columns || abs(part->exponent) > LARGEST_EXPONENT)
            return -1;
        all += part->row_bytes + part->rows * ((tables[t].columns + 7) / 8) + part->values * width;
        floats += part->rows + 2 * part->values;
    }
    return all == size ? floats : -1;
}

/* Take an announced update apart, into `room`; return where the room left begins, NULL if the bytes lie. */
static float *take_apart(const uint8_t *data, const Table *tables, Py_ssize_t count, const Part *parts, float *room,
                         Update *updates)
{
    const int flags = data[3], width = flags & HALF ? 2 : 4;
    data += HEAD + PART * count;
    for (Py_ssize_t t = 0; t < count; t++) {
        const Part *part = parts + t;
        const Py_ssize_t n = part->values;
        uint32_t *rows = (uint32_t *)room;
        const uint8_t *masks = data + part->row_bytes;
        const uint8_t *values = masks + part->rows * ((tables[t].columns + 7) / 8);
        if (!unpack_rows(data, part->row_bytes, rows, part->rows, tables[t].rows) ||
            marked_in(masks, part->rows, tables[t].columns) != n)
            return NULL;
        data = values + n * width;
        room += part->rows;
        if (flags & PLANES) {
            join_planes(values, (uint8_t *)room, n, width);
            values = (const uint8_t *)room;
            room += n;
        }
        if (flags & HALF) {
            if (!widen(values, room, n, ldexpf(1.0f, -part->exponent)))
                return NULL;
            values = (const uint8_t *)room;
            room += n;
        } else if (!all_finite(values, n)) {
            return NULL;
        }
        updates[t] = (Update){rows, masks, values, n ? part->rows : 0, n, 0, 0}; /* rows may mark nothing */
    }
    return room;
}

/* ---- assembly of mini-batches ---- */

/* Which rows of a table a mini-batch names, and the place of each among them. Bits are all 0 between
 * calls; `touched` has a bit for each word, so that a call visits no more words than it has touched. */
typedef struct { uint64_t bits, before; } Word;
typedef struct {
    Word *words;
    uint64_t *touched;
    Py_ssize_t rows, blocks; /* of 64 words, 4,096 rows */
} Named;

static int name_none(Named *named, Py_ssize_t rows)
{
    const Py_ssize_t blocks = rows / 4096 + 1;
    if (named->blocks < blocks) { /* calloc: of a large table only what is touched takes memory */
        free(named->words);
        *named = (Named){0};
        named->words = calloc((size_t)blocks, 64 * sizeof(Word) + sizeof(uint64_t));
        if (!named->words) {
            PyErr_NoMemory();
            return 0;
        }
        named->touched = (uint64_t *)(named->words + 64 * blocks);
        named->blocks = blocks;
    }
    named->rows = rows;
    return 1;
}

static void forget(Named *named)
{
    for (Py_ssize_t block = 0; block * 4096 < named->rows; block++) {
        for (uint64_t left = named->touched[block]; left; left &= left - 1)
            named->words[block * 64 + __builtin_ctzll(left)].bits = 0;
        named->touched[block] = 0;
    }
}

/* Name these rows; return 0 at one beyond the table. */
INLINE int name_rows(const Named named, const uint32_t *ids, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        const uint32_t id = ids[i];
        if (id >= named.rows)
            return 0;
        named.words[id >> 6].bits |= (uint64_t)1 << (id & 63);
        named.touched[id >> 12] |= (uint64_t)1 << (id >> 6 & 63);
    }
    return 1;
}

/* Write the named rows, ascending, and give each its place; return how many, -1 if they have no room. */
INLINE Py_ssize_t list_named(const Named named, uint32_t *rows, Py_ssize_t room)
{
    Py_ssize_t n = 0;
    for (Py_ssize_t block = 0; block * 4096 < named.rows; block++)
        for (uint64_t left = named.touched[block]; left; left &= left - 1) {
            const Py_ssize_t at = block * 64 + __builtin_ctzll(left);
            uint64_t bits = named.words[at].bits;
            if (__builtin_popcountll(bits) > room - n)
                return -1;
            named.words[at].before = (uint64_t)n;
            for (; bits; bits &= bits - 1)
                rows[n++] = (uint32_t)(at * 64 + __builtin_ctzll(bits));
        }
    return n;
}

INLINE uint32_t place_of(const Named named, uint32_t id)
{
    const Word *word = named.words + (id >> 6);
    return (uint32_t)word->before + (uint32_t)__builtin_popcountll(word->bits & (((uint64_t)1 << (id & 63)) - 1));
}

typedef struct {
    const uint32_t *users, *items;
    const float *ratings;
    Py_ssize_t n;
} RatingsPiece;

typedef struct {
    uint32_t *users, *starts, *items;
    void *local;
    float *ratings;
    Py_ssize_t n_users, n_items; /* the room, then how many there are */
    int wide;
} RatingsRoom;

static const char beyond[] = "an id is beyond its table", cramped[] = "the output is too small";

/* Return what is wrong, or NULL. `places` has room for one of each rating. */
TARGETED static const char *put_ratings(const RatingsPiece *pieces, Py_ssize_t count, const Named users, const Named items,
                                        uint32_t *places, RatingsRoom *out)
{
    for (Py_ssize_t s = 0; s < count; s++)
        if (!name_rows(users, pieces[s].users, pieces[s].n) || !name_rows(items, pieces[s].items, pieces[s].n))
            return beyond;
    out->n_users = list_named(users, out->users, out->n_users);
    out->n_items = list_named(items, out->items, out->n_items);
    if (out->n_users < 0 || out->n_items < 0 || (!out->wide && out->n_items > 1 << 16))
        return cramped;

    uint32_t *next = out->starts + 1, *place = places, sum = 0; /* where a user's next rating goes; at last, the end */
    memset(out->starts, 0, sizeof(uint32_t) * (size_t)(out->n_users + 1));
    for (Py_ssize_t s = 0; s < count; s++)
        for (Py_ssize_t i = 0; i < pieces[s].n; i++)
            next[*place++ = place_of(users, pieces[s].users[i])]++;
    for (Py_ssize_t u = 0; u < out->n_users; u++) {
        const uint32_t ratings = next[u];
        next[u] = sum;
        sum += ratings;
    }
    place = places;
    for (Py_ssize_t s = 0; s < count; s++)
        for (Py_ssize_t i = 0; i < pieces[s].n; i++) {
            const uint32_t at = next[*place++]++, item = place_of(items, pieces[s].items[i]);
            if (out->wide)
                ((uint32_t *)out->local)[at] = item;
            else
                ((uint16_t *)out->local)[at] = (uint16_t)item;
            out->ratings[at] = pieces[s].ratings[i];
        }
    return NULL;
}

typedef struct {
    const uint8_t *labels;
    const uint32_t *starts, *indices;
    const float *values, *weights; /* NULL: all 1 */
    Py_ssize_t n, entries;
} ClicksPiece;

typedef struct {
    uint8_t *labels;
    uint32_t *starts, *features;
    void *local;
    float *values, *weights; /* NULL: all 1 */
    Py_ssize_t n_features;   /* the room, then how many there are */
    int wide;
} ClicksRoom;

static void copy_or_ones(float *to, const float *from, Py_ssize_t count)
{
    if (from)
        memcpy(to, from, sizeof(float) * (size_t)count);
    else
        for (Py_ssize_t i = 0; i < count; i++)
            to[i] = 1.0f;
}

/* Return what is wrong, or NULL. */
TARGETED static const char *put_clicks(const ClicksPiece *pieces, Py_ssize_t count, const Named features, ClicksRoom *out)
{
    uint32_t row = 0, entry = 0;
    out->starts[0] = 0;
    for (Py_ssize_t s = 0; s < count; s++) {
        const ClicksPiece *piece = pieces + s;
        int back = 0;
        for (Py_ssize_t i = 0; i < piece->n; i++) {
            back |= piece->starts[i + 1] < piece->starts[i];
            out->starts[row + i + 1] = piece->starts[i + 1] - piece->starts[0] + entry;
        }
        if (back)
            return "starts do not ascend within the entries";
        if (!name_rows(features, piece->indices, piece->entries))
            return beyond;
        if (piece->n)
            memcpy(out->labels + row, piece->labels, (size_t)piece->n);
        if (out->weights)
            copy_or_ones(out->weights + row, piece->weights, piece->n);
        if (out->values)
            copy_or_ones(out->values + entry, piece->values, piece->entries);
        row += (uint32_t)piece->n;
        entry += (uint32_t)piece->entries;
    }
    out->n_features = list_named(features, out->features, out->n_features);
    if (out->n_features < 0 || (!out->wide && out->n_features > 1 << 16))
        return cramped;
    uint32_t *wide = out->local;
    uint16_t *narrow = out->local;
    for (Py_ssize_t s = 0; s < count; s++)
        if (out->wide)
            for (Py_ssize_t i = 0; i < pieces[s].entries; i++)
                *wide++ = place_of(features, pieces[s].indices[i]);
        else
            for (Py_ssize_t i = 0; i < pieces[s].entries; i++)
                *narrow++ = (uint16_t)place_of(features, pieces[s].indices[i]);
    return NULL;
}

/* ---- what Python sees ---- */

static PyObject *invalid(const char *what)
{
    PyErr_SetString(PyExc_ValueError, what);
    return NULL;
}

/* Whether the bytes are whole values of this width at an address where they may be read. */
static int holds(const Py_buffer *view, size_t width)
{
    return !((size_t)view->len % width) && !(view->len && (uintptr_t)view->buf % width);
}

static int as_table(const Py_buffer *view, Py_ssize_t stride, int columns, Table *table)
{
    if (columns < 1 || columns > MAX_COLUMNS || stride < 3 * columns + 1 || stride > MAX_STRIDE ||
        !holds(view, 4) || view->len % (stride * 4))
        return 0;
    table->data = view->buf;
    table->stride = stride;
    table->rows = view->len / (stride * 4);
    table->columns = columns;
    return 1;
}

static int as_ids(const Py_buffer *view, Py_ssize_t width, Py_ssize_t count, LocalIds *ids)
{
    ids->ids = view->buf;
    ids->count = count;
    ids->wide = width == 4;
    return (width == 2 || width == 4) && holds(view, (size_t)width) && view->len == width * count;
}

static int as_ratings(const Py_buffer *users, const Py_buffer *starts, const Py_buffer *items,
                      const Py_buffer *index, Py_ssize_t width, const Py_buffer *ratings, Table user_table,
                      Table item_table, Ratings *batch)
{
    batch->users = users->buf;
    batch->starts = starts->buf;
    batch->items = items->buf;
    batch->ratings = ratings->buf;
    batch->n_users = users->len / 4;
    batch->n_items = items->len / 4;
    batch->n = ratings->len / 4;
    return holds(users, 4) && holds(starts, 4) && holds(items, 4) && holds(ratings, 4) &&
           as_ids(index, width, batch->n, &batch->index) && starts->len == users->len + 4 &&
           ascending(batch->users, batch->n_users, user_table.rows) &&
           ascending(batch->items, batch->n_items, item_table.rows) &&
           spans(batch->starts, batch->n_users, batch->n) && below(&batch->index, batch->n_items);
}

static int as_clicks(const Py_buffer *labels, const Py_buffer *starts, const Py_buffer *features,
                     const Py_buffer *index, Py_ssize_t width, const Py_buffer *values, const Py_buffer *weights,
                     Table table, Clicks *batch)
{
    Py_ssize_t entries = width > 0 ? index->len / width : 0;
    batch->labels = labels->buf;
    batch->starts = starts->buf;
    batch->features = features->buf;
    batch->values = values->buf ? values->buf : NULL;
    batch->weights = weights->buf ? weights->buf : NULL;
    batch->n = labels->len;
    batch->n_features = features->len / 4;
    return holds(starts, 4) && holds(features, 4) && as_ids(index, width, entries, &batch->index) && batch->n > 0 &&
           starts->len == 4 * (batch->n + 1) &&
           (!values->buf || (holds(values, 4) && values->len == 4 * entries)) &&
           (!weights->buf || (holds(weights, 4) && weights->len == 4 * batch->n)) &&
           spans(batch->starts, batch->n, entries) &&
           ascending(batch->features, batch->n_features, table.rows) && below(&batch->index, batch->n_features);
}

static int as_outbox(const Py_buffer *rows, const Py_buffer *masks, const Py_buffer *values, Py_ssize_t touched,
                     int columns, double threshold, int mode, int exponent, Outbox *out)
{
    const Py_ssize_t width = mode == HALVES ? 2 : 4;
    if (exponent <= -120 || exponent >= 120 || mode < FLOATS || mode > MERGED)
        return 0;
    out->rows = rows->buf;
    out->masks = masks->buf;
    out->values = values->buf;
    out->n_rows = out->n_values = 0;
    out->room = values->len / width;
    out->threshold = (float)threshold;
    out->mode = mode;
    out->scale = ldexpf(1.0f, exponent);
    out->unscale = ldexpf(1.0f, -exponent);
    out->largest = (marks){0};
    out->finite = (marks){0} - 1;
    if (mode == MERGED) /* nothing is sent */
        return 1;
    return holds(rows, 4) && holds(values, 4) && rows->len >= 4 * touched &&
           masks->len >= touched * ((columns + 7) / 8) && values->len >= width * (touched * columns + 1);
}

#define RELEASE(views) \
    for (size_t at = 0; at < sizeof(views) / sizeof(*(views)); at++) \
        if ((views)[at].obj) PyBuffer_Release(&(views)[at])

/* PyArg_ParseTuple has room to release as many buffers as its format has arguments at the top level, or
 * eight if those are fewer (getargs.c), and writes beyond it without a check: buffers in nested tuples
 * count, too. Hence no format here may hold more; what does is parsed in parts. */

static int as_rule(const Rule *rule) { return rule->kind == ADAGRAD || rule->kind == NESTEROV; }

static Scratch step_memory, merge_memory, update_memory;
static Named users_named, items_named;

static PyObject *factorization_step(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer v[13] = {{0}};
    Py_ssize_t user_stride, item_stride, width;
    int columns, user_mode, item_mode, user_exponent, item_exponent;
    Rule user, item; /* rules */
    double centre, scale, l2, gradient_scale, threshold;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "(w*n)(w*n)i(y*y*y*y*ny*)dddd(iffffi)(iffffi)dii(w*w*w*i)(w*w*w*i)", &v[0], &user_stride,
                          &v[1], &item_stride, &columns, &v[2], &v[3], &v[4], &v[5], &width, &v[6], &centre, &scale, &l2,
                          &gradient_scale, &user.kind, &user.rate, &user.epsilon, &user.momentum, &user.decay, &user.step,
                          &item.kind, &item.rate, &item.epsilon, &item.momentum, &item.decay, &item.step, &threshold,
                          &user_mode, &item_mode, &v[7], &v[8], &v[9], &user_exponent, &v[10], &v[11], &v[12], &item_exponent))
        goto done;
    Table users, items;
    Ratings batch;
    Outbox user_out, item_out;
    if (!as_rule(&user) || !as_rule(&item) || columns < 2 || !as_table(&v[0], user_stride, columns, &users) ||
        !as_table(&v[1], item_stride, columns, &items)) {
        invalid("no such rule, or tables do not have this shape");
        goto done;
    }
    if (!as_ratings(&v[2], &v[3], &v[4], &v[5], width, &v[6], users, items, &batch)) {
        invalid("the mini-batch is damaged or larger than the tables");
        goto done;
    }
    if (!as_outbox(&v[7], &v[8], &v[9], batch.n_users, columns, threshold, user_mode, user_exponent, &user_out) ||
        !as_outbox(&v[10], &v[11], &v[12], batch.n_items, columns, threshold, item_mode, item_exponent, &item_out)) {
        invalid("the outbox is too small");
        goto done;
    }
    size_t padded = (size_t)(columns + 1 + LANES - 1) / LANES * LANES;
    float *memory = scratch(&step_memory, sizeof(float) * (batch.n_items * 2 * padded + 3 * padded + batch.n_items));
    if (!memory)
        goto done;
    double loss = factorize_any(users, items, &batch, columns, (float)centre, (float)scale, (float)l2,
                                (float)gradient_scale, &user, &item, &user_out, &item_out, memory);
    result = Py_BuildValue("(d(nnfi)(nnfi))", loss, user_out.n_rows, user_out.n_values, largest_of(&user_out),
                           finite_of(&user_out), item_out.n_rows, item_out.n_values, largest_of(&item_out), finite_of(&item_out));
done:
    RELEASE(v);
    return result;
}

static PyObject *factorization_error(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer v[7] = {{0}};
    Py_ssize_t user_stride, item_stride, width;
    int columns;
    float centre, deviation, low, high;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "(y*n)(y*n)i(y*y*y*y*ny*)ffff", &v[0], &user_stride, &v[1], &item_stride, &columns,
                          &v[2], &v[3], &v[4], &v[5], &width, &v[6], &centre, &deviation, &low, &high))
        goto done;
    Table users, items;
    Ratings batch;
    if (columns < 2 || !as_table(&v[0], user_stride, columns, &users) ||
        !as_table(&v[1], item_stride, columns, &items) ||
        !as_ratings(&v[2], &v[3], &v[4], &v[5], width, &v[6], users, items, &batch)) {
        invalid("the mini-batch is damaged or larger than the tables");
        goto done;
    }
    result = PyFloat_FromDouble(square_error_any(users, items, &batch, columns, centre, deviation, low, high));
done:
    RELEASE(v);
    return result;
}

static PyObject *logistic_step(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer v[14] = {{0}};
    Py_ssize_t stride, intercept_stride, width;
    int mode, exponent, intercept_exponent;
    Rule rule;
    double threshold;
    PyObject *arrays, *result = NULL;
    if (!PyArg_ParseTuple(args, "(w*n)(w*n)O!(iffffi)di(w*w*w*i)(w*w*w*i)", &v[0], &stride, &v[1],
                          &intercept_stride, &PyTuple_Type, &arrays, &rule.kind, &rule.rate, &rule.epsilon,
                          &rule.momentum, &rule.decay, &rule.step, &threshold, &mode, &v[7], &v[8], &v[9],
                          &exponent, &v[10], &v[11], &v[12], &intercept_exponent) ||
        !PyArg_ParseTuple(arrays, "y*y*y*y*nz*z*", &v[2], &v[3], &v[4], &v[5], &width, &v[6], &v[13]))
        goto done;
    Table features, intercept;
    Clicks batch;
    Outbox out, intercept_out;
    if (!as_rule(&rule) || !as_table(&v[0], stride, 1, &features) ||
        !as_table(&v[1], intercept_stride, 1, &intercept) || intercept.rows != 1) {
        invalid("no such rule, or tables do not have this shape");
        goto done;
    }
    if (!as_clicks(&v[2], &v[3], &v[4], &v[5], width, &v[6], &v[13], features, &batch)) {
        invalid("the mini-batch is damaged or larger than the tables");
        goto done;
    }
    if (!as_outbox(&v[7], &v[8], &v[9], batch.n_features, 1, threshold, mode, exponent, &out) ||
        !as_outbox(&v[10], &v[11], &v[12], 1, 1, threshold, mode, intercept_exponent, &intercept_out)) {
        invalid("the outbox is too small");
        goto done;
    }
    float *memory = scratch(&step_memory, sizeof(float) * 2 * (batch.n_features + 1));
    if (!memory)
        goto done;
    double gradient = 0.0;
    double loss = classify_any(features, intercept.data[0] + intercept.data[1], &batch, &rule, &out, memory, &gradient);
    Rule free_rule = rule;
    free_rule.decay = 0.0f; /* the intercept is not regularised */
    change_one(intercept.data, (float)(gradient / (double)batch.n), &free_rule, &intercept_out);
    result = Py_BuildValue("(d(nnfi)(nnfi))", loss, out.n_rows, out.n_values, largest_of(&out), finite_of(&out),
                           intercept_out.n_rows, intercept_out.n_values, largest_of(&intercept_out), finite_of(&intercept_out));
done:
    RELEASE(v);
    return result;
}

static PyObject *logistic_margins(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer v[9] = {{0}};
    Py_ssize_t stride, intercept_stride, width;
    PyObject *arrays, *result = NULL;
    if (!PyArg_ParseTuple(args, "(y*n)(y*n)O!w*", &v[0], &stride, &v[1], &intercept_stride, &PyTuple_Type, &arrays,
                          &v[7]) ||
        !PyArg_ParseTuple(arrays, "y*y*y*y*nz*z*", &v[2], &v[3], &v[4], &v[5], &width, &v[6], &v[8]))
        goto done;
    Table features, intercept;
    Clicks batch;
    if (!as_table(&v[0], stride, 1, &features) || !as_table(&v[1], intercept_stride, 1, &intercept) ||
        intercept.rows != 1 || !as_clicks(&v[2], &v[3], &v[4], &v[5], width, &v[6], &v[8], features, &batch) ||
        !holds(&v[7], 4) || v[7].len != 4 * batch.n) {
        invalid("the mini-batch is damaged or larger than the tables");
        goto done;
    }
    float *weights = scratch(&step_memory, sizeof(float) * (batch.n_features + 1)), *margins = v[7].buf;
    if (!weights)
        goto done;
    for (Py_ssize_t j = 0; j < batch.n_features; j++)
        weights[j] = features.data[(size_t)batch.features[j] * stride];
    for (Py_ssize_t n = 0; n < batch.n; n++)
        margins[n] = intercept.data[0] + weighted_sum(weights, 1, &batch, batch.starts[n], batch.starts[n + 1]);
    result = Py_NewRef(Py_None);
done:
    RELEASE(v);
    return result;
}

static PyObject *flush_table(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer v[5] = {{0}};
    Py_ssize_t stride;
    int columns, mode, exponent;
    double threshold;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "(w*n)iz*di(w*w*w*i)", &v[0], &stride, &columns, &v[4], &threshold, &mode, &v[1], &v[2],
                          &v[3], &exponent))
        goto done;
    Table table;
    Outbox out;
    if (!as_table(&v[0], stride, columns, &table) || table.rows > UINT32_MAX) {
        invalid("a table does not have this shape");
        goto done;
    }
    const uint32_t *ids = v[4].obj ? v[4].buf : NULL;
    const Py_ssize_t count = v[4].obj ? v[4].len / 4 : table.rows;
    if (!holds(&v[4], 4) || (ids && !ascending(ids, count, table.rows))) {
        invalid("rows must ascend, and be in the table");
        goto done;
    }
    if (!as_outbox(&v[1], &v[2], &v[3], count, columns, threshold, mode, exponent, &out)) {
        invalid("the outbox is too small");
        goto done;
    }
    flush_rows(table, ids, count, &out);
    result = Py_BuildValue("(nnfi)", out.n_rows, out.n_values, largest_of(&out), finite_of(&out));
done:
    RELEASE(v);
    return result;
}

/* A table, or what is kept of one, which has nothing beside its columns. */
static int as_target(const Py_buffer *view, Py_ssize_t stride, int columns, int kept, Table *table)
{
    if (!kept)
        return as_table(view, stride, columns, table);
    if (columns < 1 || columns > MAX_COLUMNS || stride != columns || !holds(view, 4) || view->len % (stride * 4))
        return 0;
    *table = (Table){view->buf, view->len / (stride * 4), stride, columns};
    return 1;
}

/* Merge updates into tables, or with `rows_list` into what is kept of their sums. */
static PyObject *merge_all(PyObject *table_list, PyObject *update_list, Py_buffer coefficients, int by_count,
                           PyObject *rows_list)
{
    Py_buffer *views = NULL, *rows = NULL;
    const float one = 1.0f;
    PyObject *result = NULL;
    const Py_ssize_t count = PyList_Size(table_list), publishers = PyList_Size(update_list);
    const size_t all = (size_t)(count * publishers);
    views = calloc((size_t)(2 * count + publishers) + 1, sizeof(*views));
    rows = views + count + publishers;
    Summed *summed = calloc((size_t)count + 1, sizeof(*summed));
    Table *tables = calloc((size_t)count + 1, sizeof(*tables));
    int *whole = calloc((size_t)count + 1, sizeof(*whole));
    Part *parts = calloc(all + 1, sizeof(*parts));
    Update *updates = calloc(all + (size_t)publishers + 1, sizeof(*updates)), *one_table = updates + all;
    float *memory = scratch(&merge_memory, sizeof(float) * (4 * BLOCK_ENTRIES + 1));
    if (!views || !summed || !tables || !whole || !parts || !updates || !memory) {
        PyErr_NoMemory();
        goto done;
    }
    if (rows_list && PyList_Size(rows_list) != count) {
        invalid("there must be room for the rows of each table");
        goto done;
    }
    if (!holds(&coefficients, 4) || coefficients.len < 4 * (by_count ? publishers + 1 : 1)) {
        invalid("too few coefficients");
        goto done;
    }
    for (Py_ssize_t t = 0; t < count; t++) {
        PyObject *table = PyList_GetItem(table_list, t);
        Py_ssize_t stride;
        int columns;
        if (!PyTuple_Check(table)) {
            invalid("a table is its rows, how many columns they have, and whether updates count whole");
            goto done;
        }
        if (!PyArg_ParseTuple(table, "(w*n)ii", &views[t], &stride, &columns, &whole[t]))
            goto done;
        if (!as_target(&views[t], stride, columns, rows_list != NULL, &tables[t])) {
            invalid("a table does not have this shape");
            goto done;
        }
        if (!rows_list)
            continue;
        if (PyObject_GetBuffer(PyList_GetItem(rows_list, t), &rows[t], PyBUF_WRITABLE))
            goto done;
        if (!holds(&rows[t], 4) || rows[t].len / 4 < tables[t].rows) {
            invalid("there must be room for the rows of each table");
            goto done;
        }
        summed[t].rows = rows[t].buf;
    }
    Py_ssize_t floats = 0, number = 0;
    for (; number < publishers; number++) {
        Py_buffer *view = &views[count + number];
        if (PyObject_GetBuffer(PyList_GetItem(update_list, number), view, PyBUF_SIMPLE))
            goto done;
        Py_ssize_t needed = announced(view->buf, view->len, tables, count, parts + number * count);
        if (needed < 0)
            goto refused;
        floats += needed;
    }
    float *room = scratch(&update_memory, sizeof(float) * (size_t)(floats + 1));
    if (!room)
        goto done;
    for (number = 0; number < publishers; number++) {
        room = take_apart(views[count + number].buf, tables, count, parts + number * count, room, updates + number * count);
        if (!room)
            goto refused;
    }
    for (Py_ssize_t t = 0; t < count; t++) { /* nothing has been written before all are known to be sound */
        for (Py_ssize_t u = 0; u < publishers; u++)
            one_table[u] = updates[u * count + t];
        const float *factors = whole[t] ? &one : coefficients.buf;
        if (rows_list)
            sum_any(tables[t], one_table, publishers, factors, !whole[t] && by_count, memory, &summed[t]);
        else
            merge_any(tables[t], tables[t].columns, one_table, publishers, factors, !whole[t] && by_count, memory);
    }
    result = rows_list ? PyList_New(0) : Py_NewRef(Py_None);
    for (Py_ssize_t t = 0; rows_list && result && t < count; t++) {
        PyObject *one_sum = Py_BuildValue("(nf)", summed[t].n_rows, float_of((uint32_t)summed[t].largest));
        if (!one_sum || PyList_Append(result, one_sum))
            Py_CLEAR(result);
        Py_XDECREF(one_sum);
    }
    goto done;
refused:;
    PyObject *which = Py_BuildValue("(sn)", "not an update of these tables", number);
    if (which)
        PyErr_SetObject(PyExc_ValueError, which);
    Py_XDECREF(which);
done:
    for (Py_ssize_t i = 0; views && i < 2 * count + publishers; i++)
        if (views[i].obj)
            PyBuffer_Release(&views[i]);
    free(views);
    free(summed);
    free(tables);
    free(whole);
    free(parts);
    free(updates);
    PyBuffer_Release(&coefficients);
    return result;
}

static PyObject *merge_updates(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer coefficients;
    int by_count;
    PyObject *tables, *updates;
    if (!PyArg_ParseTuple(args, "O!O!y*i", &PyList_Type, &tables, &PyList_Type, &updates, &coefficients, &by_count))
        return NULL;
    return merge_all(tables, updates, coefficients, by_count, NULL);
}

static PyObject *sum_updates(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer coefficients;
    int by_count;
    PyObject *tables, *updates, *rows;
    if (!PyArg_ParseTuple(args, "O!O!y*iO!", &PyList_Type, &tables, &PyList_Type, &updates, &coefficients, &by_count,
                          &PyList_Type, &rows))
        return NULL;
    return merge_all(tables, updates, coefficients, by_count, rows);
}

static PyObject *publish_sums(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer v[6] = {{0}};
    Py_ssize_t stride;
    int columns, mode, exponent;
    double threshold;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "(y*n)w*iy*di(w*w*w*i)", &v[0], &stride, &v[1], &columns, &v[2], &threshold, &mode, &v[3],
                          &v[4], &v[5], &exponent))
        goto done;
    Table table, kept;
    Outbox out;
    if (!as_table(&v[0], stride, columns, &table) || !as_target(&v[1], columns, columns, 1, &kept) ||
        kept.rows != table.rows) {
        invalid("a table does not have this shape");
        goto done;
    }
    const Py_ssize_t count = v[2].len / 4;
    if (!holds(&v[2], 4) || !ascending(v[2].buf, count, table.rows)) {
        invalid("rows must ascend, and be in the table");
        goto done;
    }
    if (mode == MERGED || !as_outbox(&v[3], &v[4], &v[5], count, columns, threshold, mode, exponent, &out)) {
        invalid("the outbox is too small");
        goto done;
    }
    publish_kept(table, kept.data, v[2].buf, count, &out);
    result = Py_BuildValue("(nnfi)", out.n_rows, out.n_values, largest_of(&out), finite_of(&out));
done:
    RELEASE(v);
    return result;
}

static PyObject *cut_update(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer v[6] = {{0}};
    int half, shards, block, exponent;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "(y*y*y*i)iii(w*w*w*i)", &v[0], &v[1], &v[2], &exponent, &half, &shards, &block, &v[3],
                          &v[4], &v[5], &exponent))
        goto done;
    const Py_ssize_t rows = v[0].len / 4, width = half ? 2 : 4, values = v[2].len / width;
    Py_ssize_t sizes[UINT8_MAX + 1][2] = {{0}};
    if (shards < 1 || shards > UINT8_MAX || block < 1 || !holds(&v[0], 4) || !holds(&v[2], (size_t)width) ||
        (rows ? v[1].len % rows : v[1].len) || !holds(&v[3], 4) || !holds(&v[5], (size_t)width) || v[3].len < v[0].len ||
        v[4].len < v[1].len || v[5].len < v[2].len ||
        !cut_rows(v[0].buf, v[1].buf, v[2].buf, rows, rows ? v[1].len / rows : 0, width, values, (uint32_t)shards,
                  (uint32_t)block, sizes, v[3].buf, v[4].buf, v[5].buf)) {
        invalid("not an update, or its pieces have no room");
        goto done;
    }
    result = PyList_New(0);
    for (int s = 0; result && s < shards; s++) {
        PyObject *size = Py_BuildValue("(nn)", sizes[s][0], sizes[s][1]);
        if (!size || PyList_Append(result, size))
            Py_CLEAR(result);
        Py_XDECREF(size);
    }
done:
    RELEASE(v);
    return result;
}

static int as_total(const Py_buffer *sums, const Py_buffer *counts, const Py_buffer *touched, int columns, Table *table)
{
    if (columns < 1 || columns > MAX_COLUMNS)
        return 0;
    const Py_ssize_t width = columns < LANES ? columns : (columns + 7) / 8 * LANES;
    *table = (Table){NULL, touched->len, width, columns};
    return holds(sums, 4) && holds(counts, 4) && touched->len <= PY_SSIZE_T_MAX / 4 / width &&
           sums->len == 4 * width * touched->len && (!counts->len || counts->len == sums->len);
}

static PyObject *add_update(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *list, *result = NULL;
    Py_buffer update;
    if (!PyArg_ParseTuple(args, "O!y*", &PyList_Type, &list, &update))
        return NULL;
    const Py_ssize_t count = PyList_Size(list);
    Py_buffer *views = calloc(3 * (size_t)count + 1, sizeof(*views));
    Table *tables = calloc((size_t)count + 1, sizeof(*tables));
    Part *parts = calloc((size_t)count + 1, sizeof(*parts));
    Update *updates = calloc((size_t)count + 1, sizeof(*updates));
    if (!views || !tables || !parts || !updates) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t t = 0; t < count; t++) {
        PyObject *total = PyList_GetItem(list, t);
        Py_buffer *v = views + 3 * t;
        int columns;
        if (!PyTuple_Check(total)) {
            invalid("a total is sums, counts, touched rows, and how many columns they have");
            goto done;
        }
        if (!PyArg_ParseTuple(total, "w*w*w*i", &v[0], &v[1], &v[2], &columns))
            goto done;
        if (!as_total(&v[0], &v[1], &v[2], columns, &tables[t])) {
            invalid("a total does not have this shape");
            goto done;
        }
    }
    Py_ssize_t floats = announced(update.buf, update.len, tables, count, parts);
    float *room = floats < 0 ? NULL : scratch(&update_memory, sizeof(float) * (size_t)(floats + 1));
    if (floats >= 0 && !room)
        goto done;
    if (!room || !take_apart(update.buf, tables, count, parts, room, updates)) {
        invalid("not an update of these tables");
        goto done;
    }
    for (Py_ssize_t t = 0; t < count; t++) /* nothing has been written before all of it is known to be sound */
        add_rows(&updates[t], tables[t].columns, views[3 * t].buf, views[3 * t + 1].len ? views[3 * t + 1].buf : NULL,
                 views[3 * t + 2].buf);
    result = Py_NewRef(Py_None);
done:
    for (Py_ssize_t i = 0; views && i < 3 * count; i++)
        if (views[i].obj)
            PyBuffer_Release(&views[i]);
    free(views);
    free(tables);
    free(parts);
    free(updates);
    PyBuffer_Release(&update);
    return result;
}

static PyObject *pack_update(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *list, *result = NULL;
    int half, planes;
    Py_buffer out, v[3] = {{0}};
    if (!PyArg_ParseTuple(args, "O!iiw*", &PyList_Type, &list, &half, &planes, &out))
        return NULL;
    const Py_ssize_t count = PyList_Size(list), width = half ? 2 : 4;
    uint8_t *bytes = out.buf;
    Py_ssize_t size = HEAD + PART * count;
    if (count > UINT8_MAX || out.len < size) {
        invalid("too many tables, or no room for them");
        goto done;
    }
    memcpy(bytes, magic, sizeof(magic));
    bytes[3] = (uint8_t)((half ? HALF : 0) | (planes ? PLANES : 0));
    bytes[4] = (uint8_t)count;
    memset(bytes + 5, 0, HEAD - 5); /* for the checksum */
    for (Py_ssize_t t = 0; t < count; t++) {
        PyObject *part = PyList_GetItem(list, t);
        int exponent;
        if (!PyTuple_Check(part)) {
            invalid("a part is rows, masks, values and exponent");
            goto done;
        }
        if (!PyArg_ParseTuple(part, "y*y*y*i", &v[0], &v[1], &v[2], &exponent))
            goto done;
        const Py_ssize_t rows = v[0].len / 4;
        if (!holds(&v[0], 4) || !holds(&v[2], (size_t)width) || abs(exponent) > LARGEST_EXPONENT ||
            !ascending(v[0].buf, rows, (Py_ssize_t)1 << 32) || v[2].len / width > UINT32_MAX ||
            out.len - size < 5 * rows + v[1].len + v[2].len) {
            invalid("rows must ascend, the exponent be within 100, and the output have room");
            goto done;
        }
        const Py_ssize_t row_bytes = pack_rows(v[0].buf, rows, bytes + size);
        const uint32_t header[3] = {(uint32_t)rows, (uint32_t)(v[2].len / width), (uint32_t)row_bytes};
        memcpy(bytes + HEAD + PART * t, header, sizeof(header));
        bytes[HEAD + PART * t + 12] = (uint8_t)exponent;
        size += row_bytes;
        memcpy(bytes + size, v[1].buf, (size_t)v[1].len);
        size += v[1].len;
        if (planes)
            split_planes(v[2].buf, bytes + size, v[2].len / width, width);
        else
            memcpy(bytes + size, v[2].buf, (size_t)v[2].len);
        size += v[2].len;
        RELEASE(v);
    }
    result = PyLong_FromSsize_t(size);
done:
    RELEASE(v);
    PyBuffer_Release(&out);
    return result;
}

static const char astray[] = "a segment is not within the rows, or a table has more than 2^32";
static const char unequal[] = "the columns are not of one length";

/* Have the beginning of a column on its way while the next segment is looked at: most are short. */
static void fetch_ahead(const void *column)
{
    __builtin_prefetch(column);
    __builtin_prefetch((const char *)column + 64);
}

/* Segments: begins[i]:ends[i] of so many rows. */
static int as_segments(const Py_buffer *begins, const Py_buffer *ends, Py_ssize_t rows)
{
    if (!holds(begins, 8) || !holds(ends, 8) || begins->len != ends->len)
        return 0;
    const int64_t *from = begins->buf, *to = ends->buf;
    for (Py_ssize_t i = 0; i < begins->len / 8; i++)
        if (from[i] < 0 || from[i] > to[i] || to[i] > rows)
            return 0;
    return 1;
}

/* A place to write to; None is none. */
static int as_place(PyObject *object, Py_buffer *view)
{
    return object == Py_None || !PyObject_GetBuffer(object, view, PyBUF_WRITABLE);
}

static int as_rows(Py_ssize_t rows) { return rows >= 0 && rows <= (Py_ssize_t)1 << 32; }

static PyObject *assemble_ratings(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer v[10] = {{0}};
    Py_ssize_t user_rows, item_rows, width, total = 0;
    PyObject *arrays, *result = NULL;
    RatingsPiece *pieces = NULL;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*nnO!", &v[0], &v[1], &v[2], &v[3], &v[4], &user_rows, &item_rows,
                          &PyTuple_Type, &arrays) ||
        !PyArg_ParseTuple(arrays, "w*w*w*w*nw*", &v[5], &v[6], &v[7], &v[8], &width, &v[9]))
        goto done;
    const Py_ssize_t rows = v[0].len / 4, count = v[3].len / 8;
    const int64_t *begins = v[3].buf, *ends = v[4].buf;
    if (!holds(&v[0], 4) || !holds(&v[1], 4) || !holds(&v[2], 4) || v[1].len != v[0].len || v[2].len != v[0].len) {
        invalid(unequal);
        goto done;
    }
    if (!as_segments(&v[3], &v[4], rows) || !as_rows(user_rows) || !as_rows(item_rows)) {
        invalid(astray);
        goto done;
    }
    pieces = PyMem_Calloc((size_t)count + 1, sizeof(*pieces));
    if (!pieces) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t s = 0; s < count; s++) {
        pieces[s] = (RatingsPiece){(uint32_t *)v[0].buf + begins[s], (uint32_t *)v[1].buf + begins[s],
                                   (float *)v[2].buf + begins[s], ends[s] - begins[s]};
        fetch_ahead(pieces[s].users);
        fetch_ahead(pieces[s].items);
        fetch_ahead(pieces[s].ratings);
        total += pieces[s].n;
    }
    RatingsRoom out = {v[5].buf, v[6].buf, v[7].buf, v[8].buf, v[9].buf, v[5].len / 4, v[7].len / 4, width == 4};
    if (!holds(&v[5], 4) || !holds(&v[6], 4) || !holds(&v[7], 4) || (width != 2 && width != 4) ||
        !holds(&v[8], (size_t)width) || !holds(&v[9], 4) || total > UINT32_MAX || v[6].len < 4 ||
        v[8].len / width < total || v[9].len / 4 < total) {
        invalid(cramped);
        goto done;
    }
    if (v[6].len / 4 - 1 < out.n_users)
        out.n_users = v[6].len / 4 - 1;
    uint32_t *places = scratch(&step_memory, sizeof(uint32_t) * (size_t)(total + 1));
    if (!places || !name_none(&users_named, user_rows) || !name_none(&items_named, item_rows))
        goto done;
    const char *wrong = put_ratings(pieces, count, users_named, items_named, places, &out);
    forget(&users_named);
    forget(&items_named);
    result = wrong ? invalid(wrong) : Py_BuildValue("(nn)", out.n_users, out.n_items);
done:
    PyMem_Free(pieces);
    RELEASE(v);
    return result;
}

static PyObject *assemble_clicks(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer v[13] = {{0}};
    Py_ssize_t feature_rows, width, total = 0, entries = 0;
    PyObject *arrays, *out_values, *out_weights, *result = NULL;
    ClicksPiece *pieces = NULL;
    if (!PyArg_ParseTuple(args, "y*y*y*z*z*y*y*nO!", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &feature_rows,
                          &PyTuple_Type, &arrays) ||
        !PyArg_ParseTuple(arrays, "w*w*w*w*nOO", &v[7], &v[8], &v[9], &v[10], &width, &out_values, &out_weights) ||
        !as_place(out_values, &v[11]) || !as_place(out_weights, &v[12]))
        goto done;
    const Py_ssize_t rows = v[0].len, all = v[2].len / 4, count = v[5].len / 8;
    const uint32_t *starts = v[1].buf;
    const int64_t *begins = v[5].buf, *ends = v[6].buf;
    if (!holds(&v[1], 4) || !holds(&v[2], 4) || !holds(&v[3], 4) || !holds(&v[4], 4) || v[1].len != 4 * (rows + 1) ||
        (v[3].obj && v[3].len != v[2].len) || (v[4].obj && v[4].len != 4 * rows)) {
        invalid(unequal);
        goto done;
    }
    if ((v[3].obj && !v[11].obj) || (v[4].obj && !v[12].obj)) {
        invalid("the output has no place for values or weights");
        goto done;
    }
    if (!as_segments(&v[5], &v[6], rows) || !as_rows(feature_rows)) {
        invalid(astray);
        goto done;
    }
    pieces = PyMem_Calloc((size_t)count + 1, sizeof(*pieces));
    if (!pieces) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t s = 0; s < count; s++) {
        const uint32_t first = starts[begins[s]], last = starts[ends[s]];
        if (first > last || last > all) {
            invalid("starts do not ascend within the entries");
            goto done;
        }
        pieces[s] = (ClicksPiece){(uint8_t *)v[0].buf + begins[s], starts + begins[s], (uint32_t *)v[2].buf + first,
                                  v[3].obj ? (float *)v[3].buf + first : NULL,
                                  v[4].obj ? (float *)v[4].buf + begins[s] : NULL, ends[s] - begins[s], last - first};
        fetch_ahead(pieces[s].indices);
        fetch_ahead(pieces[s].labels);
        total += pieces[s].n;
        entries += pieces[s].entries;
    }
    ClicksRoom out = {v[7].buf, v[8].buf, v[9].buf, v[10].buf, v[11].obj ? v[11].buf : NULL,
                      v[12].obj ? v[12].buf : NULL, v[9].len / 4, width == 4};
    if (!holds(&v[8], 4) || !holds(&v[9], 4) || (width != 2 && width != 4) || !holds(&v[10], (size_t)width) ||
        !holds(&v[11], 4) || !holds(&v[12], 4) || total > UINT32_MAX || entries > UINT32_MAX || v[7].len < total ||
        v[8].len / 4 <= total || v[10].len / width < entries || (v[11].obj && v[11].len / 4 < entries) ||
        (v[12].obj && v[12].len / 4 < total)) {
        invalid(cramped);
        goto done;
    }
    if (!name_none(&items_named, feature_rows))
        goto done;
    const char *wrong = put_clicks(pieces, count, items_named, &out);
    forget(&items_named);
    result = wrong ? invalid(wrong) : PyLong_FromSsize_t(out.n_features);
done:
    PyMem_Free(pieces);
    RELEASE(v);
    return result;
}

static PyMethodDef methods[] = {
    {"factorization_step", factorization_step, METH_VARARGS, NULL},
    {"factorization_error", factorization_error, METH_VARARGS, NULL},
    {"logistic_step", logistic_step, METH_VARARGS, NULL},
    {"logistic_margins", logistic_margins, METH_VARARGS, NULL},
    {"flush_table", flush_table, METH_VARARGS, NULL},
    {"merge_updates", merge_updates, METH_VARARGS, NULL},
    {"sum_updates", sum_updates, METH_VARARGS, NULL},
    {"publish_sums", publish_sums, METH_VARARGS, NULL},
    {"cut_update", cut_update, METH_VARARGS, NULL},
    {"add_update", add_update, METH_VARARGS, NULL},
    {"pack_update", pack_update, METH_VARARGS, NULL},
    {"assemble_ratings", assemble_ratings, METH_VARARGS, NULL},
    {"assemble_clicks", assemble_clicks, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

#define JOINED(a, b) a##b
#define METHODS(version) JOINED(methods_, version)
PyMethodDef *METHODS(VERSION)(void);

/* The methods of this version, ready to be called. */
PyMethodDef *METHODS(VERSION)(void)
{
    fill_mask_tables();
    return methods;
}

#ifndef NEWER
#ifndef HIGHEST /* the tests try the lower ones, too */
#define HIGHEST 512
#endif
PyMethodDef *methods_avx2(void), *methods_avx512(void);

/* Those of the best version that this processor has. */
static PyMethodDef *best(void)
{
#ifdef __x86_64__
#define HAS __builtin_cpu_supports
    __builtin_cpu_init();
    const int avx2 = HAS("avx2") && HAS("bmi") && HAS("bmi2") && HAS("popcnt");
    const int avx512 = HAS("avx512f") && HAS("avx512bw") && HAS("avx512cd") && HAS("avx512dq") && HAS("avx512vl");
    if (HIGHEST >= 512 && avx2 && avx512)
        return methods_avx512();
    if (HIGHEST >= 2 && avx2)
        return methods_avx2();
#endif
    return methods_plain();
}

PyMODINIT_FUNC PyInit_native(void)
{
    static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "mlless.kernels.native", NULL, 0, NULL, NULL, NULL, NULL, NULL};
    module.m_methods = best();
    return PyModule_Create(&module);
}
#endif

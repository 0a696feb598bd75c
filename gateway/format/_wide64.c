/* The chunker `wide-64` of docs/format/chunker.md as a CPython extension: the fast one of two equal twins.
 *
 * Plain C99. Stage 1 is written as short counted loops over arrays of 16-bit lanes, without a branch and without a
 * table, so that any compiler turns them into vector code for whatever machine it aims at. Where the compiler is GCC
 * or clang and the machine is x86-64, the same loops are compiled three times and the widest one that the processor
 * has is taken at import. That choice is made by hand and not by `target_clones`, because musl has no ifunc.
 *
 * Nothing here depends on the byte order or on the alignment of the machine.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define ALIGNED __attribute__((aligned(64)))
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define ALWAYS_INLINE inline
#define ALIGNED
#define UNLIKELY(condition) (condition)
#define PREFETCH(address) ((void)0)
#endif

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define X86_VARIANTS 1
#else
#define X86_VARIANTS 0
#endif

enum {
    WINDOW = 64,    /* bytes that decide about a position */
    PASSING = 32,   /* stage 1 lets PASSING of 2^16 hashes pass */
    STAGE1_BITS = 11,

    /* Positions per call of stage 1. Each block computes WINDOW lanes that the block before it had too, which asks
     * for long blocks; a cut leaves half a block unused, which asks for short ones. The lanes (2 KiB) stay in L1. */
    BLOCK = 1024,
    /* Positions per answer of stage 1. Of 32 groups of 64, one has a hit. */
    GROUP = 64,
    GROUPS = BLOCK / GROUP,
    LANES = BLOCK + WINDOW,
    /* Bytes that a block may touch, counted from the start of the window of its first position. */
    REACH = LANES + 1,
    /* How far ahead of the scan memory is asked for; a fresh buffer is not in the cache, and virtual machines often
     * have a weak hardware prefetcher. */
    AHEAD = 2048,

    PARAMETER_BYTES = 40,
    ENDS_PER_ROUND = 512,
};

typedef struct {
    uint16_t c0, c1, k1, k2, k3, k4, k5, off;
    uint64_t s, m1, m2;
} Key;

typedef struct {
    size_t minimum, average, maximum;
    uint64_t strict; /* the bits of stage 2 that must be zero up to `average` */
    uint64_t loose;  /* and behind it */
} Limits;

static ALWAYS_INLINE uint16_t load16(const uint8_t *p)
{
    return (uint16_t)(p[0] | (unsigned)p[1] << 8);
}

static ALWAYS_INLINE uint64_t load64(const uint8_t *p)
{
    /* Every compiler that matters makes one load of it on a little-endian machine. */
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 |
           (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 | (uint64_t)p[7] << 56;
}

static uint16_t coefficient(uint8_t byte)
{
    unsigned magnitude = (byte & 0x3Fu) | 1u;
    return (uint16_t)(byte & 0x80u ? 0x10000u - magnitude : magnitude);
}

static void read_key(Key *key, const uint8_t *p)
{
    key->c0 = coefficient(p[0]);
    key->c1 = coefficient(p[1]);
    key->k1 = (uint16_t)(load16(p + 2) | 3u);
    key->k2 = (uint16_t)(load16(p + 4) | 3u);
    key->k3 = (uint16_t)(load16(p + 6) | 3u);
    key->k4 = (uint16_t)(load16(p + 8) | 3u);
    key->k5 = (uint16_t)(load16(p + 10) | 3u);
    key->off = (uint16_t)((load16(p + 12) & 0xFC00u) | 0x0200u);
    key->s = load64(p + 16);
    key->m1 = load64(p + 24) | 1u;
    key->m2 = load64(p + 32) | 1u;
}

/* Arithmetic on lanes. The product is made in `unsigned`, since uint16_t would be promoted to int and overflow it. */
#define ADD(a, b) ((uint16_t)((unsigned)(a) + (unsigned)(b)))
#define MUL(a, b) ((uint16_t)((unsigned)(a) * (unsigned)(b)))

/* Stage 1 for the BLOCK positions whose windows start at window[0], window[1], ...
 *
 * Reads REACH bytes. lane[j] becomes x32 - OFF of position j; hit[g] says whether any of the GROUP lanes of group g
 * is below PASSING. The levels are indexed by the start of their window, so level k is
 * lane[j] = lane[j + 2^k] + K * lane[j], which may be done in place: a loop only looks ahead of what it has written.
 * All loops but the last run up to the same round LANES; what they put behind the lanes that count is not used.
 */
static ALWAYS_INLINE void stage1(const Key *key, const uint8_t *restrict window, uint16_t *restrict lane,
                                 uint8_t *restrict hit)
{
    const uint16_t c0 = key->c0, c1 = key->c1, off = key->off;
    const uint16_t k1 = key->k1, k2 = key->k2, k3 = key->k3, k4 = key->k4, k5 = key->k5;
    const uint16_t k12 = MUL(k1, k2), k34 = MUL(k3, k4);
    int j, g;

    for (j = 0; j < LANES; j++) {
        uint16_t x = ADD(MUL(c0, window[j]), MUL(c1, window[j + 1]));
        lane[j] = (uint16_t)(x ^ (x >> 7));
    }
    /* Two levels in one pass store half as often:
     * x4[i] = x1[i] + K1*x1[i-2] + K2*x1[i-4] + K1*K2*x1[i-6], and x16 from x4 alike. */
    for (j = 0; j < LANES; j++) {
        uint16_t near = ADD(lane[j + 6], MUL(k1, lane[j + 4]));
        lane[j] = ADD(near, ADD(MUL(k2, lane[j + 2]), MUL(k12, lane[j])));
    }
    for (j = 0; j < LANES; j++) {
        uint16_t near = ADD(lane[j + 24], MUL(k3, lane[j + 16]));
        lane[j] = ADD(near, ADD(MUL(k4, lane[j + 8]), MUL(k34, lane[j])));
    }
    for (g = 0; g < GROUPS; g++) {
        uint16_t *restrict part = lane + g * GROUP;
        uint16_t least = 0xFFFF;
        for (j = 0; j < GROUP; j++) {
            uint16_t x = (uint16_t)(ADD(part[j + 32], MUL(k5, part[j])) - off);
            part[j] = x;
            least = x < least ? x : least;
        }
        hit[g] = least < PASSING;
    }
}

typedef void (*Stage1)(const Key *key, const uint8_t *restrict window, uint16_t *restrict lane,
                       uint8_t *restrict hit);

static void stage1_plain(const Key *key, const uint8_t *restrict window, uint16_t *restrict lane,
                         uint8_t *restrict hit)
{
    stage1(key, window, lane, hit);
}

#if X86_VARIANTS
__attribute__((target("avx2"))) static void stage1_avx2(const Key *key, const uint8_t *restrict window,
                                                        uint16_t *restrict lane, uint8_t *restrict hit)
{
    stage1(key, window, lane, hit);
}

#if defined(__clang__)
#define AVX512 "avx512f,avx512bw,avx512vl"
#else
#define AVX512 "avx512f,avx512bw,avx512vl,prefer-vector-width=512"
#endif
__attribute__((target(AVX512))) static void stage1_avx512(const Key *key, const uint8_t *restrict window,
                                                          uint16_t *restrict lane, uint8_t *restrict hit)
{
    stage1(key, window, lane, hit);
}
#endif

/* Chosen once at import, from the constants of the processor. */
static Stage1 best_stage1 = stage1_plain;
static const char *best_name = "plain";

static void choose_stage1(void)
{
#if X86_VARIANTS
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
        best_stage1 = stage1_avx512;
        best_name = "avx512bw";
    } else if (__builtin_cpu_supports("avx2")) {
        best_stage1 = stage1_avx2;
        best_name = "avx2";
    }
#endif
}

/* Stage 2: the 64-bit hash of the WINDOW bytes before `end`. */
static uint64_t stage2(const Key *key, const uint8_t *end)
{
    uint64_t h = key->s;
    int k;
    for (k = WINDOW; k > 0; k -= 8) {
        h = (h ^ load64(end - k)) * key->m1;
        h ^= h >> 32;
    }
    return h * key->m2;
}

/* The end of the chunk that starts at `chunk`, with `left` bytes there of which nothing behind is read.
 * 0: no cut by rule 2 below `left`, and fewer than `maximum` bytes are there. */
static size_t find_end(const Key *key, const Limits *limits, const uint8_t *chunk, size_t left)
{
    ALIGNED uint16_t lane[LANES + 32];
    uint8_t hit[GROUPS];
    uint8_t copy[REACH];
    const size_t limit = left < limits->maximum ? left : limits->maximum;
    size_t base;

    memset(lane + LANES, 0, 32 * sizeof lane[0]);
    for (base = limits->minimum; base < limit; base += BLOCK) {
        const uint8_t *window = chunk + base - WINDOW;
        const size_t there = left - (base - WINDOW);
        size_t g;
        if (UNLIKELY(there < REACH)) {
            memcpy(copy, window, there);
            memset(copy + there, 0, REACH - there);
            window = copy;
        }
        if (there >= AHEAD + BLOCK + WINDOW) {
            for (g = 0; g < BLOCK; g += 64) PREFETCH(window + AHEAD + g);
        }
        best_stage1(key, window, lane, hit);
        for (g = 0; g < GROUPS; g++) {
            size_t j;
            if (!hit[g]) continue;
            for (j = g * GROUP; j < (g + 1) * GROUP; j++) {
                const size_t end = base + j;
                if (lane[j] >= PASSING) continue;
                if (end >= limit) goto none;
                if (!(stage2(key, chunk + end) & (end <= limits->average ? limits->strict : limits->loose)))
                    return end;
            }
        }
    }
none:
    return left < limits->maximum ? 0 : limits->maximum;
}

/* Up to ENDS_PER_ROUND ends of chunks from *position on; moves *position. Fewer: there are no more. */
static size_t cut_round(const Key *key, const Limits *limits, const uint8_t *stream, size_t length, int final,
                        size_t *position, size_t *ends)
{
    size_t count = 0;
    while (count < ENDS_PER_ROUND && *position < length) {
        const size_t left = length - *position;
        size_t size = left > limits->minimum ? find_end(key, limits, stream + *position, left) : 0;
        if (size == 0) {
            if (!final) break;
            size = left;
        }
        *position += size;
        ends[count++] = *position;
    }
    return count;
}

static uint64_t top_bits(int count)
{
    return count < 1 ? 0 : ~(uint64_t)0 << (64 - count);
}

static int append_ends(PyObject *list, const size_t *ends, size_t count)
{
    size_t i;
    for (i = 0; i < count; i++) {
        PyObject *end = PyLong_FromSize_t(ends[i]);
        int failed = end == NULL || PyList_Append(list, end) < 0;
        Py_XDECREF(end);
        if (failed) return -1;
    }
    return 0;
}

PyDoc_STRVAR(cut_doc, "cut(parameters, minimum, average, maximum, buffer, start, length, final, /)\n--\n\n"
                      "Ends of chunks in buffer[start:start + length], counted from start.");

static PyObject *wide64_cut(PyObject *module, PyObject *args)
{
    Py_buffer parameters, buffer;
    Py_ssize_t minimum, average, maximum, start, length;
    int final;
    PyObject *list = NULL;
    (void)module;

    if (!PyArg_ParseTuple(args, "y*nnny*nnp:cut", &parameters, &minimum, &average, &maximum, &buffer, &start,
                          &length, &final))
        return NULL;
    if (parameters.len != PARAMETER_BYTES) {
        PyErr_SetString(PyExc_ValueError, "the parameters of wide-64 have 40 bytes");
    } else if (average < 256 || (average & (average - 1)) != 0 || minimum < WINDOW || minimum > average ||
               maximum < average) {
        PyErr_SetString(PyExc_ValueError, "need 64 <= minimum <= average <= maximum, average a power of two");
    } else if (start < 0 || length < 0 || start > buffer.len || length > buffer.len - start) {
        PyErr_SetString(PyExc_ValueError, "start and length leave the buffer");
    } else {
        list = PyList_New(0);
    }
    if (list != NULL) {
        Key key;
        Limits limits;
        size_t ends[ENDS_PER_ROUND];
        size_t position = 0, count;
        int bits = 0;

        while ((average >> bits) > 1) bits++;
        read_key(&key, parameters.buf);
        limits.minimum = (size_t)minimum;
        limits.average = (size_t)average;
        limits.maximum = (size_t)maximum;
        limits.strict = top_bits(bits - STAGE1_BITS + 1);
        limits.loose = top_bits(bits - STAGE1_BITS - 1);
        do {
            Py_BEGIN_ALLOW_THREADS
            count = cut_round(&key, &limits, (const uint8_t *)buffer.buf + start, (size_t)length, final, &position,
                              ends);
            Py_END_ALLOW_THREADS
            if (append_ends(list, ends, count) < 0) {
                Py_CLEAR(list);
                break;
            }
        } while (count == ENDS_PER_ROUND);
    }
    PyBuffer_Release(&parameters);
    PyBuffer_Release(&buffer);
    return list;
}

PyDoc_STRVAR(isa_doc, "isa()\n--\n\nThe instruction set that stage 1 uses: plain, avx2 or avx512bw.");

static PyObject *wide64_isa(PyObject *module, PyObject *ignored)
{
    (void)module;
    (void)ignored;
    return PyUnicode_FromString(best_name);
}

PyDoc_STRVAR(use_doc, "use(isa, /)\n--\n\nTake another variant of stage 1, for tests. False: not on this machine.");

static PyObject *wide64_use(PyObject *module, PyObject *args)
{
    const char *name;
    (void)module;
    if (!PyArg_ParseTuple(args, "s:use", &name)) return NULL;
    choose_stage1();
    if (strcmp(name, best_name) == 0) Py_RETURN_TRUE;
    if (strcmp(name, "plain") == 0) {
        best_stage1 = stage1_plain;
        best_name = "plain";
        Py_RETURN_TRUE;
    }
#if X86_VARIANTS
    if (strcmp(name, "avx2") == 0 && __builtin_cpu_supports("avx2")) {
        best_stage1 = stage1_avx2;
        best_name = "avx2";
        Py_RETURN_TRUE;
    }
#endif
    Py_RETURN_FALSE;
}

static PyMethodDef methods[] = {
    {"cut", wide64_cut, METH_VARARGS, cut_doc},
    {"isa", wide64_isa, METH_NOARGS, isa_doc},
    {"use", wide64_use, METH_VARARGS, use_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_wide64", "The chunker wide-64 of docs/format/chunker.md in C.", 0, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__wide64(void)
{
    choose_stage1();
    return PyModuleDef_Init(&definition);
}

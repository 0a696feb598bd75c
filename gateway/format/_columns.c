/* Reads the directory of a pack into columns: gateway/format/directory.py says which.
 *
 * Plain C99. What is not as the gateway writes it (further fields, anything that the format forbids) is not judged here:
 * `columns` returns None, and the twin looks at the same bytes. So this accepts less than the twin, and nothing that the
 * twin would not.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <stdlib.h>

#include "_msgpack.h"

enum {
    FIELDS = 6,
    SEGMENT_FIELDS = 5,
    WRITER_BYTES = 16,
    DIGEST_BYTES = 32,
    TAG_BYTES = 16,
    ID_BYTES = 16,
    LENGTH_BYTES = 3,
    DELTA = 2,
    /* gateway/format/container.py */
    HEADER_BYTES = 148,
    OVERHEAD = 24,
    /* gateway/format/limits.py */
    CHUNK_BYTES = 1 << 20,
    SEGMENT_BYTES = 2 << 20,
    FRAME_BYTES = 4 << 20,
    BASE_RUNS = 64
};

/* Of each segment; `bases_to`: how many base runs there are up to and with it. */
enum Column { OFFSETS, SIZES, FIRSTS, BASES_TO, COLUMNS };

typedef struct {
    int64_t *columns[COLUMNS];
    int64_t *bases; /* pack, first, count */
    size_t base_runs;
    size_t base_room;
    uint64_t segments;
    uint64_t chunks;
    uint64_t raw;
} Found;

enum Outcome { TAKEN, UNUSUAL, NO_MEMORY };

/* --- the shortest spelling, as the format wants it in a directory ------------------------------------------------- */

static int exact_unsigned(Cursor *c, uint64_t end, uint64_t *out)
{
    const uint8_t *const start = c->at;
    if (!read_below(c, end, out)) return 0;
    return c->at - start == (*out < 0x80 ? 1 : *out < 0x100 ? 2 : *out < 0x10000 ? 3 : *out < U32_END ? 5 : 9);
}

static int exact_bytes(Cursor *c, Bytes *out)
{
    const uint8_t *const start = c->at;
    if (!read_bytes(c, out)) return 0;
    return out->data - start == (out->size < 0x100 ? 2 : out->size < 0x10000 ? 3 : 5);
}

static int exact_array(Cursor *c, uint64_t *out)
{
    const uint8_t *const start = c->at;
    if (!read_array(c, out)) return 0;
    return c->at - start == (*out < 0x10 ? 1 : *out < 0x10000 ? 3 : 5);
}

static int exact_bytes_of(Cursor *c, size_t size)
{
    Bytes found;
    return exact_bytes(c, &found) && found.size == size;
}

/* --- segments ----------------------------------------------------------------------------------------------------- */

static enum Outcome add_bases(Cursor *c, uint64_t numbers, uint64_t pack, uint64_t before, Found *found)
{
    uint64_t i, base, first, count;
    if (found->base_room - found->base_runs < numbers / 3) {
        size_t room = found->base_room * 2 + BASE_RUNS;
        int64_t *grown = realloc(found->bases, room * 3 * sizeof *grown);
        if (grown == NULL) return NO_MEMORY;
        found->bases = grown;
        found->base_room = room;
    }
    for (i = 0; i < numbers; i += 3) {
        int64_t *const row = found->bases + 3 * found->base_runs;
        if (!exact_unsigned(c, U32_END, &base) || base == 0 || !exact_unsigned(c, U32_END, &first) ||
            !exact_unsigned(c, U32_END, &count) || count == 0 || count > U32_END - first) {
            return UNUSUAL;
        }
        if (base > pack || (base == pack && first + count > before)) return UNUSUAL;
        row[0] = (int64_t)base;
        row[1] = (int64_t)first;
        row[2] = (int64_t)count;
        found->base_runs++;
    }
    return TAKEN;
}

static enum Outcome read_segments(Cursor *c, uint64_t pack, uint64_t *end, Found *found)
{
    uint64_t i, count, fields, encoding, size, chunks, numbers, offset = HEADER_BYTES, first = 0;
    int each;
    /* A segment has more bytes than its columns have numbers: what is asked for is bounded by what is there. */
    if (!exact_array(c, &count) || count > left_of(c) / (SEGMENT_FIELDS + TAG_BYTES)) return UNUSUAL;
    for (each = 0; each < COLUMNS; each++) {
        found->columns[each] = malloc((size_t)(count ? count : 1) * sizeof(int64_t));
        if (found->columns[each] == NULL) return NO_MEMORY;
    }
    for (i = 0; i < count; i++) {
        enum Outcome outcome;
        if (!exact_array(c, &fields) || fields != SEGMENT_FIELDS || !exact_unsigned(c, DELTA + 1, &encoding) ||
            !exact_unsigned(c, FRAME_BYTES + 1, &size) || size <= OVERHEAD || !exact_unsigned(c, U32_END, &chunks) ||
            chunks == 0 || !exact_bytes_of(c, TAG_BYTES) || !exact_array(c, &numbers) || numbers % 3 ||
            numbers > 3 * BASE_RUNS || (encoding == DELTA) != (numbers != 0)) {
            return UNUSUAL;
        }
        outcome = add_bases(c, numbers, pack, first, found);
        if (outcome != TAKEN) return outcome;
        found->columns[OFFSETS][i] = (int64_t)offset;
        found->columns[SIZES][i] = (int64_t)size;
        found->columns[FIRSTS][i] = (int64_t)first;
        found->columns[BASES_TO][i] = (int64_t)found->base_runs;
        offset += size;
        first += chunks;
    }
    found->segments = count;
    found->chunks = first;
    *end = offset;
    return TAKEN;
}

/* The lengths of all chunks: each within bounds, and those of a segment together. */
static int sum_lengths(const uint8_t *at, Found *found)
{
    uint64_t i, chunk = 0;
    for (i = 0; i < found->segments; i++) {
        const uint64_t last =
            i + 1 < found->segments ? (uint64_t)found->columns[FIRSTS][i + 1] : found->chunks;
        uint64_t raw = 0;
        for (; chunk < last; chunk++, at += LENGTH_BYTES) {
            const uint64_t length = (uint64_t)at[0] | (uint64_t)at[1] << 8 | (uint64_t)at[2] << 16;
            if (length == 0 || length > CHUNK_BYTES) return 0;
            raw += length;
        }
        if (raw > SEGMENT_BYTES) return 0;
        found->raw += raw;
    }
    return 1;
}

static enum Outcome read_directory(Cursor *c, uint64_t pack, uint64_t end, Found *found)
{
    uint64_t fields, sequence, at;
    Bytes ids, lengths;
    enum Outcome outcome;
    if (!exact_array(c, &fields) || fields != FIELDS || !exact_bytes_of(c, WRITER_BYTES) ||
        !exact_unsigned(c, U32_END, &sequence) || !exact_bytes_of(c, DIGEST_BYTES)) {
        return UNUSUAL;
    }
    outcome = read_segments(c, pack, &at, found);
    if (outcome != TAKEN) return outcome;
    if (at != end || !exact_bytes(c, &ids) || !exact_bytes(c, &lengths) || c->at != c->end) return UNUSUAL;
    if (ids.size % ID_BYTES || ids.size / ID_BYTES != found->chunks) return UNUSUAL;
    if (lengths.size % LENGTH_BYTES || lengths.size / LENGTH_BYTES != found->chunks) return UNUSUAL;
    return sum_lengths(lengths.data, found) ? TAKEN : UNUSUAL;
}

static PyObject *columns(PyObject *self, PyObject *args)
{
    Py_buffer plain;
    unsigned long long pack, end;
    enum Outcome outcome;
    Cursor cursor;
    Found f = {{NULL}, NULL, 0, 0, 0, 0, 0};
    PyObject *found = NULL;
    int each;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*KK:columns", &plain, &pack, &end)) return NULL;
    cursor.at = plain.buf;
    cursor.end = cursor.at + plain.len;
    /* Some ten microseconds for a usual pack, half a millisecond for a full one: other threads can wait for it. */
    outcome = read_directory(&cursor, pack, end, &f);
    if (outcome == NO_MEMORY) {
        PyErr_NoMemory();
    } else if (outcome == UNUSUAL) {
        found = Py_NewRef(Py_None);
    } else {
        const Py_ssize_t size = (Py_ssize_t)(f.segments * sizeof(int64_t));
        found = Py_BuildValue(
            "(y#y#y#y#y#KK)", (const char *)f.columns[OFFSETS], size, (const char *)f.columns[SIZES], size,
            (const char *)f.columns[FIRSTS], size, f.bases == NULL ? "" : (const char *)f.bases,
            (Py_ssize_t)(f.base_runs * 3 * sizeof(int64_t)), (const char *)f.columns[BASES_TO], size,
            (unsigned long long)f.chunks, (unsigned long long)f.raw);
    }
    for (each = 0; each < COLUMNS; each++) free(f.columns[each]);
    free(f.bases);
    PyBuffer_Release(&plain);
    return found;
}

static PyMethodDef methods[] = {
    {"columns", columns, METH_VARARGS,
     "Offsets, sizes, firsts, bases, bases_to as int64, chunks, raw of a plain directory; None: the twin must look."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_columns", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__columns(void)
{
    return PyModule_Create(&module);
}

/* Reads the records of a part of a file list into rows: gateway/format/list_rows.py says which.
 *
 * Plain C99. What is not as the gateway writes it (another number of fields, a name that is not ASCII, anything that the
 * format forbids) is not judged here: `scan` returns None, and the twin looks at the same bytes. So this accepts less
 * than the twin, and nothing that the twin would not.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "_msgpack.h"

enum {
    ENTRY = 1,
    HOLES = 2,
    RUNS = 3,
    LEFT_OUT = 4,
    ENTRY_FIELDS = 20,
    LEFT_OUT_FIELDS = 4,
    NUMBERS_FIELDS = 2,
    KIND_FILE = 1,
    KIND_SYMLINK = 3,
    KIND_CHARACTER = 6,
    KIND_BLOCK = 7,
    DIGEST_BYTES = 32,
    /* gateway/format/limits.py */
    RECORD_BYTES = 1 << 20,
    PATH_BYTES = 65535,
    HOLES_PER_RECORD = 4096,
    RUNS_PER_RECORD = 4096
};

/* One row: places in the part, and what a plan needs to know. `runs`: how many there are up to and with this row. */
typedef struct {
    uint64_t path;
    uint64_t link;
    uint64_t size;
    uint64_t runs;
    uint32_t path_bytes;
    uint32_t link_bytes;
    uint64_t kind;
} Row;

typedef struct {
    uint8_t *data;
    size_t used;
    size_t room;
} Growing;

typedef struct {
    const uint8_t *part;
    Growing rows;
    Growing runs;
    uint64_t run_count;
    Bytes before;
    int left;
    size_t consumed;
} Scan;

typedef struct {
    Bytes path;
    Bytes link;
    uint64_t kind, size, data_bytes;
    uint64_t hole_records, run_records;
} Entry;

enum Outcome { TAKEN, UNUSUAL, NO_MEMORY };

static void *grow(Growing *to, size_t more)
{
    if (to->room - to->used < more) {
        size_t room = to->room < 4096 ? 4096 : to->room * 2;
        uint8_t *data;
        while (room - to->used < more) room *= 2;
        data = realloc(to->data, room);
        if (data == NULL) return NULL;
        to->data = data;
        to->room = room;
    }
    to->used += more;
    return to->data + to->used - more;
}

/* --- values of which nothing is wanted ----------------------------------------------------------------------------- */

static int skip_signed(Cursor *c)
{
    uint64_t value;
    uint8_t head;
    if (c->at == c->end) return 0;
    head = *c->at;
    if (head >= 0xE0) {
        c->at++;
        return 1;
    }
    if (head >= 0xD0 && head <= 0xD3) {
        c->at++;
        return read_big(c, (size_t)1 << (head - 0xD0), &value);
    }
    return read_unsigned(c, &value) && value <= INT64_MAX;
}

static int skip_ascii(Cursor *c)
{
    uint64_t size;
    uint8_t head;
    Bytes text;
    size_t i;
    if (c->at == c->end) return 0;
    head = *c->at++;
    if ((head & 0xE0) == 0xA0) {
        size = head & 0x1F;
    } else if (head < 0xD9 || head > 0xDB || !read_big(c, (size_t)1 << (head - 0xD9), &size)) {
        return 0;
    }
    if (!take(c, size, &text)) return 0;
    for (i = 0; i < text.size; i++) {
        if (text.data[i] >= 0x80) return 0;
    }
    return 1;
}

/* --- what the format says of paths and entries ------------------------------------------------------------------- */

static uint8_t key_byte(uint8_t byte)
{
    return byte == '/' ? 0 : byte;
}

/* As their path keys compare: a directory is followed by all that is in it. */
static int compare_paths(const Bytes *a, const Bytes *b)
{
    const size_t common = a->size < b->size ? a->size : b->size;
    size_t i;
    for (i = 0; i < common; i++) {
        const uint8_t one = key_byte(a->data[i]), other = key_byte(b->data[i]);
        if (one != other) return one < other ? -1 : 1;
    }
    return a->size == b->size ? 0 : a->size < b->size ? -1 : 1;
}

static int is_path(const Bytes *path)
{
    const uint8_t *at = path->data, *const end = at + path->size;
    if (path->size > PATH_BYTES) return 0;
    for (;;) {
        const uint8_t *start = at;
        while (at < end && *at != '/') {
            if (*at++ == 0) return 0;
        }
        if (at == start) return 0;
        if (*start == '.' && (at - start == 1 || (at - start == 2 && start[1] == '.'))) return 0;
        if (at == end) return 1;
        at++;
    }
}

static int skip_xattrs(Cursor *c)
{
    uint64_t count, two, i;
    Bytes before = {NULL, 0}, name, value;
    if (!read_array(c, &count)) return 0;
    for (i = 0; i < count; i++) {
        if (!read_array(c, &two) || two != 2 || !read_bytes(c, &name) || !read_bytes(c, &value)) return 0;
        if (i) {
            const size_t common = before.size < name.size ? before.size : name.size;
            const int order = common ? memcmp(before.data, name.data, common) : 0;
            if (order > 0 || (order == 0 && before.size >= name.size)) return 0;
        }
        before = name;
    }
    return 1;
}

/* The fields behind the tag, and what only some types may have. */
static int read_entry(Cursor *c, Entry *e)
{
    uint64_t number, rdev, evidence;
    Bytes target, digest;
    int own;
    if (!read_bytes(c, &e->path) || !read_below(c, 8, &e->kind) || e->kind == 0 || !read_unsigned(c, &e->size) ||
        !skip_signed(c) || !read_below(c, 010000, &number) || !read_below(c, U32_END, &number) ||
        !read_below(c, U32_END, &number) || !skip_ascii(c) || !skip_ascii(c) || !skip_xattrs(c) ||
        !read_bytes(c, &target) || !read_bytes(c, &e->link) || !read_unsigned(c, &rdev) || !read_bytes(c, &digest) ||
        !read_unsigned(c, &e->data_bytes) || !read_below(c, U32_END, &number) || !read_below(c, 256, &evidence) ||
        !read_below(c, U32_END, &e->hole_records) || !read_below(c, U32_END, &e->run_records) || c->at != c->end) {
        return 0;
    }
    if (!is_path(&e->path) || (e->link.size && !is_path(&e->link))) return 0;
    own = e->kind == KIND_FILE && e->link.size == 0;
    if (!own && (e->hole_records || e->run_records || e->data_bytes)) return 0;
    if (e->kind != KIND_FILE && (e->size || evidence || e->link.size)) return 0;
    if (digest.size != (own ? DIGEST_BYTES : 0)) return 0;
    if (target.size && e->kind != KIND_SYMLINK) return 0;
    return !rdev || e->kind == KIND_CHARACTER || e->kind == KIND_BLOCK;
}

/* --- records ------------------------------------------------------------------------------------------------------ */

/* The next record: its tag, how many fields, and a cursor behind the tag. 0: not a usual one. */
static int next_record(Cursor *part, Cursor *body, unsigned *tag, uint64_t *fields)
{
    uint64_t size;
    if (!read_big(part, 4, &size) || size == 0 || size > RECORD_BYTES || left_of(part) < size) return 0;
    body->at = part->at;
    body->end = part->at + size;
    part->at += size;
    if (!read_array(body, fields) || *fields == 0 || body->at == body->end) return 0;
    *tag = *body->at++;
    return *tag >= ENTRY && *tag <= LEFT_OUT;
}

static enum Outcome add_holes(Cursor *body, const Entry *e, uint64_t *at, uint64_t *total)
{
    uint64_t count, i, offset, length;
    if (!read_array(body, &count) || count % 2 || count > 2 * HOLES_PER_RECORD) return UNUSUAL;
    for (i = 0; i < count; i += 2) {
        if (!read_unsigned(body, &offset) || !read_unsigned(body, &length)) return UNUSUAL;
        if (offset < *at || length < 1 || offset > e->size || length > e->size - offset) return UNUSUAL;
        *at = offset + length;
        *total += length;
    }
    return body->at == body->end ? TAKEN : UNUSUAL;
}

static enum Outcome add_runs(Cursor *body, Scan *s)
{
    uint64_t count, i;
    if (!read_array(body, &count) || count % 3 || count > 3 * RUNS_PER_RECORD) return UNUSUAL;
    for (i = 0; i < count; i += 3) {
        uint64_t run[3], *room;
        if (!read_below(body, U32_END, run) || run[0] == 0 || !read_below(body, U32_END, run + 1) ||
            !read_unsigned(body, run + 2) || run[2] == 0 || run[2] > U32_END - run[1]) {
            return UNUSUAL;
        }
        room = grow(&s->runs, sizeof run);
        if (room == NULL) return NO_MEMORY;
        memcpy(room, run, sizeof run);
        s->run_count++;
    }
    return body->at == body->end ? TAKEN : UNUSUAL;
}

static enum Outcome scan_part(Scan *s, size_t size)
{
    Cursor part = {s->part, s->part + size};
    while (part.at != part.end) {
        const uint8_t *const start = part.at;
        Cursor body;
        unsigned tag;
        uint64_t fields, at = 0, total = 0, i;
        const size_t runs_used = s->runs.used;
        const uint64_t runs_before = s->run_count;
        Entry entry;
        Row *row;
        int order;
        if (!next_record(&part, &body, &tag, &fields)) return UNUSUAL;
        if (tag == LEFT_OUT) {
            Bytes path;
            if (fields != LEFT_OUT_FIELDS || !read_bytes(&body, &path) || !skip_ascii(&body) || !skip_ascii(&body) ||
                body.at != body.end || !is_path(&path)) {
                return UNUSUAL;
            }
            order = compare_paths(&path, &s->before);
            if (order < 0 || (order == 0 && s->left)) return UNUSUAL;
            s->before = path;
            s->left = 1;
            s->consumed = (size_t)(part.at - s->part);
            continue;
        }
        if (tag != ENTRY || fields != ENTRY_FIELDS || !read_entry(&body, &entry)) return UNUSUAL;
        if (compare_paths(&entry.path, &s->before) <= 0) return UNUSUAL;
        for (i = 0; i < entry.hole_records + entry.run_records; i++) {
            enum Outcome outcome;
            if (part.at == part.end) { /* the rest of it is in the next part */
                s->runs.used = runs_used;
                s->run_count = runs_before;
                s->consumed = (size_t)(start - s->part);
                return TAKEN;
            }
            if (!next_record(&part, &body, &tag, &fields) || fields != NUMBERS_FIELDS) return UNUSUAL;
            if (tag != (i < entry.hole_records ? HOLES : RUNS)) return UNUSUAL;
            outcome = tag == HOLES ? add_holes(&body, &entry, &at, &total) : add_runs(&body, s);
            if (outcome != TAKEN) return outcome;
        }
        if (entry.kind == KIND_FILE && entry.link.size == 0 && entry.data_bytes != entry.size - total) return UNUSUAL;
        row = grow(&s->rows, sizeof *row);
        if (row == NULL) return NO_MEMORY;
        row->path = (uint64_t)(entry.path.data - s->part);
        row->path_bytes = (uint32_t)entry.path.size;
        row->link = entry.link.size ? (uint64_t)(entry.link.data - s->part) : 0;
        row->link_bytes = (uint32_t)entry.link.size;
        row->size = entry.size;
        row->kind = entry.kind;
        row->runs = s->run_count;
        s->before = entry.path;
        s->left = 0;
        s->consumed = (size_t)(part.at - s->part);
    }
    return TAKEN;
}

static const char *or_empty(const Growing *from)
{
    return from->data == NULL ? "" : (const char *)from->data;
}

static PyObject *scan(PyObject *self, PyObject *args)
{
    Py_buffer part, before;
    int left;
    enum Outcome outcome;
    Scan s;
    PyObject *found = NULL;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*p:scan", &part, &before, &left)) return NULL;
    memset(&s, 0, sizeof s);
    s.part = part.buf;
    s.before.data = before.buf;
    s.before.size = (size_t)before.len;
    s.left = left;
    Py_BEGIN_ALLOW_THREADS
    outcome = scan_part(&s, (size_t)part.len);
    Py_END_ALLOW_THREADS
    if (outcome == NO_MEMORY) {
        PyErr_NoMemory();
    } else if (outcome == UNUSUAL) {
        found = Py_NewRef(Py_None);
    } else {
        found = Py_BuildValue(
            "(y#y#ny#O)", or_empty(&s.rows), (Py_ssize_t)s.rows.used, or_empty(&s.runs), (Py_ssize_t)s.runs.used,
            (Py_ssize_t)s.consumed, (const char *)s.before.data, (Py_ssize_t)s.before.size,
            s.left ? Py_True : Py_False);
    }
    free(s.rows.data);
    free(s.runs.data);
    PyBuffer_Release(&part);
    PyBuffer_Release(&before);
    return found;
}

static PyMethodDef methods[] = {
    {"scan", scan, METH_VARARGS,
     "Rows, runs, how many bytes were read, the last path and whether it was left out; None: the twin must look."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_list_rows", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__list_rows(void)
{
    return PyModule_Create(&module);
}

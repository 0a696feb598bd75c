/* The table from chunk id to place (pack, index) as a CPython type: gateway/repository/id_table.py says what it does.
 *
 * Plain C99. Open addressing with linear probing over 24-byte slots. An id is a keyed BLAKE3 hash, so it is uniform,
 * nobody without the key can aim at a slot, and its first bytes are its hash.
 *
 * The top bits of the hash choose one of PARTS tables that grow each for itself: one table of 10^7 ids would stop
 * every thread for two seconds to grow and need half as much memory again meanwhile. The next bits choose the slot;
 * since they are the upper ones, a part of twice the size has its ids in the same order, and growing goes through
 * both blocks from front to back instead of at random.
 *
 * Every method runs under the GIL and calls nothing that could let it go between two looks at the slots.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) ((void)0)
#endif

enum {
    ID_BYTES = 16,
    PLACE_BYTES = 8,
    RECORD_BYTES = ID_BYTES + PLACE_BYTES,
    PART_BITS = 8,
    PARTS = 1 << PART_BITS,
    LEAST_BITS = 5,
    /* How many ids ahead of the one in work a slot is asked for: the table is far larger than any cache. */
    AHEAD = 8
};

/* Empty is zero, so that a fresh block comes from calloc and takes no memory before it is written to. */
typedef struct {
    uint8_t id[ID_BYTES];
    uint32_t pack; /* 0: the slot is empty, and all zeros */
    uint32_t index;
} Slot;

typedef struct {
    Slot *slots;
    unsigned bits; /* log2 of the number of slots */
    size_t live;   /* slots that are not empty */
} Part;

typedef struct {
    PyObject_HEAD
    Part parts[PARTS];
} IdTable;

static uint64_t load64(const uint8_t *p)
{
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 |
           (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 | (uint64_t)p[7] << 56;
}

static void store32(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)(value & 0xFF);
    p[1] = (uint8_t)(value >> 8 & 0xFF);
    p[2] = (uint8_t)(value >> 16 & 0xFF);
    p[3] = (uint8_t)(value >> 24);
}

static size_t slot_count(unsigned bits)
{
    return (size_t)1 << bits;
}

static size_t part_number(const uint8_t *id)
{
    return (size_t)(load64(id) >> (64 - PART_BITS));
}

static size_t first_slot(const uint8_t *id, unsigned bits)
{
    return (size_t)(load64(id) << PART_BITS >> (64 - bits));
}

/* LIMIT: six slots of ten are live; a look-up of an unknown id then sees 3.6 of them on average. */
static size_t most_live(unsigned bits)
{
    return slot_count(bits) / 10 * 6;
}

/* INVARIANT: an id stands in at most one slot, and no empty slot lies between its first slot and that one.
 *
 * The slot of `id`, or the empty one where it may be put; there always are some. An empty slot has pack 0 and
 * index 0, which is the place of an unknown id. */
static Slot *find(const Part *part, const uint8_t *id)
{
    const size_t mask = slot_count(part->bits) - 1;
    size_t at = first_slot(id, part->bits);
    for (;; at = (at + 1) & mask) {
        Slot *slot = part->slots + at;
        if (slot->pack == 0 || memcmp(slot->id, id, ID_BYTES) == 0) return slot;
    }
}

/* The least number of bits that takes `ids` ids; 0: no machine has as much memory. */
static unsigned bits_for(size_t ids)
{
    unsigned bits = LEAST_BITS;
    while (most_live(bits) < ids) {
        if (++bits > 40 || slot_count(bits) > PTRDIFF_MAX / sizeof(Slot)) return 0;
    }
    return bits;
}

/* Makes room for `more` new ids. -1 and MemoryError: the part is as it was. */
static int reserve_part(Part *part, size_t more)
{
    Slot *old = part->slots, *slots;
    const size_t old_count = slot_count(part->bits);
    size_t mask, i;
    unsigned bits;

    if (part->live + more <= most_live(part->bits)) return 0;
    bits = bits_for(part->live + more);
    if (bits == 0 || (slots = calloc(slot_count(bits), sizeof(Slot))) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    mask = slot_count(bits) - 1;
    for (i = 0; i < old_count; i++) {
        size_t at;
        if (old[i].pack == 0) continue;
        at = first_slot(old[i].id, bits);
        while (slots[at].pack != 0) at = (at + 1) & mask;
        slots[at] = old[i];
    }
    free(old);
    part->slots = slots;
    part->bits = bits;
    return 0;
}

static int reserve(IdTable *table, const uint8_t *ids, Py_ssize_t count)
{
    size_t more[PARTS] = {0}, number;
    Py_ssize_t i;
    for (i = 0; i < count; i++) more[part_number(ids + i * ID_BYTES)]++;
    for (number = 0; number < PARTS; number++) {
        if (more[number] != 0 && reserve_part(table->parts + number, more[number]) < 0) return -1;
    }
    return 0;
}

static void prefetch(const IdTable *table, const uint8_t *ids, Py_ssize_t i, Py_ssize_t count)
{
    if (i < count) {
        const uint8_t *id = ids + i * ID_BYTES;
        const Part *part = table->parts + part_number(id);
        PREFETCH(part->slots + first_slot(id, part->bits));
    }
}

static void prefetch_first(const IdTable *table, const uint8_t *ids, Py_ssize_t count)
{
    Py_ssize_t i;
    for (i = 0; i < AHEAD; i++) prefetch(table, ids, i, count);
}

static Py_ssize_t count_ids(const Py_buffer *ids)
{
    if (ids->len % ID_BYTES != 0) {
        PyErr_Format(PyExc_ValueError, "%zd bytes are no whole number of ids of 16 bytes", ids->len);
        return -1;
    }
    return ids->len / ID_BYTES;
}

static PyObject *new_table(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"capacity_hint", NULL};
    Py_ssize_t hint = 0;
    IdTable *table;
    size_t each, number;
    unsigned bits;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|n:IdTable", names, &hint)) return NULL;
    if (hint < 0) {
        PyErr_SetString(PyExc_ValueError, "capacity_hint is negative");
        return NULL;
    }
    /* Parts differ by the root of what is in them. */
    each = (size_t)hint / PARTS;
    bits = bits_for(each + each / 16 + 16);
    if (bits == 0) return PyErr_NoMemory();
    table = (IdTable *)PyType_GenericAlloc(type, 0);
    if (table == NULL) return NULL;
    for (number = 0; number < PARTS; number++) {
        table->parts[number].bits = bits;
        table->parts[number].slots = calloc(slot_count(bits), sizeof(Slot));
        if (table->parts[number].slots == NULL) {
            Py_DECREF(table);
            return PyErr_NoMemory();
        }
    }
    return (PyObject *)table;
}

static void free_table(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    size_t number;
    for (number = 0; number < PARTS; number++) free(((IdTable *)self)->parts[number].slots);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *table_lookup(PyObject *self, PyObject *args)
{
    const IdTable *table = (IdTable *)self;
    Py_buffer ids;
    Py_ssize_t count, i;
    PyObject *places = NULL;

    if (!PyArg_ParseTuple(args, "y*:lookup", &ids)) return NULL;
    count = count_ids(&ids);
    if (count >= 0) places = PyBytes_FromStringAndSize(NULL, count * PLACE_BYTES);
    if (places != NULL) {
        uint8_t *place = (uint8_t *)PyBytes_AsString(places);
        const uint8_t *id = ids.buf;
        prefetch_first(table, ids.buf, count);
        for (i = 0; i < count; i++, id += ID_BYTES, place += PLACE_BYTES) {
            const Slot *slot;
            prefetch(table, ids.buf, i + AHEAD, count);
            slot = find(table->parts + part_number(id), id);
            store32(place, slot->pack);
            store32(place + 4, slot->index);
        }
    }
    PyBuffer_Release(&ids);
    return places;
}

static PyObject *table_add(PyObject *self, PyObject *args)
{
    IdTable *table = (IdTable *)self;
    Py_buffer ids;
    long long pack, index;
    Py_ssize_t count, i;
    int failed = 1;

    if (!PyArg_ParseTuple(args, "y*LL:add", &ids, &pack, &index)) return NULL;
    count = count_ids(&ids);
    if (count < 0) {
        /* said already */
    } else if (pack < 1 || pack > (long long)UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "pack is not in 1..2^32-1");
    } else if (index < 0 || index > (long long)UINT32_MAX + 1 - count) {
        PyErr_SetString(PyExc_ValueError, "an index is not in 0..2^32-1");
    } else if (reserve(table, ids.buf, count) == 0) {
        const uint8_t *id = ids.buf;
        prefetch_first(table, ids.buf, count);
        for (i = 0; i < count; i++, id += ID_BYTES) {
            Part *part = table->parts + part_number(id);
            Slot *slot;
            prefetch(table, ids.buf, i + AHEAD, count);
            slot = find(part, id);
            if (slot->pack == 0) {
                memcpy(slot->id, id, ID_BYTES);
                part->live++;
            }
            slot->pack = (uint32_t)pack;
            slot->index = (uint32_t)(index + i);
        }
        failed = 0;
    }
    PyBuffer_Release(&ids);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

static PyObject *table_get(PyObject *self, PyObject *args)
{
    Py_buffer id;
    const Slot *slot;
    PyObject *place = NULL;

    if (!PyArg_ParseTuple(args, "y*:get", &id)) return NULL;
    if (id.len != ID_BYTES) {
        PyErr_SetString(PyExc_ValueError, "an id has 16 bytes");
    } else {
        slot = find(((IdTable *)self)->parts + part_number(id.buf), id.buf);
        if (slot->pack == 0) {
            place = Py_None;
            Py_INCREF(place);
        } else {
            place = Py_BuildValue("kk", (unsigned long)slot->pack, (unsigned long)slot->index);
        }
    }
    PyBuffer_Release(&id);
    return place;
}

static Py_ssize_t table_len(PyObject *self)
{
    size_t number, live = 0;
    for (number = 0; number < PARTS; number++) live += ((IdTable *)self)->parts[number].live;
    return (Py_ssize_t)live;
}

static PyObject *table_records(PyObject *self, PyObject *ignored)
{
    const Part *parts = ((IdTable *)self)->parts;
    /* No overflow: the slots take at least as much memory. */
    PyObject *records = PyBytes_FromStringAndSize(NULL, table_len(self) * RECORD_BYTES);
    uint8_t *record;
    size_t number;
    (void)ignored;

    if (records == NULL) return NULL;
    record = (uint8_t *)PyBytes_AsString(records);
    for (number = 0; number < PARTS; number++) {
        const Slot *slot = parts[number].slots, *end = slot + slot_count(parts[number].bits);
        for (; slot < end; slot++) {
            if (slot->pack == 0) continue;
            /* Field by field: a slot has the byte order of the machine. */
            memcpy(record, slot->id, ID_BYTES);
            store32(record + ID_BYTES, slot->pack);
            store32(record + ID_BYTES + 4, slot->index);
            record += RECORD_BYTES;
        }
    }
    return records;
}

static PyObject *table_memory_bytes(PyObject *self, PyObject *ignored)
{
    const Part *parts = ((IdTable *)self)->parts;
    size_t number, bytes = sizeof(IdTable);
    (void)ignored;
    for (number = 0; number < PARTS; number++) bytes += slot_count(parts[number].bits) * sizeof(Slot);
    return PyLong_FromSize_t(bytes);
}

static PyMethodDef methods[] = {
    {"lookup", table_lookup, METH_VARARGS, "lookup(ids, /)\n--\n\nEight bytes an id: pack and index, or zeros."},
    {"add", table_add, METH_VARARGS, "add(ids, pack, first_index, /)\n--\n\nIds that are there get the new place."},
    {"get", table_get, METH_VARARGS, "get(id, /)\n--\n\n(pack, index) or None."},
    {"records", table_records, METH_NOARGS, "records()\n--\n\n24 bytes an id: id, pack and index, in any order."},
    {"memory_bytes", table_memory_bytes, METH_NOARGS, "memory_bytes()\n--\n\nSize of the slots."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot type_slots[] = {
    {Py_tp_new, (void *)new_table},   {Py_tp_dealloc, (void *)free_table}, {Py_tp_methods, methods},
    {Py_mp_length, (void *)table_len}, {0, NULL},
};

static PyType_Spec type_spec = {
    "gateway.format._id_table.IdTable", sizeof(IdTable), 0, Py_TPFLAGS_DEFAULT, type_slots,
};

static int add_type(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &type_spec, NULL);
    int failed = type == NULL || PyModule_AddObjectRef(module, "IdTable", type) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)add_type},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_id_table", "Chunk ids to places, in C.", 0, NULL, module_slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__id_table(void)
{
    return PyModuleDef_Init(&definition);
}

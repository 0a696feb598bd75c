/* Reads MessagePack from memory: what the kernels of this directory share.
 *
 * Each function returns 0 when the next value is not of its kind. Any spelling of a number or a length is taken.
 */
#ifndef GATEWAY_MSGPACK_H
#define GATEWAY_MSGPACK_H

#include <stddef.h>
#include <stdint.h>

#define U32_END ((uint64_t)1 << 32)

typedef struct {
    const uint8_t *at;
    const uint8_t *end;
} Cursor;

typedef struct {
    const uint8_t *data;
    size_t size;
} Bytes;

static size_t left_of(const Cursor *c)
{
    return (size_t)(c->end - c->at);
}

static int read_big(Cursor *c, size_t width, uint64_t *out)
{
    uint64_t value = 0;
    size_t i;
    if (left_of(c) < width) return 0;
    for (i = 0; i < width; i++) value = value << 8 | c->at[i];
    c->at += width;
    *out = value;
    return 1;
}

static int read_unsigned(Cursor *c, uint64_t *out)
{
    uint8_t head;
    if (c->at == c->end) return 0;
    head = *c->at++;
    if (head < 0x80) {
        *out = head;
        return 1;
    }
    if (head < 0xCC || head > 0xCF) return 0;
    return read_big(c, (size_t)1 << (head - 0xCC), out);
}

static int read_below(Cursor *c, uint64_t end, uint64_t *out)
{
    return read_unsigned(c, out) && *out < end;
}

static int take(Cursor *c, uint64_t size, Bytes *out)
{
    if (left_of(c) < size) return 0;
    out->data = c->at;
    out->size = (size_t)size;
    c->at += size;
    return 1;
}

static int read_bytes(Cursor *c, Bytes *out)
{
    uint64_t size;
    uint8_t head;
    if (c->at == c->end) return 0;
    head = *c->at++;
    if (head < 0xC4 || head > 0xC6) return 0;
    return read_big(c, (size_t)1 << (head - 0xC4), &size) && take(c, size, out);
}

static int read_array(Cursor *c, uint64_t *out)
{
    uint8_t head;
    if (c->at == c->end) return 0;
    head = *c->at++;
    if ((head & 0xF0) == 0x90) {
        *out = head & 0x0F;
        return 1;
    }
    if (head != 0xDC && head != 0xDD) return 0;
    return read_big(c, head == 0xDC ? 2 : 4, out);
}

#endif

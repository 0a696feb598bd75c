/* An S3 look-alike on 127.0.0.1 that throws bodies away, so that what is measured is the client: discard PORT
 *
 * It keeps what a client asks about afterwards: sizes, checksums and ETags of objects and of uploads under way. It
 * checks nothing. A checksum is the one that came with the body: the server does not compute one, which would cost
 * the client's cores.
 *
 * Answers PUT of objects and parts, POST of "?uploads" and "?uploadId", HEAD, DELETE, and any GET with 404.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { NAME = 1100, MOST = 4096, HEADERS = 32768, BODY = 1 << 20 };

typedef struct {
    char name[NAME]; /* of an object "/bucket/key"; of an upload its id */
    char crc[64];
    unsigned long long size;
} Known;

static Known objects[MOST], uploads[MOST];
static int object_count, upload_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static Known *known(Known *all, int *count, const char *name, int make)
{
    for (int i = 0; i < *count; i++)
        if (!strcmp(all[i].name, name))
            return &all[i];
    if (!make || *count == MOST)
        return NULL;
    Known *one = &all[(*count)++];
    memset(one, 0, sizeof *one);
    snprintf(one->name, NAME, "%s", name);
    return one;
}

static int send_all(int to, const char *data, size_t size)
{
    while (size) {
        ssize_t sent = send(to, data, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return -1;
        data += sent;
        size -= (size_t)sent;
    }
    return 0;
}

/* The value of a header, "" without it. */
static void header(const char *headers, const char *name, char *out, size_t room)
{
    char wanted[80];
    snprintf(wanted, sizeof wanted, "\r\n%s:", name);
    const char *at = strcasestr(headers, wanted);
    out[0] = 0;
    if (!at)
        return;
    at += strlen(wanted);
    at += strspn(at, " ");
    size_t length = strcspn(at, "\r\n");
    snprintf(out, room, "%.*s", (int)(length < room ? length : room - 1), at);
}

/* Value of a query's parameter, "" without it. */
static void parameter(const char *query, const char *name, char *out, size_t room)
{
    size_t length = strlen(name);
    out[0] = 0;
    for (const char *at = query; at && *at; at = strchr(at, '&') ? strchr(at, '&') + 1 : NULL)
        if (!strncmp(at, name, length) && at[length] == '=') {
            snprintf(out, room, "%.*s", (int)strcspn(at + length + 1, "&"), at + length + 1);
            return;
        }
}

static const char *now(char *out, size_t room)
{
    time_t seconds = time(NULL);
    struct tm parts;
    strftime(out, room, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&seconds, &parts));
    return out;
}

/* ETags end in "-1", as of an upload in parts, so that nobody takes them for an MD5. */
static int answer(int to, const char *status, const char *more, const char *body)
{
    char out[4096], date[64];
    int length = snprintf(out, sizeof out, "HTTP/1.1 %s\r\nDate: %s\r\n%s%sContent-Length: %zu\r\n\r\n%s", status,
                          now(date, sizeof date), more, *body ? "Content-Type: application/xml\r\n" : "",
                          strlen(body), body);
    return send_all(to, out, (size_t)length);
}

static int store(int to, const char *path, const char *query, const char *headers, unsigned long long size)
{
    char id[64], crc[64], decoded[32], more[256] = "";
    parameter(query, "uploadId", id, sizeof id);
    header(headers, "x-amz-checksum-crc64nvme", crc, sizeof crc);
    header(headers, "x-amz-decoded-content-length", decoded, sizeof decoded);
    if (*decoded)
        size = strtoull(decoded, NULL, 10);
    pthread_mutex_lock(&lock);
    Known *one = *id ? known(uploads, &upload_count, id, 0) : known(objects, &object_count, path, 1);
    if (one) {
        one->size = *id ? one->size + size : size;
        snprintf(one->crc, sizeof one->crc, "%s", *id ? "" : crc);
    }
    pthread_mutex_unlock(&lock);
    if (!one)
        return answer(to, "404 Not Found", "", "<Error><Code>NoSuchUpload</Code><Message>none</Message></Error>");
    int length = snprintf(more, sizeof more, "ETag: \"%032llx-1\"\r\n", size);
    if (*crc)
        snprintf(more + length, sizeof more - (size_t)length, "x-amz-checksum-crc64nvme: %s\r\n", crc);
    return answer(to, "200 OK", more, "");
}

static int post(int to, const char *path, const char *query, const char *headers)
{
    char id[64], crc[64], body[3000], bucket[256], key[NAME];
    snprintf(bucket, sizeof bucket, "%.*s", (int)strcspn(path + 1, "/"), path + 1);
    snprintf(key, sizeof key, "%s", path + 1 + strlen(bucket) + (path[1 + strlen(bucket)] == '/'));
    parameter(query, "uploadId", id, sizeof id);
    pthread_mutex_lock(&lock);
    if (!*id) {
        snprintf(id, sizeof id, "upload%d", upload_count);
        known(uploads, &upload_count, id, 1);
        pthread_mutex_unlock(&lock);
        snprintf(body, sizeof body,
                 "<?xml version=\"1.0\"?><InitiateMultipartUploadResult><Bucket>%s</Bucket><Key>%s</Key>"
                 "<UploadId>%s</UploadId></InitiateMultipartUploadResult>",
                 bucket, key, id);
        return answer(to, "200 OK", "", body);
    }
    header(headers, "x-amz-checksum-crc64nvme", crc, sizeof crc);
    Known *upload = known(uploads, &upload_count, id, 0), *object = known(objects, &object_count, path, 1);
    if (upload && object) {
        object->size = upload->size;
        snprintf(object->crc, sizeof object->crc, "%s", crc);
    }
    pthread_mutex_unlock(&lock);
    if (!upload || !object)
        return answer(to, "404 Not Found", "", "<Error><Code>NoSuchUpload</Code><Message>none</Message></Error>");
    snprintf(body, sizeof body,
             "<?xml version=\"1.0\"?><CompleteMultipartUploadResult><Location>http://127.0.0.1%s</Location>"
             "<Bucket>%s</Bucket><Key>%s</Key><ETag>\"00000000000000000000000000000000-1\"</ETag>"
             "</CompleteMultipartUploadResult>",
             path, bucket, key);
    return answer(to, "200 OK", "", body);
}

static int head(int to, const char *path)
{
    char out[1024], date[64];
    pthread_mutex_lock(&lock);
    Known *one = known(objects, &object_count, path, 0);
    Known found = one ? *one : (Known){0};
    pthread_mutex_unlock(&lock);
    if (!one)
        return answer(to, "404 Not Found", "", "");
    int length = snprintf(out, sizeof out,
                          "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Length: %llu\r\nETag: \"%032llx-1\"\r\n"
                          "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: binary/octet-stream\r\n",
                          now(date, sizeof date), found.size, found.size);
    if (*found.crc)
        length += snprintf(out + length, sizeof out - (size_t)length, "x-amz-checksum-crc64nvme: %s\r\n", found.crc);
    length += snprintf(out + length, sizeof out - (size_t)length, "\r\n");
    return send_all(to, out, (size_t)length);
}

static void *serve(void *argument)
{
    int from = (int)(long)argument, on = 1;
    char *buffer = malloc(BODY + HEADERS + 1), *headers = malloc(HEADERS + 1);
    size_t have = 0;
    setsockopt(from, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    for (;;) {
        char *end;
        buffer[have] = 0;
        while (!(end = strstr(buffer, "\r\n\r\n"))) {
            ssize_t got = have < HEADERS ? recv(from, buffer + have, HEADERS - have, 0) : 0;
            if (got <= 0)
                goto out;
            have += (size_t)got;
            buffer[have] = 0;
        }
        size_t length = (size_t)(end - buffer) + 4;
        memcpy(headers, buffer, length);
        headers[length] = 0;
        char method[16] = "", target[2 * NAME] = "", number[32], expect[32];
        sscanf(headers, "%15s %2199s", method, target);
        header(headers, "content-length", number, sizeof number);
        header(headers, "expect", expect, sizeof expect);
        unsigned long long size = strtoull(number, NULL, 10), left = size;
        if (*expect && send_all(from, "HTTP/1.1 100 Continue\r\n\r\n", 25))
            goto out;
        size_t behind = have - length;
        if (behind > left) {
            memmove(buffer, buffer + length + left, behind - left);
            have = behind - left;
            left = 0;
        } else {
            left -= behind;
            have = 0;
        }
        while (left) {
            ssize_t got = recv(from, buffer, left < BODY ? left : BODY, 0);
            if (got <= 0)
                goto out;
            left -= (size_t)got;
        }
        char *query = strchr(target, '?');
        if (query)
            *query++ = 0;
        int failed;
        if (!strcmp(method, "PUT"))
            failed = store(from, target, query ? query : "", headers, size);
        else if (!strcmp(method, "POST"))
            failed = post(from, target, query ? query : "", headers);
        else if (!strcmp(method, "HEAD"))
            failed = head(from, target);
        else if (!strcmp(method, "DELETE"))
            failed = answer(from, "204 No Content", "", "");
        else
            failed = answer(from, "404 Not Found", "", "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>");
        if (failed)
            goto out;
    }
out:
    free(buffer);
    free(headers);
    close(from);
    return NULL;
}

int main(int count, char **words)
{
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (count != 2)
        return 2;
    address.sin_port = htons((unsigned short)atoi(words[1]));
    signal(SIGPIPE, SIG_IGN);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64))
        return 1;
    for (;;) {
        int from = accept(listener, NULL, NULL);
        pthread_t thread;
        if (from < 0)
            continue;
        if (pthread_create(&thread, NULL, serve, (void *)(long)from))
            close(from);
        else
            pthread_detach(thread);
    }
}

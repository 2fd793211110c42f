/* SPDX-License-Identifier: MIT */
/*
 * source: everything that a load reads from outside (files, environment, folder listings, where modules are), read once and kept, so
 * that the states of all workers see the same bytes even when the disk has changed since. Missing things are kept as missing too.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "script/load_private.h"

#if !defined(MOONGATE_LUADIR) && defined(MOONGATE_DATA_DIR)
#define MOONGATE_LUADIR MOONGATE_DATA_DIR "/lua"
#elif !defined(MOONGATE_LUADIR)
#define MOONGATE_LUADIR "/usr/local/share/moongate/lua"
#endif

#define SOURCE_FILE_MAX (64u * 1024 * 1024)

const struct load_source *load_source_find(const struct script_load *load, enum load_source_kind kind, const char *key) {
    for (unsigned i = 0; i < load->source_count; i++)
        if (load->sources[i].kind == kind && strcmp(load->sources[i].key, key) == 0)
            return &load->sources[i];
    return NULL;
}

char *load_source_path(const struct script_load *load, const char *path) {
    return path[0] == '/' ? mem_strdup(path) : mem_printf("%s%s", load->folder, path);
}

/* All bytes of a regular file into source; 0 or an errno. */
static int source_read_open(int fd, struct load_source *source) {
    struct stat st;
    if (fstat(fd, &st) != 0)
        return errno;
    if (S_ISDIR(st.st_mode))
        return EISDIR;
    size_t cap = st.st_size > 0 && st.st_size < (off_t)SOURCE_FILE_MAX ? (size_t)st.st_size + 1 : 4096;
    char *data = mem_try_alloc(cap);
    size_t n = 0;
    int error = data ? 0 : ENOMEM;
    while (!error) {
        if (n == cap) {
            char *more = cap < SOURCE_FILE_MAX ? mem_try_resize(data, cap * 2) : NULL;
            if (!more) {
                error = EFBIG;
                break;
            }
            data = more;
            cap *= 2;
        }
        ssize_t got = read(fd, data + n, cap - n);
        if (got == 0)
            break;
        if (got > 0)
            n += (size_t)got;
        else if (errno != EINTR)
            error = errno;
    }
    if (error) {
        mem_free(data);
        return error;
    }
    source->data = data;
    source->n = n;
    return 0;
}

static void source_read_file(struct load_source *source) {
    int fd = open(source->key, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        source->error = errno;
        return;
    }
    source->error = source_read_open(fd, source);
    close(fd);
}

static void source_read_glob(const struct script_load *load, struct load_source *source) {
    char *pattern = load_source_path(load, source->key);
    glob_t found = {0};
    if (glob(pattern, 0, NULL, &found) == 0) {
        size_t n = 0;
        for (size_t i = 0; i < found.gl_pathc; i++)
            n += strlen(found.gl_pathv[i]) + 1;
        source->data = mem_alloc(n + 1);
        source->n = n;
        char *at = source->data;
        for (size_t i = 0; i < found.gl_pathc; i++) {
            size_t size = strlen(found.gl_pathv[i]) + 1;
            memcpy(at, found.gl_pathv[i], size);
            at += size;
        }
    }
    globfree(&found);
    mem_free(pattern);
}

static void source_find_module(const struct script_load *load, struct load_source *source) {
    char *name = mem_strdup(source->key);
    for (char *p = name; *p; p++)
        if (*p == '.')
            *p = '/';
    const char *shipped = getenv("MOONGATE_LUADIR");
    char *paths[] = {
        mem_printf("%s%s.lua", load->folder, name),
        mem_printf("%s/%s.lua", shipped && *shipped ? shipped : MOONGATE_LUADIR, name),
    };
    for (unsigned i = 0; i < ARRAY_LEN(paths); i++) {
        if (!source->data && access(paths[i], F_OK) == 0) {
            source->data = mem_strdup(paths[i]);
            source->n = strlen(paths[i]);
        }
        mem_free(paths[i]);
    }
    mem_free(name);
}

const struct load_source *load_source_get(struct script_load *load, enum load_source_kind kind, const char *key) {
    const struct load_source *known = load_source_find(load, kind, key);
    if (known)
        return known;
    if (load->source_count == load->source_cap) {
        load->source_cap = load->source_cap ? load->source_cap * 2 : 16;
        load->sources = mem_resize(load->sources, load->source_cap * sizeof(*load->sources));
    }
    struct load_source *source = &load->sources[load->source_count++];
    *source = (struct load_source){.kind = kind, .key = mem_strdup(key)};
    if (kind == LOAD_SOURCE_FILE)
        source_read_file(source);
    else if (kind == LOAD_SOURCE_GLOB)
        source_read_glob(load, source);
    else if (kind == LOAD_SOURCE_REQUIRE)
        source_find_module(load, source);
    else {
        source->data = mem_strdup(getenv(key));
        source->n = source->data ? strlen(source->data) : 0;
    }
    return source;
}

void load_source_fini(struct script_load *load) {
    for (unsigned i = 0; i < load->source_count; i++) {
        mem_free(load->sources[i].key);
        mem_free(load->sources[i].data);
    }
    mem_free(load->sources);
    load->sources = NULL;
    load->source_count = load->source_cap = 0;
}

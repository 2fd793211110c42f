/* SPDX-License-Identifier: MIT */
/*
 * globals: finds every global variable that a file uses, by reading its compiled form: a misspelt name in a function that runs once a month
 * is a mistake at load. lua_dump() writes the chunk with its line numbers; this reads Lua 5.4's format and follows which upvalue is the
 * real _ENV from the main function down, so that a script's own `local _ENV` is left alone. The subtle thing: a function with more
 * than 256 constants cannot name a later one in GETTABUP; Lua then loads _ENV and the name into registers first (globals_scan_long).
 */
#include <limits.h>
#include <stdio.h>

#include "base/mem.h"
#include "script/load_private.h"

/* Opcodes and fields of Lua 5.4 (lopcodes.h, which is not installed). */
enum {
    GLOBALS_LOADK = 3, GLOBALS_LOADKX = 4, GLOBALS_GETUPVAL = 9, GLOBALS_GETTABUP = 11, GLOBALS_GETTABLE = 12,
    GLOBALS_SETTABUP = 15, GLOBALS_SETTABLE = 16
};
#define GLOBALS_OP(i) ((i) & 0x7f)
#define GLOBALS_A(i) (((i) >> 7) & 0xff)
#define GLOBALS_B(i) (((i) >> 16) & 0xff)
#define GLOBALS_C(i) (((i) >> 24) & 0xff)
#define GLOBALS_BX(i) ((i) >> 15)
#define GLOBALS_AX(i) ((i) >> 7)

#define GLOBALS_ABSOLUTE (-0x80) /* ABSLINEINFO */
#define GLOBALS_DEPTH_MAX 220    /* Lua's own limit on nested functions is 200 C levels */
#define GLOBALS_UPVALUES_MAX 255

struct globals_reader {
    const unsigned char *p, *end;
    bool bad;
    globals_use_fn *use;
    void *owner;
};

struct globals_function {
    const unsigned char *code;
    size_t code_count;
    struct span *constants; /* .p NULL: no string */
    size_t constant_count;
    bool env[GLOBALS_UPVALUES_MAX + 1]; /* which upvalues are the real _ENV */
    const unsigned char *deltas;
    size_t delta_count;
    int *absolute;          /* lines, in order */
    size_t absolute_count;
    int first_line;
    bool top;
};

static const unsigned char *globals_bytes(struct globals_reader *reader, size_t n) {
    if (reader->bad || (size_t)(reader->end - reader->p) < n) {
        reader->bad = true;
        return NULL;
    }
    const unsigned char *at = reader->p;
    reader->p += n;
    return at;
}

static unsigned globals_byte(struct globals_reader *reader) {
    const unsigned char *p = globals_bytes(reader, 1);
    return p ? *p : 0;
}

/* A number in groups of seven bits, most significant first, the last one marked. */
static size_t globals_number(struct globals_reader *reader) {
    size_t value = 0;
    for (;;) {
        unsigned byte = globals_byte(reader);
        if (reader->bad || value > SIZE_MAX >> 7) {
            reader->bad = true;
            return 0;
        }
        value = value << 7 | (byte & 0x7f);
        if (byte & 0x80)
            return value;
    }
}

/* A count of things of at least `size` bytes each: more than what is left is no count. */
static size_t globals_count(struct globals_reader *reader, size_t size) {
    size_t count = globals_number(reader);
    if (!reader->bad && count > (size_t)(reader->end - reader->p) / size)
        reader->bad = true;
    return reader->bad ? 0 : count;
}

static int globals_int(struct globals_reader *reader) {
    size_t value = globals_number(reader);
    if (value > INT_MAX)
        reader->bad = true;
    return reader->bad ? 0 : (int)value;
}

static struct span globals_text(struct globals_reader *reader) {
    size_t n = globals_number(reader);
    if (reader->bad || n == 0)
        return SPAN_NULL;
    const unsigned char *p = globals_bytes(reader, n - 1);
    return p ? span_make((const char *)p, n - 1) : SPAN_NULL;
}

static void globals_read_constants(struct globals_reader *reader, struct globals_function *f) {
    f->constant_count = globals_count(reader, 1);
    f->constants = mem_alloc_array(f->constant_count + 1, sizeof(*f->constants));
    for (size_t i = 0; i < f->constant_count && !reader->bad; i++) {
        switch (globals_byte(reader)) {
        case 0x00: case 0x01: case 0x11: /* nil false true */
            break;
        case 0x03:
            globals_bytes(reader, sizeof(lua_Integer));
            break;
        case 0x13:
            globals_bytes(reader, sizeof(lua_Number));
            break;
        case 0x04: case 0x14: /* short and long strings */
            f->constants[i] = globals_text(reader);
            break;
        default:
            reader->bad = true;
        }
    }
}

/* Which upvalues are _ENV: one of the enclosing function that is, or the main function's first. */
static void globals_read_upvalues(struct globals_reader *reader, struct globals_function *f, const struct globals_function *parent) {
    size_t count = globals_count(reader, 3);
    if (count > GLOBALS_UPVALUES_MAX)
        reader->bad = true;
    for (size_t i = 0; i < count && !reader->bad; i++) {
        unsigned in_stack = globals_byte(reader), index = globals_byte(reader);
        globals_byte(reader); /* kind */
        f->env[i] = parent ? !in_stack && parent->env[index] : i == 0;
    }
}

static void globals_read_debug(struct globals_reader *reader, struct globals_function *f) {
    f->delta_count = globals_count(reader, 1);
    f->deltas = globals_bytes(reader, f->delta_count);
    f->absolute_count = globals_count(reader, 2);
    f->absolute = mem_alloc_array(f->absolute_count + 1, sizeof(*f->absolute));
    for (size_t i = 0; i < f->absolute_count; i++) {
        globals_int(reader); /* the instruction, which its delta marks as well */
        f->absolute[i] = globals_int(reader);
    }
    size_t locals = globals_count(reader, 3);
    for (size_t i = 0; i < locals && !reader->bad; i++) {
        globals_text(reader);
        globals_int(reader);
        globals_int(reader);
    }
    size_t names = globals_count(reader, 1);
    for (size_t i = 0; i < names && !reader->bad; i++)
        globals_text(reader);
}

static uint32_t globals_instruction(const struct globals_function *f, size_t pc) {
    uint32_t instruction;
    memcpy(&instruction, f->code + pc * sizeof(instruction), sizeof(instruction));
    return instruction;
}

static void globals_found(struct globals_reader *reader, const struct globals_function *f, size_t constant, int line, bool set) {
    if (constant >= f->constant_count || !f->constants[constant].p)
        return;
    struct span name = f->constants[constant];
    reader->use(reader->owner, &(struct globals_use){.name = name.p, .n = name.n, .line = line, .set = set, .top = f->top});
}

/* At pc _ENV goes into a register: a name loaded right behind it, and where the two are used, make an access by a late constant. */
static void globals_scan_long(struct globals_reader *reader, const struct globals_function *f, size_t pc, int line) {
    uint32_t table = GLOBALS_A(globals_instruction(f, pc));
    if (pc + 2 >= f->code_count)
        return;
    uint32_t load = globals_instruction(f, pc + 1);
    size_t constant;
    if (GLOBALS_OP(load) == GLOBALS_LOADK)
        constant = GLOBALS_BX(load);
    else if (GLOBALS_OP(load) == GLOBALS_LOADKX)
        constant = GLOBALS_AX(globals_instruction(f, pc + 2));
    else
        return;
    uint32_t key = GLOBALS_A(load);
    for (size_t at = pc + 2; at < f->code_count; at++) {
        uint32_t use = globals_instruction(f, at);
        bool get = GLOBALS_OP(use) == GLOBALS_GETTABLE && GLOBALS_B(use) == table && GLOBALS_C(use) == key;
        bool set = GLOBALS_OP(use) == GLOBALS_SETTABLE && GLOBALS_A(use) == table && GLOBALS_B(use) == key;
        if (get || set) {
            globals_found(reader, f, constant, line, set);
            return;
        }
    }
}

static void globals_scan_code(struct globals_reader *reader, const struct globals_function *f) {
    int line = f->first_line;
    size_t absolute = 0;
    for (size_t pc = 0; pc < f->code_count; pc++) {
        if (pc < f->delta_count) {
            int delta = (signed char)f->deltas[pc];
            if (delta != GLOBALS_ABSOLUTE)
                line += delta;
            else if (absolute < f->absolute_count)
                line = f->absolute[absolute++];
        }
        uint32_t i = globals_instruction(f, pc);
        if (GLOBALS_OP(i) == GLOBALS_GETTABUP && f->env[GLOBALS_B(i)])
            globals_found(reader, f, GLOBALS_C(i), line, false);
        else if (GLOBALS_OP(i) == GLOBALS_SETTABUP && f->env[GLOBALS_A(i)])
            globals_found(reader, f, GLOBALS_B(i), line, true);
        else if (GLOBALS_OP(i) == GLOBALS_GETUPVAL && f->env[GLOBALS_B(i)])
            globals_scan_long(reader, f, pc, line);
    }
}

static void globals_read_function(struct globals_reader *reader, const struct globals_function *parent, unsigned depth) {
    struct globals_function f = {.top = depth == 0};
    if (depth > GLOBALS_DEPTH_MAX)
        reader->bad = true;
    globals_text(reader); /* source */
    f.first_line = globals_int(reader);
    globals_int(reader); /* last line */
    globals_bytes(reader, 3); /* parameters, vararg, stack size */
    f.code_count = globals_count(reader, sizeof(uint32_t));
    f.code = globals_bytes(reader, f.code_count * sizeof(uint32_t));
    globals_read_constants(reader, &f);
    globals_read_upvalues(reader, &f, parent);
    size_t inner = globals_count(reader, 10);
    for (size_t i = 0; i < inner && !reader->bad; i++)
        globals_read_function(reader, &f, depth + 1);
    if (!reader->bad)
        globals_read_debug(reader, &f);
    if (!reader->bad)
        globals_scan_code(reader, &f);
    mem_free(f.constants);
    mem_free(f.absolute);
}

/* Lua's header: signature, version, format, conversion check, sizes, and the two test numbers. */
static bool globals_read_header(struct globals_reader *reader) {
    static const unsigned char head[] = {0x1b, 'L', 'u', 'a', 0x54, 0, 0x19, 0x93, '\r', '\n', 0x1a, '\n',
                                         sizeof(uint32_t), sizeof(lua_Integer), sizeof(lua_Number)};
    const unsigned char *p = globals_bytes(reader, sizeof(head));
    if (!p || memcmp(p, head, sizeof(head)) != 0)
        return false;
    lua_Integer integer = 0;
    lua_Number number = 0;
    p = globals_bytes(reader, sizeof(integer));
    if (p)
        memcpy(&integer, p, sizeof(integer));
    p = globals_bytes(reader, sizeof(number));
    if (p)
        memcpy(&number, p, sizeof(number));
    globals_byte(reader); /* upvalues of the main function */
    return !reader->bad && integer == 0x5678 && number > 370.25 && number < 370.75;
}

bool globals_scan(const char *chunk, size_t n, globals_use_fn *use, void *owner, char *error, size_t size) {
    const unsigned char *start = (const unsigned char *)chunk;
    struct globals_reader reader = {.p = start, .end = start + n, .use = use, .owner = owner};
    if (!globals_read_header(&reader)) {
        snprintf(error, size, "this Lua library writes compiled chunks in another format than Lua 5.4's: globals cannot be checked");
        return false;
    }
    globals_read_function(&reader, NULL, 0);
    if (reader.bad || reader.p != reader.end) {
        snprintf(error, size, "a compiled chunk of this Lua library cannot be read: globals cannot be checked");
        return false;
    }
    return true;
}

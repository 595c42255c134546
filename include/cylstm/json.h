/* In-place JSON parser for untrusted input, without allocation or recursion.
 *
 * A reader is a position in a text. Malformed input sets `bad` and ends reading, so callers check it once at the end.
 * A text may be embedded in a JSON string, as in the metadata of a safetensors file: its escapes are then decoded.
 */
#ifndef CYLSTM_JSON_H
#define CYLSTM_JSON_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CYL_JSON_TEXT 64  /* characters of a name or number, with the 0 at its end */
#define CYL_JSON_DEPTH 64 /* of values in values */

typedef struct {
    const unsigned char *at, *end;
    int quoted; /* whether the text is embedded in a string, whose closing quote ends it */
    int bad;
} cyl_json;

typedef enum { CYL_JSON_NULL, CYL_JSON_BOOL, CYL_JSON_INT, CYL_JSON_REAL, CYL_JSON_STRING } cyl_json_kind;

/* A value that is neither an object nor an array; bool: number is 0 or 1. */
typedef struct {
    cyl_json_kind kind;
    double number;
    char text[CYL_JSON_TEXT];
} cyl_json_value;

static inline int cyl_json_fail(cyl_json *j) {
    j->bad = 1;
    return -1;
}

static inline int cyl_json_byte(cyl_json *j) { return j->bad || j->at == j->end ? -1 : *j->at++; }

/* Decode an escape sequence after a backslash; 128 represents all non-ASCII characters. */
static inline int cyl_json_unescaped(cyl_json *j, int (*take)(cyl_json *)) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const int c = take(j);
    int code = 0;
    if (c > 0 && c != 'u') {
        const char *found = strchr(from, c);
        return found ? to[found - from] : cyl_json_fail(j);
    }
    for (int k = 0; k < 4 && c == 'u'; k++) {
        const int digit = take(j), letter = digit | 32;
        if (digit >= '0' && digit <= '9') code = 16 * code + digit - '0';
        else if (letter >= 'a' && letter <= 'f') code = 16 * code + letter - 'a' + 10;
        else return cyl_json_fail(j);
    }
    return c != 'u' ? cyl_json_fail(j) : code < 128 ? code : 128;
}

/* The next character of the text; -1 at its end. */
static inline int cyl_json_take(cyl_json *j) {
    const int c = cyl_json_byte(j);
    if (!j->quoted || (c != '"' && c != '\\')) return c;
    if (c == '\\') return cyl_json_unescaped(j, cyl_json_byte);
    j->at--;
    return -1;
}

/* The next non-blank character without consuming it; -1 at the end. */
static inline int cyl_json_peek(cyl_json *j) {
    for (;;) {
        const unsigned char *before = j->at;
        const int c = cyl_json_take(j);
        if (c == ' ' || c == '\n' || c == '\r' || c == '\t') continue;
        j->at = before;
        return c;
    }
}

/* Whether the next non-blank character is c, which is consumed then. */
static inline int cyl_json_is(cyl_json *j, int c) {
    if (cyl_json_peek(j) != c) return 0;
    cyl_json_take(j);
    return 1;
}

static inline int cyl_json_ended(cyl_json *j) { return cyl_json_peek(j) < 0 && !j->bad; }

/* Read a string; one that is too long for `out` gives an empty string, which matches no name. */
static inline void cyl_json_string(cyl_json *j, char out[CYL_JSON_TEXT]) {
    size_t n = 0;
    out[0] = 0;
    if (!cyl_json_is(j, '"')) {
        cyl_json_fail(j);
        return;
    }
    for (;;) {
        int c = cyl_json_take(j);
        if (c == '"') break;
        if (c < ' ') {
            cyl_json_fail(j);
            return;
        }
        if (c == '\\') c = cyl_json_unescaped(j, cyl_json_take);
        if (n < CYL_JSON_TEXT) out[n++] = c >= ' ' && c < 128 ? (char)c : '?';
    }
    out[n < CYL_JSON_TEXT ? n : 0] = 0;
}

/* The value of a number as JSON writes them, rounded to the nearest in every locale; whether it is one. */
static inline int cyl_json_number(const char *word, cyl_json_value *value) {
    char plain[CYL_JSON_TEXT + 16]; /* digits without a point, then an exponent */
    const char *at = word;
    size_t n = 0, digits = 0;
    int exponent = 0, written = 0, negative = 0;
    value->kind = CYL_JSON_INT;
    if (*at == '-') plain[n++] = *at++;
    for (; *at >= '0' && *at <= '9'; digits++) plain[n++] = *at++;
    if (!digits) return 0;
    if (*at == '.') {
        value->kind = CYL_JSON_REAL;
        if (*++at < '0' || *at > '9') return 0;
        for (; *at >= '0' && *at <= '9'; exponent--) plain[n++] = *at++;
    }
    if (*at == 'e' || *at == 'E') {
        value->kind = CYL_JSON_REAL;
        at++;
        if (*at == '-' || *at == '+') negative = *at++ == '-';
        if (*at < '0' || *at > '9') return 0;
        for (; *at >= '0' && *at <= '9'; at++) written = written < 1000 ? 10 * written + *at - '0' : written;
    }
    if (*at) return 0;
    exponent += negative ? -written : written;
    plain[n++] = 'e';
    if (exponent < 0) plain[n++] = '-';
    exponent = exponent < 0 ? -exponent : exponent;
    for (int unit = 10000; unit; unit /= 10) plain[n++] = (char)('0' + exponent / unit % 10);
    plain[n] = 0;
    value->number = strtod(plain, NULL);
    return 1;
}

/* A string, a number, true, false or null. */
static inline void cyl_json_scalar(cyl_json *j, cyl_json_value *value) {
    size_t n = 0;
    memset(value, 0, sizeof *value);
    if (cyl_json_peek(j) == '"') {
        value->kind = CYL_JSON_STRING;
        cyl_json_string(j, value->text);
        return;
    }
    for (;;) {
        const unsigned char *before = j->at;
        const int c = cyl_json_take(j), letter = c | 32;
        if ((c < '0' || c > '9') && (letter < 'a' || letter > 'z') && c != '-' && c != '+' && c != '.') {
            j->at = before;
            break;
        }
        if (n + 1 == CYL_JSON_TEXT) cyl_json_fail(j);
        else value->text[n++] = (char)c;
    }
    value->text[n] = 0;
    if (j->bad || cyl_json_number(value->text, value)) return;
    const int yes = !strcmp(value->text, "true"), no = !strcmp(value->text, "false");
    value->kind = yes || no ? CYL_JSON_BOOL : CYL_JSON_NULL;
    value->number = yes;
    if (!yes && !no && strcmp(value->text, "null")) cyl_json_fail(j);
}

/* Whether an object or an array has a next entry, where the reader then is; *first is 1 at its beginning. */
static inline int cyl_json_next(cyl_json *j, int *first, int opening, int closing) {
    const int begins = *first;
    *first = 0;
    if (begins && !cyl_json_is(j, opening)) cyl_json_fail(j);
    if (cyl_json_is(j, closing)) return 0;
    if (!begins && !cyl_json_is(j, ',')) cyl_json_fail(j);
    return !j->bad;
}

static inline void cyl_json_key(cyl_json *j, char key[CYL_JSON_TEXT]) {
    cyl_json_string(j, key);
    if (!cyl_json_is(j, ':')) cyl_json_fail(j);
}

/* Go over a value, whatever it is. */
static inline void cyl_json_skip(cyl_json *j) {
    char key[CYL_JSON_TEXT];
    uint64_t objects = 0; /* a bit for each value around, the innermost last: whether it is an object */
    int depth = 0, first = 0;
    do {
        const int c = cyl_json_peek(j);
        if (c == '{' || c == '[') {
            if (depth++ == CYL_JSON_DEPTH) cyl_json_fail(j);
            objects = objects << 1 | (c == '{');
            first = 1;
        } else {
            cyl_json_value value;
            cyl_json_scalar(j, &value);
        }
        while (depth && !cyl_json_next(j, &first, objects & 1 ? '{' : '[', objects & 1 ? '}' : ']')) {
            if (j->bad) return;
            depth--;
            objects >>= 1;
        }
        if (depth && objects & 1) cyl_json_key(j, key);
    } while (depth && !j->bad);
}

#endif

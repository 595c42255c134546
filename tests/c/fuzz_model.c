/* The model reader on damaged files: built by test_embedding.py with sanitizers, run with valid files.
 *
 *     fuzz_model COUNT SEED FILE...     COUNT damaged copies of the files; prints how many of them still opened
 *     fuzz_model read FILE...           every file as it is; prints each one's error code
 *     fuzz_model overrun FILE           told to be 64 bytes longer than it is, for the sanitizer to see
 *
 * Bytes stand in memory of just their size. Every copy that opens is planned and run, unless it has become large.
 */
#include "cylstm/cylstm.h"

#include <stdio.h>

static uint64_t drawn;
static size_t draw(size_t n) { /* below n */
    drawn ^= drawn << 13;
    drawn ^= drawn >> 7;
    drawn ^= drawn << 17;
    return (size_t)(drawn % n);
}

static unsigned char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    long end;
    if (!file || fseek(file, 0, SEEK_END) || (end = ftell(file)) < 0 || fseek(file, 0, SEEK_SET)) exit(2);
    *size = (size_t)end;
    unsigned char *bytes = (unsigned char *)malloc(*size + !*size);
    if (!bytes || fread(bytes, 1, *size, file) != *size) exit(2);
    fclose(file);
    return bytes;
}

static int is_nan(const unsigned char *number, size_t real) {
    float single;
    double wide;
    memcpy(&single, number, sizeof single);
    if (real == 4) return isnan(single);
    memcpy(&wide, number, sizeof wide);
    return isnan(wide);
}

/* Whether further steps from a state that is kept, and taken up again, give the bits of the sequence at once. */
static void compare_steps(cyl_runner *runner, const unsigned char *x, const unsigned char *y, ptrdiff_t T) {
    const cyl_model *m = runner->model;
    const size_t in = (size_t)(runner->B * m->I) * (m->reads_indices ? 8 : m->real);
    const size_t out = (size_t)(runner->B * m->O) * m->real;
    unsigned char *again = (unsigned char *)malloc((size_t)T * out);
    size_t size;
    unsigned char *state = (unsigned char *)cyl_state(runner, &size), *kept = (unsigned char *)malloc(size + 1);
    if (!again || !kept) exit(2);
    cyl_reset(runner);
    if (cyl_steps(runner, again, x, 1)) exit(3);
    memcpy(kept, state, size);
    for (int turn = 0; turn < 2 && T > 1; turn++) {
        if (cyl_steps(runner, again + out, x + in, T - 1)) exit(3);
        memcpy(state, kept, size);
    }
    for (size_t k = 0; k < (size_t)T * out; k += m->real) /* damaged weights may be NaN, which has many bits */
        if (memcmp(again + k, y + k, m->real) && !(is_nan(again + k, m->real) && is_nan(y + k, m->real))) exit(4);
    free(again), free(kept);
}

/* Open and, where that works, run: whether it opened. */
static int try_model(const unsigned char *bytes, size_t size, int *error) {
    static cyl_model model;
    *error = cyl_model_open(&model, bytes, size);
    if (*error) return 0;
    const ptrdiff_t T = 1 + (ptrdiff_t)draw(5), B = 1 + (ptrdiff_t)draw(3);
    const size_t needed = cyl_model_memory(&model, T, B), steps = (size_t)(T * B);
    cyl_runner runner;
    if (!needed || needed > 1 << 20) return 1;
    void *buffer = malloc(needed);
    const size_t inputs = steps * (size_t)model.I;
    unsigned char *x = (unsigned char *)malloc(inputs * 8);
    unsigned char *y = (unsigned char *)malloc(steps * (size_t)model.O * model.real);
    if (!buffer || !x || !y) exit(2);
    memset(x, 0, inputs * 8);
    for (size_t k = 0; k < inputs; k++) {
        if (model.reads_indices) ((int64_t *)x)[k] = model.layer[0].symbols > 1 ? (int64_t)draw(2) : 0;
        else if (model.real == 4) ((float *)x)[k] = (float)draw(2);
        else ((double *)x)[k] = (double)draw(2);
    }
    if (cyl_runner_plan(&runner, &model, buffer, needed, T, B)) exit(3);
    if (cyl_run(&runner, y, x, T)) exit(3);
    if (model.causal) compare_steps(&runner, x, y, T);
    else if (cyl_steps(&runner, y, x, 1) != CYL_NOT_CAUSAL) exit(3);
    free(buffer), free(x), free(y);
    return 1;
}

/* A few bytes changed, cut out or put in, most of them in the header. */
static unsigned char *damaged(const unsigned char *bytes, size_t *size) {
    static const char words[] = "{}[]\",:\\0123456789-e.u";
    size_t header = 8 + (size_t)bytes[0] + 256 * (size_t)bytes[1], n = *size, extra = draw(3) ? 0 : draw(40);
    if (header > n) header = n;
    unsigned char *copy = (unsigned char *)malloc(n + extra + 1);
    if (!copy) exit(2);
    memcpy(copy, bytes, n);
    for (size_t changes = 1 + draw(2) * draw(4); changes && n; changes--) {
        const size_t at = draw(8) ? draw(header < n ? header : n) : draw(n), from = draw(n), k = 1 + draw(12);
        switch (draw(7)) {
        case 0: copy[at] = (unsigned char)draw(256); break;
        case 1: copy[at] = (unsigned char)words[draw(sizeof words - 1)]; break;
        case 2: copy[at] ^= (unsigned char)(1 << draw(8)); break;
        case 3: /* a piece from elsewhere */
            if (at + k <= n && from + k <= n) memmove(copy + at, copy + from, k);
            break;
        case 4: /* a piece left out */
            if (at + k > n) break;
            memmove(copy + at, copy + at + k, n - at - k);
            n -= k;
            break;
        case 5: /* a digit for a digit */
            if (copy[at] >= '0' && copy[at] <= '9') copy[at] = (unsigned char)('0' + draw(10));
            break;
        default: n = draw(4) ? n : at; break;
        }
    }
    for (; extra && n; extra--) { /* a byte more, wherever */
        const size_t at = draw(n);
        memmove(copy + at + 1, copy + at, n - at);
        copy[at] = (unsigned char)words[draw(sizeof words - 1)];
        n++;
    }
    if (draw(4)) { /* the length of the header as it is now: else hardly anything would be read */
        const size_t length = n + header > *size + 8 ? n + header - *size - 8 : 0;
        for (size_t k = 0; k < 8 && n >= 8; k++) copy[k] = (unsigned char)(length >> 8 * k);
    }
    unsigned char *exact = (unsigned char *)malloc(n + !n);
    if (!exact) exit(2);
    memcpy(exact, copy, n);
    free(copy);
    *size = n;
    return exact;
}

int main(int argc, char **argv) {
    const int reads = argc > 2 && !strcmp(argv[1], "read"), overruns = argc > 2 && !strcmp(argv[1], "overrun");
    int error;
    size_t size;
    drawn = 88172645463325252u;
    if (reads || overruns) {
        for (int k = 2; k < argc; k++) {
            unsigned char *bytes = read_file(argv[k], &size);
            if (overruns) bytes = (unsigned char *)realloc(bytes, size - 64);
            if (!bytes) exit(2);
            try_model(bytes, size, &error);
            printf("%d\n", error);
            free(bytes);
        }
        return 0;
    }
    if (argc < 4) return 2;
    const long count = atol(argv[1]);
    long opened = 0, errors[CYL_NOT_CAUSAL + 1] = {0};
    drawn += (uint64_t)atol(argv[2]) * 2654435761u;
    unsigned char *files[64];
    size_t sizes[64];
    const int n = argc - 3 < 64 ? argc - 3 : 64;
    for (int k = 0; k < n; k++) files[k] = read_file(argv[k + 3], &sizes[k]);
    for (long k = 0; k < count; k++) {
        const size_t which = draw((size_t)n);
        size = sizes[which];
        unsigned char *bytes = damaged(files[which], &size);
        opened += try_model(bytes, size, &error);
        errors[error]++;
        free(bytes);
    }
    for (int k = 0; k < n; k++) free(files[k]);
    printf("%ld of %ld opened; errors", opened, count);
    for (int k = 0; k <= CYL_NOT_CAUSAL; k++) printf(" %ld", errors[k]);
    printf("\n");
    return 0;
}

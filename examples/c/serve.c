/* Serves a model of `cylstm.save` without Python: steps of x on standard input, of y on standard output, raw numbers.
 *
 *     cc -std=c99 -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math -I INCLUDE serve.c -o serve -lm
 *     ./serve model.safetensors <x >y
 *
 * INCLUDE is what `python -c "import cylstm; print(cylstm.get_include())"` prints. A step of x is model.I numbers of
 * the model's dtype, or int64 where it reads indices; one of y is model.O numbers. A model that reads forward only
 * answers every step as it comes, the others, and `./serve model.safetensors whole`, when the input has ended.
 */
#include <stdio.h>
#include <stdlib.h>

#include "cylstm/cylstm.h"

static int fail(const char *what) {
    fprintf(stderr, "serve: %s\n", what);
    return 1;
}

/* All that is left of a file, with some room beyond it; NULL if that is not to be had. */
static unsigned char *read_all(FILE *file, size_t *size) {
    size_t room = 1 << 16;
    unsigned char *bytes = (unsigned char *)malloc(room);
    *size = 0;
    while (bytes) {
        unsigned char *more;
        *size += fread(bytes + *size, 1, room - *size, file);
        if (*size < room) break;
        more = (unsigned char *)realloc(bytes, room *= 2);
        if (!more) free(bytes);
        bytes = more;
    }
    return bytes && !ferror(file) ? bytes : NULL;
}

/* A runner for one sequence of at most T steps; its memory, to be freed, in *buffer. */
static int plan(cyl_runner *runner, const cyl_model *model, size_t T, void **buffer) {
    const size_t needed = cyl_model_memory(model, (ptrdiff_t)T, 1);
    *buffer = needed ? malloc(needed) : NULL;
    return cyl_runner_plan(runner, model, *buffer, needed, (ptrdiff_t)T, 1);
}

/* One step after the other, with the state between them. */
static int serve_steps(const cyl_model *model, size_t size_in, size_t size_out) {
    cyl_runner runner;
    void *buffer, *x = malloc(size_in), *y = malloc(size_out);
    int error = plan(&runner, model, 1, &buffer), written = x && y;
    while (!error && written && fread(x, size_in, 1, stdin) == 1) {
        error = cyl_steps(&runner, y, x, 1);
        written = error || (fwrite(y, size_out, 1, stdout) == 1 && !fflush(stdout));
    }
    free(x), free(y), free(buffer);
    if (error) return fail(cyl_error_text(error));
    return written ? 0 : fail("out of memory, or cannot write");
}

/* The whole sequence at once. */
static int serve_sequence(const cyl_model *model, size_t size_in, size_t size_out) {
    cyl_runner runner;
    size_t size;
    unsigned char *x = read_all(stdin, &size);
    const size_t T = size / size_in, steps = model->pools ? 1 : T;
    void *buffer, *y = malloc(steps * size_out + 1);
    int error = plan(&runner, model, T, &buffer), written = x && y;
    if (!error && written) error = cyl_run(&runner, y, x, (ptrdiff_t)T);
    written = written && !error && fwrite(y, size_out, steps, stdout) == steps;
    free(x), free(y), free(buffer);
    if (error) return fail(cyl_error_text(error));
    return written ? 0 : fail("out of memory, or cannot write");
}

int main(int argc, char **argv) {
    static cyl_model model;
    size_t size, size_in, size_out;
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    unsigned char *bytes = file ? read_all(file, &size) : NULL;
    int error;
    if (file) fclose(file);
    if (!bytes) return fail("usage: serve MODEL [whole] <x >y; MODEL could not be read");
    error = cyl_model_open(&model, bytes, size);
    size_in = (size_t)model.I * (model.reads_indices ? sizeof(int64_t) : model.real);
    size_out = (size_t)model.O * model.real;
    if (error) error = fail(cyl_error_text(error));
    else if (model.causal && argc == 2) error = serve_steps(&model, size_in, size_out);
    else error = serve_sequence(&model, size_in, size_out);
    free(bytes);
    return error;
}

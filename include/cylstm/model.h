/* A model as a file of `cylstm.save` describes it: its layers in order, and where their parameters stand.
 *
 *     cyl_model_open(model, bytes, size)     reads the whole file, in memory; 0 or an error code
 *     cyl_error_text(error)
 *
 * Nothing is allocated or copied: a model points into the bytes, which have to stay, and keeps what is described here.
 * The file may hold anything: every size and place is checked, and tensors have to be just those that the layers have.
 * The digest in the file is not: what was damaged in a way that makes sense is not seen.
 */
#ifndef CYLSTM_MODEL_H
#define CYLSTM_MODEL_H

#include <math.h>

#include "cells.h"
#include "json.h"

#define CYL_MAX_LAYERS 32
#define CYL_MAX_TENSORS 192
#define CYL_MAX_NESTED 4 /* Sequential or Residual in another */
#define CYL_NAME 48

typedef enum {
    CYL_OK = 0,
    CYL_NOT_A_MODEL,
    CYL_DAMAGED,
    CYL_OTHER_FORMAT,
    CYL_UNKNOWN_LAYER,
    CYL_UNKNOWN_OPTION,
    CYL_BAD_OPTION,
    CYL_BAD_LAYERS,
    CYL_TOO_MANY_LAYERS,
    CYL_BAD_TENSORS,
    CYL_MISALIGNED,
    CYL_BAD_SIZE,
    CYL_TOO_LITTLE_MEMORY,
    CYL_BAD_INDEX,
    CYL_NOT_CAUSAL
} cyl_error;

static inline const char *cyl_error_text(int error) {
    switch (error) {
    case CYL_OK: return "no error";
    case CYL_NOT_A_MODEL: return "bytes: expected a safetensors file with a cylstm model, as cylstm.save writes it";
    case CYL_DAMAGED: return "bytes: the file is damaged";
    case CYL_OTHER_FORMAT: return "bytes: expected format 1 or 2; the file may be of a newer cylstm";
    case CYL_UNKNOWN_LAYER: return "bytes: the model has a layer that is not supported in C";
    case CYL_UNKNOWN_OPTION: return "bytes: a layer has an option that is not supported in C";
    case CYL_BAD_OPTION: return "bytes: an option of a layer has an impossible value, or is missing";
    case CYL_BAD_LAYERS: return "bytes: the layers of the model do not fit together";
    case CYL_TOO_MANY_LAYERS: return "bytes: the model has more layers than are supported in C";
    case CYL_BAD_TENSORS: return "bytes: the tensors are not those of the model's layers";
    case CYL_MISALIGNED: return "bytes: expected an address, and places of tensors, that are multiples of 8";
    case CYL_BAD_SIZE: return "T, B: expected at least 1, T at most what was planned, and a plan that fits into memory";
    case CYL_TOO_LITTLE_MEMORY: return "buffer: expected at least cyl_model_memory(model, T, B) bytes";
    case CYL_BAD_INDEX: return "x: expected indices from 0 to below the symbols of the embedding";
    case CYL_NOT_CAUSAL: return "model: expected one that reads forward only and does not pool; use cyl_run";
    default: return "unknown error";
    }
}

typedef enum {
    CYL_LAYER_RECURRENT,
    CYL_LAYER_LINEAR,
    CYL_LAYER_EMBEDDING,
    CYL_LAYER_NORM,
    CYL_LAYER_DROPOUT, /* rows as they are */
    CYL_LAYER_POOL_LAST,
    CYL_LAYER_POOL_MEAN,
    CYL_LAYER_POOL_MAX,
    CYL_LAYER_POOL_ENDS,
    CYL_LAYER_RESIDUAL, /* keeps its rows for the sum at the end of it */
    CYL_LAYER_RESIDUAL_END
} cyl_layer_kind;

/* Sizes as in pass.h; a stack of recurrent layers is as many of these. */
typedef struct {
    cyl_layer_kind kind;
    int cell, directions, reverse, learns; /* learns: the states to start from are parameters */
    int nested;                            /* of a residual: in how many others it stands */
    int tensor, tensors;                   /* where its tensors are in the model's, and how many */
    ptrdiff_t I, O, H, P, symbols;         /* I: of an embedding the indices of a step */
    double clip, zoneout_h, zoneout_c, eps;
} cyl_layer;

/* What a parameter is for; cell parameters are numbered from CYL_CELL_PARAMETER on. */
typedef enum {
    CYL_W_IH,
    CYL_W_HH,
    CYL_B_IH,
    CYL_B_HH,
    CYL_W_HR,
    CYL_H_0,
    CYL_C_0,
    CYL_WEIGHT,
    CYL_BIAS,
    CYL_CELL_PARAMETER
} cyl_role;

typedef struct {
    char name[CYL_NAME];
    int role, direction;
    ptrdiff_t rows, columns; /* columns 0: a vector */
    const void *data;
} cyl_tensor;

typedef struct {
    ptrdiff_t I, O; /* features of a step of x and y */
    size_t real;    /* 4: float, 8: double */
    int isa;        /* instruction set, the best of this CPU; may be set to a lower one before memory is planned */
    int reads_indices, pools, causal;
    int layers, tensors;
    ptrdiff_t most; /* of any size: the bytes of the file */
    cyl_layer layer[CYL_MAX_LAYERS];
    cyl_tensor tensor[CYL_MAX_TENSORS];
} cyl_model;

/* A parameter of a layer; NULL if it has none such. */
static inline const void *cyl_parameter(const cyl_model *m, const cyl_layer *layer, int role, int direction) {
    for (int k = layer->tensor; k < layer->tensor + layer->tensors; k++)
        if (m->tensor[k].role == role && m->tensor[k].direction == direction) return m->tensor[k].data;
    return NULL;
}

#include "model_layers.h"

/* The entry of a tensor in the header: its data, whose dtype and shape have to be those expected. */
static inline int cyl_read_tensor(
    cyl_json *j, const cyl_model *m, cyl_tensor *t, const unsigned char *data, size_t size) {
    char key[CYL_JSON_TEXT];
    cyl_json_value value;
    double shape[2] = {0, 0}, offsets[2] = {0, 0};
    size_t sizes = 0, places = 0;
    int first = 1, fits = 0;
    while (cyl_json_next(j, &first, '{', '}')) {
        cyl_json_key(j, key);
        if (!strcmp(key, "dtype")) {
            cyl_json_scalar(j, &value);
            fits = value.kind == CYL_JSON_STRING && !strcmp(value.text, m->real == 4 ? "F32" : "F64");
            continue;
        }
        const int of_shape = !strcmp(key, "shape");
        if (!of_shape && strcmp(key, "data_offsets")) return CYL_DAMAGED;
        size_t *count = of_shape ? &sizes : &places;
        for (int begins = 1; cyl_json_next(j, &begins, '[', ']');) {
            cyl_json_scalar(j, &value);
            if (value.kind != CYL_JSON_INT || *count == 2) return CYL_BAD_TENSORS;
            (of_shape ? shape : offsets)[(*count)++] = value.number;
        }
    }
    if (j->bad) return CYL_DAMAGED;
    if (!fits || sizes != (t->columns ? 2u : 1u) || places != 2) return CYL_BAD_TENSORS;
    if (shape[0] < (double)t->rows || shape[0] > (double)t->rows || shape[1] < (double)t->columns ||
        shape[1] > (double)t->columns)
        return CYL_BAD_TENSORS;
    if (!(offsets[0] >= 0 && offsets[0] <= offsets[1] && offsets[1] <= (double)size)) return CYL_DAMAGED;
    const size_t begin = (size_t)offsets[0], end = (size_t)offsets[1], columns = t->columns ? (size_t)t->columns : 1;
    if ((end - begin) % m->real || (end - begin) / m->real % columns ||
        (end - begin) / m->real / columns != (size_t)t->rows)
        return CYL_DAMAGED;
    if ((uintptr_t)(data + begin) % m->real) return CYL_MISALIGNED;
    t->data = data + begin;
    return CYL_OK;
}

/* The data of all tensors, which have to be those of the layers and no others. */
static inline int cyl_read_tensors(cyl_model *m, cyl_json j, const unsigned char *data, size_t size) {
    char key[CYL_JSON_TEXT];
    int first = 1, found = 0;
    while (cyl_json_next(&j, &first, '{', '}')) {
        int k = 0;
        cyl_json_key(&j, key);
        if (!strcmp(key, "__metadata__")) {
            cyl_json_skip(&j);
            continue;
        }
        while (k < m->tensors && strcmp(m->tensor[k].name, key)) k++;
        if (j.bad || k == m->tensors || m->tensor[k].data) return j.bad ? CYL_DAMAGED : CYL_BAD_TENSORS;
        const int error = cyl_read_tensor(&j, m, &m->tensor[k], data, size);
        if (error) return error;
        found++;
    }
    return j.bad || !cyl_json_ended(&j) ? CYL_DAMAGED : found < m->tensors ? CYL_BAD_TENSORS : CYL_OK;
}

/* The value of a key of an object, where it stands; whether the object has it. */
static inline int cyl_json_find(cyl_json object, const char *name, cyl_json *value) {
    char key[CYL_JSON_TEXT];
    int found = 0;
    for (int first = 1; cyl_json_next(&object, &first, '{', '}');) {
        cyl_json_key(&object, key);
        if (!strcmp(key, name)) {
            *value = object;
            found = 1;
        }
        cyl_json_skip(&object);
    }
    return found && !object.bad;
}

static inline int cyl_model_open(cyl_model *m, const void *bytes, size_t size) {
    const unsigned char *file = (const unsigned char *)bytes;
    cyl_json header, metadata, description, value;
    cyl_json_value format;
    uint64_t length = 0;
    memset(m, 0, sizeof *m);
    m->isa = cyl_detect_isa();
    m->causal = 1;
    m->most = size < PTRDIFF_MAX ? (ptrdiff_t)size : PTRDIFF_MAX;
    if (!bytes || size < 8) return CYL_NOT_A_MODEL;
    for (int k = 8; k > 0; k--) length = length << 8 | file[k - 1];
    if (length > size - 8) return CYL_NOT_A_MODEL;
    memset(&header, 0, sizeof header);
    header.at = file + 8;
    header.end = file + 8 + length;
    if (!cyl_json_find(header, "__metadata__", &metadata)) return CYL_NOT_A_MODEL;
    if (!cyl_json_find(metadata, "cylstm", &description) || !cyl_json_is(&description, '"')) return CYL_NOT_A_MODEL;
    description.quoted = 1;
    value = description;
    cyl_json_skip(&value);
    if (!cyl_json_ended(&value)) return CYL_DAMAGED;
    if (!cyl_json_find(description, "format", &value)) return CYL_DAMAGED;
    cyl_json_scalar(&value, &format);
    if (format.kind != CYL_JSON_INT || (format.number < 1 || format.number > 2)) return CYL_OTHER_FORMAT;
    if (!cyl_json_find(description, "model", &value)) return CYL_DAMAGED;
    const int error = cyl_read_layer(m, &value, "", 0);
    return error ? error : cyl_read_tensors(m, header, header.end, size - 8 - (size_t)length);
}

#endif

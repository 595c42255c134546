/* The layers of a model from their configurations in a file; part of model.h. */
#ifndef CYLSTM_MODEL_LAYERS_H
#define CYLSTM_MODEL_LAYERS_H

/* Types of layers by bit, in the order of their names. */
enum {
    CYL_TYPE_SEQUENTIAL = 1,
    CYL_TYPE_RESIDUAL = 2,
    CYL_TYPE_LSTM = 4,
    CYL_TYPE_GRU = 8,
    CYL_TYPE_RNN = 16,
    CYL_TYPE_LINEAR = 32,
    CYL_TYPE_EMBEDDING = 64,
    CYL_TYPE_DROPOUT = 128,
    CYL_TYPE_LAYER_NORM = 256,
    CYL_TYPE_POOLING = 512,
    CYL_TYPES_OF_LAYERS = CYL_TYPE_SEQUENTIAL | CYL_TYPE_RESIDUAL,
    CYL_TYPES_OF_CELLS = CYL_TYPE_LSTM | CYL_TYPE_GRU | CYL_TYPE_RNN,
    CYL_TYPES_OF_FEATURES = CYL_TYPE_DROPOUT | CYL_TYPE_LAYER_NORM | CYL_TYPE_POOLING,
    CYL_ALL_TYPES = 1023
};
static const char cyl_type_names[] = "Sequential Residual LSTM GRU RNN Linear Embedding Dropout LayerNorm Pooling ";

/* What a configuration may hold, in the order of cyl_keys. Options of training are known and not used. */
typedef enum {
    CYL_KEY_TYPE,
    CYL_KEY_DTYPE,
    CYL_KEY_INPUT_SIZE,
    CYL_KEY_HIDDEN_SIZE,
    CYL_KEY_NUM_LAYERS,
    CYL_KEY_BIAS,
    CYL_KEY_BIDIRECTIONAL,
    CYL_KEY_REVERSE,
    CYL_KEY_LEARN_STATE,
    CYL_KEY_CLIP,
    CYL_KEY_ZONEOUT,
    CYL_KEY_ZONEOUT_CELL,
    CYL_KEY_PROJ_SIZE,
    CYL_KEY_PEEPHOLE,
    CYL_KEY_COUPLED,
    CYL_KEY_LAYER_NORM,
    CYL_KEY_RESET_AFTER,
    CYL_KEY_NONLINEARITY,
    CYL_KEY_IN_FEATURES,
    CYL_KEY_OUT_FEATURES,
    CYL_KEY_NUM_EMBEDDINGS,
    CYL_KEY_EMBEDDING_DIM,
    CYL_KEY_FIELDS,
    CYL_KEY_FEATURES,
    CYL_KEY_EPS,
    CYL_KEY_HOW,
    CYL_KEY_P,
    CYL_KEY_BATCH_FIRST,
    CYL_KEY_DROPOUT,
    CYL_KEY_INPUT_DROPOUT,
    CYL_KEY_RECURRENT_DROPOUT,
    CYL_KEY_COUNT
} cyl_key;

/* kind: s size, b bool, r share in [0, 1), + above 0, or the names of which a string is one; `fallback` where it is not
 * given, NAN if it has to be. */
static const struct {
    const char *name, *kind;
    double fallback;
    int types;
} cyl_keys[CYL_KEY_COUNT] = {
    {"type", cyl_type_names, (double)NAN, CYL_ALL_TYPES},
    {"dtype", "float32 float64 ", (double)NAN, CYL_ALL_TYPES & ~CYL_TYPES_OF_LAYERS},
    {"input_size", "s", (double)NAN, CYL_TYPES_OF_CELLS},
    {"hidden_size", "s", (double)NAN, CYL_TYPES_OF_CELLS},
    {"num_layers", "s", (double)NAN, CYL_TYPES_OF_CELLS},
    {"bias", "b", (double)NAN, CYL_TYPES_OF_CELLS | CYL_TYPE_LINEAR},
    {"bidirectional", "b", (double)NAN, CYL_TYPES_OF_CELLS},
    {"reverse", "b", 0, CYL_TYPES_OF_CELLS},
    {"learn_state", "b", 0, CYL_TYPES_OF_CELLS},
    {"clip", "+", (double)INFINITY, CYL_TYPES_OF_CELLS},
    {"zoneout", "r", 0, CYL_TYPES_OF_CELLS},
    {"zoneout_cell", "r", 0, CYL_TYPE_LSTM},
    {"proj_size", "s", 0, CYL_TYPE_LSTM},
    {"peephole", "b", 0, CYL_TYPE_LSTM},
    {"coupled", "b", 0, CYL_TYPE_LSTM},
    {"layer_norm", "b", 0, CYL_TYPE_LSTM},
    {"reset_after", "b", 1, CYL_TYPE_GRU},
    {"nonlinearity", "tanh relu ", 0, CYL_TYPE_RNN},
    {"in_features", "s", (double)NAN, CYL_TYPE_LINEAR},
    {"out_features", "s", (double)NAN, CYL_TYPE_LINEAR},
    {"num_embeddings", "s", (double)NAN, CYL_TYPE_EMBEDDING},
    {"embedding_dim", "s", (double)NAN, CYL_TYPE_EMBEDDING},
    {"fields", "s", 1, CYL_TYPE_EMBEDDING},
    {"features", "s", (double)NAN, CYL_TYPES_OF_FEATURES},
    {"eps", "+", (double)NAN, CYL_TYPE_LAYER_NORM},
    {"how", "last mean max ends ", (double)NAN, CYL_TYPE_POOLING},
    {"p", "r", 0, CYL_TYPE_DROPOUT},
    {"batch_first", "b", 0, CYL_TYPES_OF_CELLS | CYL_TYPE_SEQUENTIAL},
    {"dropout", "r", 0, CYL_TYPES_OF_CELLS},
    {"input_dropout", "r", 0, CYL_TYPES_OF_CELLS},
    {"recurrent_dropout", "r", 0, CYL_TYPES_OF_CELLS},
};

/* Position of a word among names that each end with a blank; -1: none. */
static inline int cyl_position(const char *names, const char *word) {
    const size_t length = strlen(word);
    for (int k = 0; *names; k++, names = strchr(names, ' ') + 1)
        if (length && !strncmp(names, word, length) && names[length] == ' ') return k;
    return -1;
}

typedef struct {
    int type;
    double value[CYL_KEY_COUNT];
    cyl_json layers; /* where they stand, of a layer of layers */
} cyl_config;

/* Take the value of a key; CYL_BAD_OPTION if it is none that the key can have. */
static inline int cyl_take_option(cyl_json *j, int key, ptrdiff_t most, double *out) {
    const char kind = cyl_keys[key].kind[1] ? 'n' : cyl_keys[key].kind[0];
    cyl_json_value v;
    cyl_json_scalar(j, &v);
    int good = v.kind == CYL_JSON_INT || v.kind == CYL_JSON_REAL;
    if (kind == 'n') {
        v.number = v.kind == CYL_JSON_STRING ? cyl_position(cyl_keys[key].kind, v.text) : -1;
        good = v.number >= 0;
    } else if (kind == 's') {
        good = v.kind == CYL_JSON_INT && v.number >= 0 && v.number <= (double)most;
    } else if (kind == 'b') {
        good = v.kind == CYL_JSON_BOOL;
    } else if (kind == 'r') {
        good = good && v.number >= 0 && v.number < 1;
    } else {
        good = good && v.number > 0;
    }
    *out = v.number;
    if (j->bad) return CYL_DAMAGED;
    return good ? CYL_OK : key == CYL_KEY_TYPE ? CYL_UNKNOWN_LAYER : CYL_BAD_OPTION;
}

/* The configuration of a layer: every key known and of its type, every value possible, none that is needed missing. */
static inline int cyl_read_config(cyl_json *j, ptrdiff_t most, cyl_config *config) {
    char key[CYL_JSON_TEXT];
    int given[CYL_KEY_COUNT] = {0}, first = 1, has_layers = 0, bad = CYL_OK;
    for (int k = 0; k < CYL_KEY_COUNT; k++) config->value[k] = cyl_keys[k].fallback;
    while (cyl_json_next(j, &first, '{', '}')) {
        int k = 0;
        cyl_json_key(j, key);
        if (!strcmp(key, "layers")) {
            config->layers = *j;
            has_layers = 1;
            cyl_json_skip(j);
            continue;
        }
        while (k < CYL_KEY_COUNT && strcmp(cyl_keys[k].name, key)) k++;
        if (k == CYL_KEY_COUNT) {
            bad = CYL_UNKNOWN_OPTION; /* unless the layer is not known at all */
            cyl_json_skip(j);
            continue;
        }
        given[k] = 1;
        const int error = cyl_take_option(j, k, most, &config->value[k]);
        if (error) return error;
    }
    if (j->bad) return CYL_DAMAGED;
    if (!given[CYL_KEY_TYPE]) return CYL_UNKNOWN_LAYER;
    config->type = 1 << (int)config->value[CYL_KEY_TYPE];
    if (bad) return bad;
    if (has_layers != ((config->type & CYL_TYPES_OF_LAYERS) != 0)) return CYL_UNKNOWN_OPTION;
    for (int k = 0; k < CYL_KEY_COUNT; k++) {
        const int its = (cyl_keys[k].types & config->type) != 0;
        if (given[k] && !its) return CYL_UNKNOWN_OPTION;
        if (its && !given[k] && isnan(cyl_keys[k].fallback)) return CYL_BAD_OPTION;
    }
    return CYL_OK;
}

static inline ptrdiff_t cyl_size_of(const cyl_config *config, int key) { return (ptrdiff_t)config->value[key]; }
static inline int cyl_chosen(const cyl_config *config, int key) { return config->value[key] > 0; }

/* Add text to a name; CYL_TOO_MANY_LAYERS where it is full, which only nested layers of many digits make it. */
static inline int cyl_extend(char name[CYL_NAME], const char *more) {
    const size_t n = strlen(name), k = strlen(more);
    if (n + k + 1 > CYL_NAME) return CYL_TOO_MANY_LAYERS;
    memcpy(name + n, more, k + 1);
    return CYL_OK;
}
static inline int cyl_extend_by_number(char name[CYL_NAME], int number) {
    char digits[12];
    size_t n = sizeof digits - 1;
    digits[n] = 0;
    do digits[--n] = (char)('0' + number % 10);
    while (number /= 10);
    return cyl_extend(name, digits + n);
}

/* Expect a tensor of the layer that was added last; its name is prefix and kind, and which layer l of a stack. */
static inline int cyl_expect(
    cyl_model *m, const char *prefix, const char *kind, int l, int d, int role, ptrdiff_t rows, ptrdiff_t columns) {
    if (m->tensors == CYL_MAX_TENSORS) return CYL_TOO_MANY_LAYERS;
    cyl_tensor *t = &m->tensor[m->tensors++];
    int full = cyl_extend(t->name, prefix) || cyl_extend(t->name, kind);
    if (l >= 0) full = full || cyl_extend(t->name, "_l") || cyl_extend_by_number(t->name, l);
    if (d) full = full || cyl_extend(t->name, "_reverse");
    t->role = role;
    t->direction = d;
    t->rows = rows;
    t->columns = columns;
    m->layer[m->layers - 1].tensors++;
    return full ? CYL_TOO_MANY_LAYERS : CYL_OK;
}

/* A further layer, which reads the outputs of the one before. */
static inline int cyl_add_layer(cyl_model *m, cyl_layer_kind kind, ptrdiff_t I, ptrdiff_t O) {
    if (m->layers == CYL_MAX_LAYERS) return CYL_TOO_MANY_LAYERS;
    if (I < 1 || O < 1) return CYL_BAD_OPTION;
    if (m->O && m->O != I) return CYL_BAD_LAYERS;
    cyl_layer *layer = &m->layer[m->layers++];
    layer->kind = kind;
    layer->tensor = m->tensors;
    layer->I = I;
    layer->O = O;
    if (!m->O) m->I = I;
    m->O = O;
    return CYL_OK;
}

static inline int cyl_expect_direction(
    cyl_model *m, const cyl_config *config, const char *prefix, const cyl_layer *layer, int l, int d) {
    const cyl_cell_shape *cell = &cyl_cell_shapes[layer->cell];
    const cyl_cell_parameter *listed = cell->parameters;
    const ptrdiff_t GH = cell->gates * layer->H, H = layer->H, P = layer->P;
    int error = cyl_expect(m, prefix, "weight_ih", l, d, CYL_W_IH, GH, layer->I);
    if (!error) error = cyl_expect(m, prefix, "weight_hh", l, d, CYL_W_HH, GH, P);
    if (!error && cyl_chosen(config, CYL_KEY_BIAS) && cell->biases) {
        error = cyl_expect(m, prefix, "bias_ih", l, d, CYL_B_IH, GH, 0);
        if (!error) error = cyl_expect(m, prefix, "bias_hh", l, d, CYL_B_HH, GH, 0);
    }
    if (!error && P != H) error = cyl_expect(m, prefix, "weight_hr", l, d, CYL_W_HR, P, H);
    for (int k = 0; listed[k].name && !error; k++)
        error = cyl_expect(m, prefix, listed[k].name, l, d, CYL_CELL_PARAMETER + k, listed[k].planes * H, 0);
    if (!error && layer->learns) error = cyl_expect(m, prefix, "h_0", l, d, CYL_H_0, P, 0);
    if (!error && layer->learns && cell->states == 2) error = cyl_expect(m, prefix, "c_0", l, d, CYL_C_0, H, 0);
    return error;
}

static inline int cyl_cell_of(const cyl_config *config) {
    const int peephole = cyl_chosen(config, CYL_KEY_PEEPHOLE), coupled = cyl_chosen(config, CYL_KEY_COUPLED);
    if (config->type == CYL_TYPE_GRU) return cyl_chosen(config, CYL_KEY_RESET_AFTER) ? CYL_GRU : CYL_GRU_RESET_BEFORE;
    if (config->type == CYL_TYPE_RNN) return cyl_chosen(config, CYL_KEY_NONLINEARITY) ? CYL_RNN_RELU : CYL_RNN_TANH;
    if (cyl_chosen(config, CYL_KEY_LAYER_NORM)) return CYL_LSTM_NORM;
    if (coupled) return peephole ? CYL_LSTM_COUPLED_PEEPHOLE : CYL_LSTM_COUPLED;
    return peephole ? CYL_LSTM_PEEPHOLE : CYL_LSTM;
}

static inline int cyl_read_stack(cyl_model *m, const cyl_config *config, const char *prefix) {
    const ptrdiff_t H = cyl_size_of(config, CYL_KEY_HIDDEN_SIZE), projected = cyl_size_of(config, CYL_KEY_PROJ_SIZE);
    const int both = cyl_chosen(config, CYL_KEY_BIDIRECTIONAL), reverse = cyl_chosen(config, CYL_KEY_REVERSE);
    const int layers = cyl_size_of(config, CYL_KEY_NUM_LAYERS) > CYL_MAX_LAYERS
                           ? CYL_MAX_LAYERS + 1
                           : (int)config->value[CYL_KEY_NUM_LAYERS];
    const ptrdiff_t P = projected ? projected : H;
    if (layers < 1 || H < 1 || projected >= H || (both && reverse)) return CYL_BAD_OPTION;
    if (cyl_chosen(config, CYL_KEY_LAYER_NORM) &&
        (cyl_chosen(config, CYL_KEY_PEEPHOLE) || cyl_chosen(config, CYL_KEY_COUPLED) ||
            !cyl_chosen(config, CYL_KEY_BIAS)))
        return CYL_BAD_OPTION;
    if (both || reverse) m->causal = 0;
    for (int l = 0; l < layers; l++) {
        const ptrdiff_t I = l ? m->O : cyl_size_of(config, CYL_KEY_INPUT_SIZE);
        int error = cyl_add_layer(m, CYL_LAYER_RECURRENT, I, both ? 2 * P : P);
        if (error) return error;
        cyl_layer *layer = &m->layer[m->layers - 1];
        layer->cell = cyl_cell_of(config);
        layer->directions = both ? 2 : 1;
        layer->reverse = reverse;
        layer->learns = cyl_chosen(config, CYL_KEY_LEARN_STATE);
        layer->H = H;
        layer->P = P;
        layer->clip = config->value[CYL_KEY_CLIP];
        layer->zoneout_h = config->value[CYL_KEY_ZONEOUT];
        layer->zoneout_c = config->value[CYL_KEY_ZONEOUT_CELL];
        for (int d = 0; d < layer->directions && !error; d++)
            error = cyl_expect_direction(m, config, prefix, layer, l, d);
        if (error) return error;
    }
    return CYL_OK;
}

/* A layer that works on rows, or pools them. */
static inline int cyl_read_simple(cyl_model *m, const cyl_config *config, const char *prefix) {
    const ptrdiff_t features = config->type & CYL_TYPES_OF_FEATURES ? cyl_size_of(config, CYL_KEY_FEATURES) : 0;
    ptrdiff_t I, O;
    int error;
    switch (config->type) {
    case CYL_TYPE_LINEAR:
        I = cyl_size_of(config, CYL_KEY_IN_FEATURES), O = cyl_size_of(config, CYL_KEY_OUT_FEATURES);
        error = cyl_add_layer(m, CYL_LAYER_LINEAR, I, O);
        if (!error) error = cyl_expect(m, prefix, "weight", -1, 0, CYL_WEIGHT, O, I);
        if (!error && cyl_chosen(config, CYL_KEY_BIAS)) error = cyl_expect(m, prefix, "bias", -1, 0, CYL_BIAS, O, 0);
        return error;
    case CYL_TYPE_EMBEDDING: {
        const ptrdiff_t V = cyl_size_of(config, CYL_KEY_NUM_EMBEDDINGS), E = cyl_size_of(config, CYL_KEY_EMBEDDING_DIM);
        if (m->layers) return CYL_BAD_LAYERS;
        I = cyl_size_of(config, CYL_KEY_FIELDS);
        if (V < 1 || E < 1 || I < 1 || I > PTRDIFF_MAX / E) return CYL_BAD_OPTION;
        error = cyl_add_layer(m, CYL_LAYER_EMBEDDING, I, I * E);
        m->layer[0].symbols = V;
        m->reads_indices = 1;
        return error ? error : cyl_expect(m, prefix, "weight", -1, 0, CYL_WEIGHT, V, E);
    }
    case CYL_TYPE_LAYER_NORM:
        error = cyl_add_layer(m, CYL_LAYER_NORM, features, features);
        if (!error) error = cyl_expect(m, prefix, "weight", -1, 0, CYL_WEIGHT, features, 0);
        if (!error) error = cyl_expect(m, prefix, "bias", -1, 0, CYL_BIAS, features, 0);
        if (!error) m->layer[m->layers - 1].eps = config->value[CYL_KEY_EPS];
        return error;
    case CYL_TYPE_POOLING: {
        const cyl_layer_kind how = (cyl_layer_kind)(CYL_LAYER_POOL_LAST + (int)config->value[CYL_KEY_HOW]);
        if (how == CYL_LAYER_POOL_ENDS && features % 2) return CYL_BAD_OPTION;
        m->pools = 1;
        m->causal = 0;
        return cyl_add_layer(m, how, features, features);
    }
    default: return cyl_add_layer(m, CYL_LAYER_DROPOUT, features, features);
    }
}

static inline int cyl_read_layer(cyl_model *m, cyl_json *j, const char *prefix, int nested);

/* The layers of a Sequential or, between the marks of its beginning and end, of a Residual. */
static inline int cyl_read_layers(cyl_model *m, cyl_config *config, const char *prefix, int nested) {
    const int residual = config->type == CYL_TYPE_RESIDUAL, mark = m->layers, pooled = m->pools;
    const ptrdiff_t before = m->O;
    int first = 1, error = CYL_OK;
    if (nested == CYL_MAX_NESTED) return CYL_TOO_MANY_LAYERS;
    if (residual) { /* its size is that of what follows, which is not known yet */
        error = cyl_add_layer(m, CYL_LAYER_RESIDUAL, before ? before : 1, before ? before : 1);
        m->O = before;
    }
    for (int k = 0; !error && cyl_json_next(&config->layers, &first, '[', ']'); k++) {
        char name[CYL_NAME] = "";
        error = cyl_extend(name, prefix) || cyl_extend_by_number(name, k) || cyl_extend(name, ".");
        error = error ? CYL_TOO_MANY_LAYERS : cyl_read_layer(m, &config->layers, name, nested + 1);
    }
    if (error || config->layers.bad) return error ? error : CYL_DAMAGED;
    if (m->layers == mark + residual) return CYL_BAD_LAYERS;
    if (!residual) return CYL_OK;
    m->layer[mark].I = m->layer[mark].O = m->layer[mark + 1].I;
    m->layer[mark].nested = nested;
    if (m->O != m->layer[mark].I || m->pools != pooled) return CYL_BAD_LAYERS;
    error = cyl_add_layer(m, CYL_LAYER_RESIDUAL_END, m->O, m->O);
    m->layer[m->layers - 1].nested = nested;
    return error;
}

/* Read a configuration, and add what it stands for to the model. */
static inline int cyl_read_layer(cyl_model *m, cyl_json *j, const char *prefix, int nested) {
    cyl_config config;
    memset(&config, 0, sizeof config);
    const int error = cyl_read_config(j, m->most, &config);
    if (error) return error;
    if (config.type & CYL_TYPES_OF_LAYERS) return cyl_read_layers(m, &config, prefix, nested);
    const size_t real = config.value[CYL_KEY_DTYPE] > 0 ? 8 : 4;
    if (m->real && m->real != real) return CYL_BAD_LAYERS;
    m->real = real;
    return config.type & CYL_TYPES_OF_CELLS ? cyl_read_stack(m, &config, prefix) : cyl_read_simple(m, &config, prefix);
}

#endif

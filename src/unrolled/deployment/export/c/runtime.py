"""The helper functions of exported C, by name, each after those that it calls. $ stands for the network's name."""

_AFFINE = """
/* outputs = bias + weights * inputs, with a row of weights for each input. The bias may be 0. */
static void $_affine(const float *weights, const float *bias, const float *inputs, int num_inputs, int num_outputs,
                     float *restrict outputs) {
  int i, j;
  for (j = 0; j < num_outputs; j++) outputs[j] = bias ? bias[j] : 0.0f;
  for (i = 0; i + 3 < num_inputs; i += 4) {
    const float a = inputs[i], b = inputs[i + 1], c = inputs[i + 2], d = inputs[i + 3];
    const float *second = weights + num_outputs, *third = second + num_outputs, *fourth = third + num_outputs;
    for (j = 0; j < num_outputs; j++)
      outputs[j] += (weights[j] * a + second[j] * b) + (third[j] * c + fourth[j] * d);
    weights = fourth + num_outputs;
  }
  for (; i < num_inputs; i++, weights += num_outputs)
    for (j = 0; j < num_outputs; j++) outputs[j] += weights[j] * inputs[i];
}"""
_AFFINE_INT8 = """
/* The same with 8-bit weights, which are multiplied by a scale for each output. */
static void $_affine_int8(const signed char *weights, const float *scales, const float *bias, const float *inputs,
                          int num_inputs, int num_outputs, float *restrict outputs) {
  int i, j;
  for (j = 0; j < num_outputs; j++) outputs[j] = 0.0f;
  for (i = 0; i + 3 < num_inputs; i += 4) {
    const float a = inputs[i], b = inputs[i + 1], c = inputs[i + 2], d = inputs[i + 3];
    const signed char *second = weights + num_outputs, *third = second + num_outputs, *fourth = third + num_outputs;
    for (j = 0; j < num_outputs; j++)
      outputs[j] += ((float)weights[j] * a + (float)second[j] * b) + ((float)third[j] * c + (float)fourth[j] * d);
    weights = fourth + num_outputs;
  }
  for (; i < num_inputs; i++, weights += num_outputs)
    for (j = 0; j < num_outputs; j++) outputs[j] += (float)weights[j] * inputs[i];
  for (j = 0; j < num_outputs; j++) outputs[j] = outputs[j] * scales[j] + (bias ? bias[j] : 0.0f);
}"""
_ROW = """
static void $_row(const float *table, long index, int size, float *outputs) {
  int j;
  for (j = 0; j < size; j++) outputs[j] = table[index * size + j];
}"""
_ROW_INT8 = """
static void $_row_int8(const signed char *table, const float *scales, long index, int size, float *outputs) {
  int j;
  for (j = 0; j < size; j++) outputs[j] = (float)table[index * size + j] * scales[index];
}"""
_COLUMN = """
static void $_column(const float *weights, int stride, int index, int size, float *outputs) {
  int j;
  for (j = 0; j < size; j++, weights += stride) outputs[j] = weights[index];
}"""
_COLUMN_INT8 = """
static void $_column_int8(const signed char *weights, const float *scales, int stride, int index, int size,
                          float *outputs) {
  int j;
  for (j = 0; j < size; j++, weights += stride) outputs[j] = (float)weights[index] * scales[index];
}"""
_CONVOLVE = """
/* A convolution over `frames` frames and, with stride 2, over their features, followed by ReLU. */
static void $_convolve(const float *weights, const float *bias, const float *inputs, int frames, int channels,
                       int width, int kernel, int filters, float *outputs) {
  const int half = (width + 1) / 2, padding = kernel / 2;
  int filter, place, channel, frame, k;
  for (filter = 0; filter < filters; filter++) {
    for (place = 0; place < half; place++) {
      const float *w = weights + filter * channels * frames * kernel;
      float sum = bias[filter];
      for (channel = 0; channel < channels; channel++)
        for (frame = 0; frame < frames; frame++)
          for (k = 0; k < kernel; k++, w++) {
            const int at = 2 * place + k - padding;
            if (at >= 0 && at < width) sum += *w * inputs[(frame * channels + channel) * width + at];
          }
      outputs[filter * half + place] = sum > 0.0f ? sum : 0.0f;
    }
  }
}"""
_PUSH = """
/* Moves frames to the front by one, and adds a frame at the end. */
static void $_push(float *frames, int count, int size, const float *frame) {
  int j;
  for (j = 0; j < (count - 1) * size; j++) frames[j] = frames[j + size];
  for (j = 0; j < size; j++) frames[(count - 1) * size + j] = frame[j];
}"""
_SOFTMAX = """
static void $_softmax(const float *logits, int size, float *probabilities) {
  float greatest = logits[0], total = 0.0f;
  int j;
  for (j = 1; j < size; j++) greatest = logits[j] > greatest ? logits[j] : greatest;
  for (j = 0; j < size; j++) total += probabilities[j] = expf(logits[j] - greatest);
  for (j = 0; j < size; j++) probabilities[j] /= total;
}"""
_SORT = """
static void $_sort(float *values, int size) {
  int i, j;
  for (i = 1; i < size; i++) {
    const float value = values[i];
    for (j = i; j > 0 && values[j - 1] > value; j--) values[j] = values[j - 1];
    values[j] = value;
  }
}"""
_SIGMOID = """
static inline float $_sigmoid(float x) {
  const float e = expf(-fabsf(x));
  return (x >= 0.0f ? 1.0f : e) / (1.0f + e);
}"""
_SOFTPLUS = """
static inline float $_softplus(float x) { return (x > 0.0f ? x : 0.0f) + log1pf(expf(-fabsf(x))); }"""
_SIGN = """
static inline float $_sign(float x) { return x > 0.0f ? 1.0f : (x < 0.0f ? -1.0f : x); }"""
_LARGER = """
static inline float $_larger(float a, float b) { return a != a ? a : (a > b ? a : b); }"""
_SMALLER = """
static inline float $_smaller(float a, float b) { return a != a ? a : (a < b ? a : b); }"""
_FOURIER = """
/* |DFT|^2 of `size` samples, a power of two: size / 2 + 1 numbers. The samples are overwritten.
 * The even and odd samples are the real and imaginary parts of a transform of half the size. */
static void $_power_spectrum(float *samples, int size, const float *cosines, const float *sines, float *power) {
  const int half = size / 2;
  int i, j, k, span, step;
  for (i = 0, j = 0; i < half; i++) { /* bit-reversed order */
    if (i < j) {
      for (k = 0; k < 2; k++) {
        const float other = samples[2 * i + k];
        samples[2 * i + k] = samples[2 * j + k];
        samples[2 * j + k] = other;
      }
    }
    for (k = half / 2; k > 0 && (j & k); k /= 2) j -= k;
    j += k;
  }
  for (span = 1; span < half; span *= 2) {
    step = half / span; /* of the angle, in units of 2 pi / size */
    for (j = 0; j < span; j++) {
      const float c = cosines[j * step], s = sines[j * step];
      for (i = j; i < half; i += 2 * span) {
        float *a = samples + 2 * i, *b = samples + 2 * (i + span);
        const float re = b[0] * c + b[1] * s, im = b[1] * c - b[0] * s;
        b[0] = a[0] - re;
        b[1] = a[1] - im;
        a[0] += re;
        a[1] += im;
      }
    }
  }
  power[0] = (samples[0] + samples[1]) * (samples[0] + samples[1]);
  power[half] = (samples[0] - samples[1]) * (samples[0] - samples[1]);
  for (k = 1; k < half; k++) {
    const float *z = samples + 2 * k, *w = samples + 2 * (half - k);
    const float even_re = 0.5f * (z[0] + w[0]), even_im = 0.5f * (z[1] - w[1]);
    const float odd_re = 0.5f * (z[1] + w[1]), odd_im = 0.5f * (w[0] - z[0]);
    const float re = even_re + odd_re * cosines[k] + odd_im * sines[k];
    const float im = even_im + odd_im * cosines[k] - odd_re * sines[k];
    power[k] = re * re + im * im;
  }
}"""

HELPERS = {
    "sigmoid": _SIGMOID,
    "softplus": _SOFTPLUS,
    "sign": _SIGN,
    "larger": _LARGER,
    "smaller": _SMALLER,
    "affine": _AFFINE,
    "affine_int8": _AFFINE_INT8,
    "row": _ROW,
    "row_int8": _ROW_INT8,
    "column": _COLUMN,
    "column_int8": _COLUMN_INT8,
    "convolve": _CONVOLVE,
    "push": _PUSH,
    "softmax": _SOFTMAX,
    "sort": _SORT,
    "power_spectrum": _FOURIER,
}

// The interface between the loop over time and a cell's generated functions, and elementary functions. REAL is the dtype.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

typedef REAL R;

// One step of the rows of one thread. A table has a pointer per row; a row consists of contiguous blocks of `hidden`.
struct Step {
  int64_t rows, hidden, state_stride, recurrent_stride, further_stride, fed_stride;
  const R* const* projected;   // table: the projected input, followed by step masks
  R* recurrent;                // (rows, recurrent_stride): the recurrent product; its gradient in the backward pass
  R* further;                  // (rows, further_stride): outputs of further products; their gradients in the backward pass
  R* fed;                      // (rows, fed_stride): inputs of further products; their gradients in the backward pass
  R* state;                    // (rows, state_stride): the state, updated in place; its gradient in the backward pass
  const R* const* masks;       // table: noise that is constant over an unroll
  const R* own;                // (own, hidden): the cell's own parameters
  R* const* output;            // table
  R* const* saved;             // table: values saved for the backward pass
  const R* const* previous;    // table: the output of the previous step
  const R* const* output_gradient;  // table
  R* const* projected_gradient;     // table
  R* const* apart_gradient;         // table: gradients of recurrent blocks not shared with a projected block
  R* own_gradient;                  // (own, hidden), accumulated
};

#define INLINE static inline __attribute__((always_inline))

INLINE float power_of_two(int32_t n) {
  int32_t bits = (n + 127) << 23;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// exp by Cody and Waite: x = n ln 2 + r, |r| <= ln 2 / 2, with the polynomial of Cephes' expf (Moshier). Two factors of
// 2^(n/2) cover infinity and the subnormal numbers; beyond the limits the result is infinity or 0 anyway.
INLINE float exponential(float x) {
  x = x > 89.0f ? 89.0f : x;
  x = x < -104.0f ? -104.0f : x;
  float n = __builtin_rintf(x * 1.44269504088896341f);
  float r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  int32_t whole = (int32_t)n, half = whole >> 1;
  return p * power_of_two(half) * power_of_two(whole - half);
}
INLINE float logistic(float x) {  // accurate for the smallest results, where 1 / (1 + exp(-x)) is 0
  float e = exponential(-__builtin_fabsf(x));
  return (x >= 0 ? 1.0f : e) / (1.0f + e);
}

// tanh: Cephes' polynomial where 1 - 2 / (exp(2|x|) + 1) would cancel.
INLINE float hyperbolic_tangent(float x) {
  float a = __builtin_fabsf(x), z = x * x;
  float far = __builtin_copysignf(1.0f - 2.0f / (exponential(2.0f * a) + 1.0f), x);
  float p = -5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  float near = p * z * x + x;
  return a < 0.625f ? near : far;
}

INLINE double exponential(double x) { return std::exp(x); }
INLINE double logistic(double x) {
  double e = std::exp(-std::fabs(x));
  return (x >= 0 ? 1.0 : e) / (1.0 + e);
}
INLINE double hyperbolic_tangent(double x) { return std::tanh(x); }
INLINE R sign(R x) { return x > 0 ? R(1) : (x < 0 ? R(-1) : x); }
// NaN is propagated, as in torch: a comparison with it is false.
INLINE R larger(R a, R b) { return a != a ? a : (a > b ? a : b); }
INLINE R smaller(R a, R b) { return a != a ? a : (a < b ? a : b); }
